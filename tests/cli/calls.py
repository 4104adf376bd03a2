"""Calls of the command line for tests, and what they leave."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import Result

RUN = ("run", "--method", "erm", "--dataset", "toy", "--device", "cpu")


PROGRESS = re.compile(r".* on .*, .*: ([\d,]+ steps|epoch \d+ of \d+, .*)")


def only(result: Result, code: int) -> str:
    """The one line on stderr, after lines of progress, of a call that ended with `code`."""
    assert result.exit_code == code, (result.output, result.exception)
    lines = [line for line in result.stderr.splitlines() if not PROGRESS.fullmatch(line)]
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")


def records(folder: str = "results") -> list[Path]:
    return sorted(Path(folder).glob("*.json"))
