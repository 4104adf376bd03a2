"""Tables inside Markdown pages: each names the command that makes it.

A page holds blocks of the form

    <!-- debiasbench leaderboard RECORDS... [OPTIONS] -->
    (the table)
    <!-- /debiasbench -->

RECORDS are relative to the page's folder; OPTIONS are --dataset, --metric, --select, --baseline,
--pivot, --panel, --across, --protocol, --sensitivity, --columns, --sort and --method.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import NoReturn

from debiasbench.common.errors import RecordError
from debiasbench.common.regular import read_regular
from debiasbench.leaderboard.blocks import blocks
from debiasbench.leaderboard.table import table


def regenerated(page: Path) -> tuple[str, str]:
    """Return the text of a page as it is, and as it must be for its records.

    Line ends stay as they are. Raises `RecordError` for a page without a block, for a block that
    does not end or has a wrong option, and for records that are bad or occur twice.
    """
    try:
        text = read_regular(page).decode()
    except OSError as error:
        raise RecordError(f"{page} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{page} is not a text file in UTF-8 ({error})") from error
    lines = re.split(r"(?<=\n)", text)
    try:
        found = blocks(lines)
    except RecordError as error:
        raise RecordError(f"{page} {error}") from error
    parts, done = [], 0
    for block in found:
        made = _table(page, block.words).replace("\n", block.newline)
        parts += [*lines[done : block.first], made]
        done = block.last
    return text, "".join([*parts, *lines[done:]])


def _table(page: Path, words: str) -> str:
    parser = _Parser(prog=str(page), add_help=False)
    parser.add_argument("records", nargs="+")
    for name in (
        "--dataset",
        "--metric",
        "--select",
        "--baseline",
        "--pivot",
        "--panel",
        "--columns",
        "--sort",
    ):
        parser.add_argument(name)
    parser.add_argument("--method", action="append", dest="methods", default=[])
    for name in ("--across", "--protocol", "--sensitivity"):
        parser.add_argument(name, action="store_true")
    try:
        arguments = vars(parser.parse_args(shlex.split(words)))
    except ValueError as error:  # a quotation mark is missing
        parser.error(str(error))
    places = [page.parent / place for place in arguments.pop("records")]
    text, problems = table(places, "markdown", **arguments)
    if problems:
        raise RecordError(f"{page}: {'; '.join(problems)}")
    return f"\n{text}\n"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RecordError(f"{self.prog}: <!-- debiasbench leaderboard -->: {message}")
