"""The command line: one file per command, which is imported when the command is called."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, MutableMapping
from typing import IO, Any

import click

from debiasbench.cli.common import say
from debiasbench.cli.parsing import HELP
from debiasbench.common.errors import DebiasbenchError, Interrupted
from debiasbench.common.processes import speaks
from debiasbench.common.wording import printable, shortened

EPILOG = """\b
Exit codes:
  0    success, or there was nothing to do
  1    an unexpected error; --debug shows the traceback
  2    an unknown name, a wrong option, or a file that does not exist
  3    a plugin that cannot be used
  4    data that are missing, damaged or cannot be read
  5    a method read labels that it does not declare
  6    training failed: the loss became NaN or infinite
  7    the results folder or an output file cannot be read or written
  8    the same spec is being run by another process
  9    a record is missing, damaged or contradicts itself, or a page does not match its records
  10   out of memory; the message gives a batch size that fits
  75   interrupted while training; run the same command again to continue
  130  interrupted before anything new was stored
"""

LONGEST = 2000  # characters of a message; values and lists in it are shorter


class _Group(click.Group):
    """Prints each error and warning as one line on stderr, and exits with the error's code."""

    def invoke(self, ctx: click.Context) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            text = error.format_message()
            if len(text) <= LONGEST:
                raise
            raise click.UsageError(shortened(text, LONGEST), error.ctx) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click handles these
        except KeyboardInterrupt:
            click.echo("Interrupted: nothing was stored", err=True)
            ctx.exit(Interrupted.NOTHING_STORED)
        except SystemExit as error:  # commands of this package raise click's exceptions
            raise _one_line(f"A plugin or library called sys.exit({error.code!r})", 3) from error
        except DebiasbenchError as error:
            if ctx.meta.get("debug"):
                raise
            raise _one_line(str(error), error.exit_code) from error
        except Exception as error:
            if ctx.meta.get("debug"):
                raise
            text = f"{type(error).__name__}: {error}"
            raise _one_line(f"{text} (--debug shows the traceback)", 1) from error


def _show_warning(message: Warning | str, *_location: Any, **_options: Any) -> None:
    if speaks():
        say(f"Warning: {' '.join(str(message).split())}", err=True)


def _one_line(message: str, code: int) -> click.ClickException:
    """Return an exception that click prints as one line on stderr, with the exit code `code`."""

    class OneLine(click.ClickException):
        exit_code = code

        def show(self, file: IO[Any] | None = None) -> None:
            if speaks():  # only one of several processes prints the error
                super().show(file)

    return OneLine(printable(shortened(" ".join(message.split()), LONGEST)))


COMMANDS = (  # each in the file of this name
    "run",
    "compare",
    "list",
    "show",
    "data",
    "suite",
    "search",
    "sweep",
    "reproduce",
    "leaderboard",
    "verify",
    "submit",
    "results",
    "export",
    "cache",
    "bench",
    "new",
    "work",
)


class _Commands(MutableMapping[str, click.Command]):
    """Name -> command; its file is imported when it is asked for, since all take half a second."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._made: dict[str, click.Command | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> click.Command:
        made = self._made[name]
        if made is None:
            module = importlib.import_module(f"debiasbench.cli.{name}")
            # some names are those of builtin types
            made = getattr(module, f"{name}_", None) or getattr(module, name)
            assert isinstance(made, click.Command)
            self._made[name] = made
        return made

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@click.group(cls=_Group, epilog=EPILOG, commands=_Commands(COMMANDS))
@click.version_option(package_name="debiasbench")
def main() -> None:
    """Compare debiasing methods honestly."""


HELP(main)
