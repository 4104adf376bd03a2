"""Tables inside Markdown pages: each names the command that makes it.

A page holds blocks of the form

    <!-- debiasbench leaderboard RECORDS... [OPTIONS] -->
    (the table)
    <!-- /debiasbench -->

RECORDS are relative to the page's folder; OPTIONS are --dataset, --metric, --select, --baseline and
--pivot.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import NoReturn

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard.table import table

_BLOCK = re.compile(
    r"(?P<open><!-- debiasbench leaderboard (?P<words>[^\n]*?) -->\n)"
    r"(?P<table>.*?)"
    r"(?P<close><!-- /debiasbench -->)",
    re.DOTALL,
)


def regenerated(page: Path) -> tuple[str, str]:
    """Return the text of a page as it is, and as it must be for its records.

    Raises `RecordError` for a page without a block, for a block with a wrong option, and for
    records that are bad or occur twice.
    """
    try:
        text = page.read_text("utf-8")
    except OSError as error:
        raise RecordError(f"{page} cannot be read: {error.strerror}") from error
    if not _BLOCK.search(text):
        raise RecordError(
            f"{page} has no table to update. Mark the place with "
            "<!-- debiasbench leaderboard RECORDS --> and <!-- /debiasbench -->"
        )
    return text, _BLOCK.sub(lambda m: m["open"] + _table(page, m["words"]) + m["close"], text)


def _table(page: Path, words: str) -> str:
    parser = _Parser(prog=str(page), add_help=False)
    parser.add_argument("records", nargs="+")
    for name in ("--dataset", "--metric", "--select", "--baseline", "--pivot"):
        parser.add_argument(name)
    arguments = vars(parser.parse_args(shlex.split(words)))
    places = [page.parent / place for place in arguments.pop("records")]
    text, problems = table(places, "markdown", **arguments)
    if problems:
        raise RecordError(f"{page}: {'; '.join(problems)}")
    return f"\n{text}\n"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RecordError(f"{self.prog}: <!-- debiasbench leaderboard -->: {message}")
