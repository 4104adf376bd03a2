"""Calls of the command line for tests, and what they leave."""

from __future__ import annotations

from pathlib import Path

from click.testing import Result

RUN = ("run", "--method", "erm", "--dataset", "toy", "--device", "cpu")


def only(result: Result, code: int) -> str:
    """The one line on stderr of a call that ended with `code`."""
    assert result.exit_code == code, (result.output, result.exception)
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("Error: ")
    return lines[0].removeprefix("Error: ")


def records(folder: str = "results") -> list[Path]:
    return sorted(Path(folder).glob("*.json"))
