"""The command line: one file per command, with heavy imports inside the functions."""

from __future__ import annotations

import warnings
from typing import IO, Any

import click

from debiasbench.cli.bench import bench
from debiasbench.cli.cache import cache
from debiasbench.cli.common import say
from debiasbench.cli.compare import compare
from debiasbench.cli.data import data
from debiasbench.cli.export import export
from debiasbench.cli.leaderboard import leaderboard
from debiasbench.cli.list import list_
from debiasbench.cli.new import new
from debiasbench.cli.reproduce import reproduce
from debiasbench.cli.results import results
from debiasbench.cli.run import run
from debiasbench.cli.show import show
from debiasbench.cli.submit import submit
from debiasbench.cli.suite import suite
from debiasbench.cli.sweep import sweep
from debiasbench.cli.verify import verify
from debiasbench.cli.work import work
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


@click.group(cls=_Group, epilog=EPILOG)
@click.version_option(package_name="debiasbench")
def main() -> None:
    """Compare debiasing methods honestly."""


COMMANDS = (
    run,
    compare,
    list_,
    show,
    data,
    suite,
    sweep,
    reproduce,
    leaderboard,
    verify,
    submit,
    results,
    export,
    cache,
    bench,
    new,
    work,
)


def _add_help(command: click.Command) -> None:
    """Give a command and its sub-commands -h and --help, whatever context they are called in."""
    click.help_option("-h", "--help", help="Show this message and exit.")(command)
    for sub in command.commands.values() if isinstance(command, click.Group) else ():
        _add_help(sub)


for command in COMMANDS:
    main.add_command(command)
_add_help(main)
