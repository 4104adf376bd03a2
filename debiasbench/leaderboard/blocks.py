"""The blocks of a Markdown page between two comments, which are generated; the rest is not ours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from debiasbench.common.errors import RecordError

_OPEN = re.compile(
    r"<!-- debiasbench (?P<command>leaderboard|reproduce) (?P<words>.*?) ?-->[ \t]*(?P<end>\r?\n)"
)
_CLOSE = re.compile(r"[ \t]*<!-- /debiasbench -->")
_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})(?P<more>.*)")


@dataclass(frozen=True)
class Block:
    """Lines of a page that are generated; numbers count from 0."""

    command: str  # of the opening comment: "leaderboard" or "reproduce"
    words: str  # of the opening comment, after the command
    first: int  # the line after the opening comment
    last: int  # the line of the closing comment
    newline: str  # of the opening comment's line


def blocks(lines: list[str]) -> list[Block]:
    """Find the blocks in the lines of a page, which keep their line ends.

    Comments in fenced code are examples. Raises `RecordError` if there is no block or a comment
    has no partner; the message continues the name of the page.
    """
    found: list[Block] = []
    opened: tuple[int, re.Match[str]] | None = None
    fence = ""
    for number, line in enumerate(lines):
        if opened is None and (mark := _FENCE.match(line)):
            if not fence:
                fence = mark["fence"]
            elif mark["fence"].startswith(fence) and not mark["more"].strip():
                fence = ""
            continue
        if fence:
            continue
        begins = _OPEN.search(line)
        ends = _CLOSE.match(line)
        if (begins and opened) or (ends and not opened):
            raise _unpaired(opened[0] if opened else number, opens=opened is not None)
        if begins:
            opened = number, begins
        elif opened and ends:
            start, match = opened
            block = Block(match["command"], match["words"], start + 1, number, match["end"])
            found.append(block)
            opened = None
    if opened:
        raise _unpaired(opened[0], opens=True)
    if not found:
        raise RecordError(
            "has no table to update. Mark the place with "
            "<!-- debiasbench leaderboard RECORDS --> and <!-- /debiasbench -->"
        )
    return found


def _unpaired(number: int, *, opens: bool) -> RecordError:
    if opens:
        return RecordError(
            f"has a block that begins in line {number + 1} and has no end: write "
            "<!-- /debiasbench --> on a line of its own after the table"
        )
    return RecordError(
        f"has the end of a block in line {number + 1}, but no block begins before it: write "
        "<!-- debiasbench leaderboard RECORDS --> above the table, or remove the line"
    )
