"""Tables inside Markdown pages: each names the command that makes it.

A page holds blocks of the form

    <!-- debiasbench leaderboard RECORDS... [OPTIONS] -->
    (the table)
    <!-- /debiasbench -->

RECORDS are relative to the page's folder; OPTIONS are --dataset, --metric, --select, --baseline,
--pivot, --panel, --across, --protocol, --sensitivity, --columns, --sort and --method. Tables of
published values begin with

    <!-- debiasbench reproduce SUITE --no-run --results RECORDS [--values FILE] -->
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import Any, NoReturn

from debiasbench.common.errors import OptionError, RecordError, UnknownNameError
from debiasbench.common.regular import read_regular
from debiasbench.leaderboard.blocks import blocks
from debiasbench.leaderboard.published import read as read_values
from debiasbench.leaderboard.reproduction_text import judged
from debiasbench.leaderboard.table import table
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.suites import read as read_suite


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
        make = _judged if block.command == "reproduce" else _table
        made = make(page, block.words).replace("\n", block.newline)
        parts += [*lines[done : block.first], made]
        done = block.last
    return text, "".join([*parts, *lines[done:]])


def _table(page: Path, words: str) -> str:
    parser = _Parser(prog=f"{page}: <!-- debiasbench leaderboard -->", add_help=False)
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
    arguments = parser.parsed(words)
    places = [page.parent / place for place in arguments.pop("records")]
    text, problems = table(places, "markdown", **arguments)
    return _block(page, text, problems)


def _judged(page: Path, words: str) -> str:
    """Make a table of published values, for the runs as a CPU with builtin plugins makes them."""
    parser = _Parser(prog=f"{page}: <!-- debiasbench reproduce -->", add_help=False)
    parser.add_argument("suite")
    parser.add_argument("--no-run", action="store_true", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--values")
    arguments = parser.parsed(words)
    suite, values = arguments["suite"], arguments["values"]
    if not (results := page.parent / arguments["results"]).exists():
        raise RecordError(f"No results at {results}")
    try:
        published = read_values(suite if values is None else page.parent / values)
        specs = read_suite(suite).named(Plugins(installed=False)).values()
    except (OptionError, UnknownNameError) as error:
        raise RecordError(f"{page}: {error}") from error
    return _block(page, *judged(published, specs, results, "markdown"))


def _block(page: Path, text: str, problems: list[str]) -> str:
    if problems:
        raise RecordError(f"{page}: {'; '.join(problems)}")
    return f"\n{text}\n"


class _Parser(argparse.ArgumentParser):
    def parsed(self, words: str) -> dict[str, Any]:
        """Return the arguments in the words of a comment."""
        try:
            return vars(self.parse_args(shlex.split(words)))
        except ValueError as error:  # a quotation mark is missing
            self.error(str(error))

    def error(self, message: str) -> NoReturn:
        raise RecordError(f"{self.prog}: {message}")
