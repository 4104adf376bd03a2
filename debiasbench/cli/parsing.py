"""Reading the words of a command: what all commands refuse before they begin."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import click

from debiasbench.common.errors import DebiasbenchError
from debiasbench.common.wording import shortened

HELP = click.help_option("-h", "--help", help="Show this message and exit.")
"""Gives a command -h and --help, whatever context it is called in."""


class Command(click.Command):
    """A command that refuses an option that is given twice, and an empty value.

    click would use the last of several values, and take an empty one for the default: `--dataset
    "$NAME"` would train on another data set if NAME is not set.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        HELP(self)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Check the words, and read them as click does."""
        values, _, given = self.make_parser(ctx).parse_args(list(args))
        for parameter in dict.fromkeys(given):
            if given.count(parameter) > 1 and _is_single(parameter):
                raise click.UsageError(f"{_name(parameter)} is given twice. Give it once", ctx)
            if _is_empty(values.get(parameter.name or "")):
                raise click.UsageError(f"{_name(parameter)} is empty. Give a value", ctx)
        return super().parse_args(ctx, args)


class Group(click.Group):
    """A group whose commands are read as `Command` does."""

    command_class = Command

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        HELP(self)


class AutoOr(click.ParamType[Any]):
    """The word "auto", or a value of another type."""

    name = "auto"

    def __init__(self, other: click.ParamType[Any]) -> None:
        self._other = other

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return "auto", or the converted value."""
        return value if value == "auto" else self._other.convert(value, param, ctx)


class Folder(click.ParamType[Path]):
    """A folder that exists or can be made; `error` is raised for one that cannot be used."""

    name = "path"

    def __init__(self, error: type[DebiasbenchError], advice: str) -> None:
        self._error, self._advice = error, advice

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path; a folder that does not exist is made later."""
        path = Path(value)
        reason = _unusable(path)
        if reason:
            raise self._error(
                f"Cannot use the folder {shortened(str(path))}: {reason}. {self._advice}"
            )
        return path


def _unusable(path: Path) -> str:
    """Return why a folder cannot be read, or an empty string."""
    try:
        if not path.is_dir() and path.stat():
            return "It is not a folder"
    except FileNotFoundError:
        return ""
    except OSError as error:  # such as a name that is too long
        return error.strerror or str(error)
    return "" if os.access(path, os.R_OK | os.X_OK) else os.strerror(errno.EACCES)


def _is_single(parameter: click.Parameter) -> bool:
    """Return whether a parameter has one value; a flag without an opposite may be repeated."""
    if isinstance(parameter, click.Option):
        return not parameter.multiple and not (parameter.is_flag and not parameter.secondary_opts)
    return True


def _is_empty(value: Any) -> bool:
    return value == "" or (isinstance(value, (tuple, list)) and "" in value)


def _name(parameter: click.Parameter) -> str:
    """Return the name of a parameter as the help writes it."""
    if isinstance(parameter, click.Option):
        return "/".join([*parameter.opts[:1], *parameter.secondary_opts[:1]])
    return parameter.make_metavar(click.get_current_context())
