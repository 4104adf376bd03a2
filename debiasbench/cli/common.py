"""Options and steps that several commands share."""

from __future__ import annotations

import sys
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from debiasbench.cli.parsing import AutoOr, Folder
from debiasbench.common.errors import DataError, StoreError, UnknownNameError
from debiasbench.common.processes import speaks
from debiasbench.common.signals import stopped_by_signals
from debiasbench.common.wording import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from debiasbench.specs.plugins import Plugins


def say(text: object, *, err: bool = False, nl: bool = True) -> None:
    """Print text that may hold file names or text from files; see `printable`."""
    click.echo(printable(str(text)), err=err, nl=nl)


def debug_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--debug`."""

    def remember(ctx: click.Context, _option: click.Parameter, value: bool) -> None:
        ctx.meta["debug"] = value

    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Show the traceback of an error.",
    )(command)


def format_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--format`, whose default depends on where the table goes; see `table_format`."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(["text", "markdown", "latex", "csv", "json", "html-table"]),
        help="Format of the tables. text fits into the width of the terminal.  "
        "[default: text on a terminal, otherwise markdown]",
    )(command)


def table_format(form: str | None, out: Path | None = None) -> tuple[str, bool]:
    """Return the format of a table, and whether it goes to a terminal."""
    to_terminal = out is None and sys.stdout.isatty()
    return form or ("text" if to_terminal else "markdown"), to_terminal


def data_root_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data-root`."""
    return click.option(
        "--data-root",
        type=Folder(DataError, "Choose another folder with --data-root, or check its permissions"),
        default=Path("data"),
        show_default=True,
        envvar="DEBIASBENCH_DATA",
        show_envvar=True,
        help="Folder of data files.",
    )(command)


def results_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--results`."""
    return click.option(
        "--results",
        type=Folder(StoreError, "Choose another folder with --results, or check its permissions"),
        default=Path("results"),
        show_default=True,
        help="Folder of records.",
    )(command)


def device_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--device`."""
    return click.option(
        "--device",
        default="auto",
        show_default=True,
        envvar="DEBIASBENCH_DEVICE",
        show_envvar=True,
        help="Device to use, such as cpu or cuda:1; auto is an accelerator if there is one, "
        "otherwise the CPU.",
    )(command)


def arithmetic_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--compile`, `--deterministic` and `--graphs`."""
    command = click.option(
        "--deterministic",
        is_flag=True,
        help="Use deterministic algorithms on an accelerator, which are slower. On a CPU, results "
        "are always deterministic.",
    )(command)
    command = click.option(
        "--graphs/--no-graphs",
        default=True,
        show_default=True,
        help="Whether an NVIDIA GPU captures training steps and replays them, which is much faster "
        "for small networks. Steps that cannot be captured are computed as usual.",
    )(command)
    return click.option(
        "--compile",
        type=click.Choice(["off", "on"]),
        default="off",
        show_default=True,
        help="Compile networks with torch.compile.",
    )(command)


def together_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--together`."""
    return click.option(
        "--together",
        type=AutoOr(click.IntRange(min=1)),
        default=1,
        show_default=True,
        metavar="N|auto",
        help="Number of runs that are trained at once in one process, which keeps a GPU busy; "
        "auto measures which number is fastest, and is 1 on a CPU.",
    )(command)


def overwrite_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--overwrite`."""
    return click.option(
        "--overwrite",
        type=click.Choice(["never", "failed", "always"]),
        default="failed",
        show_default=True,
        help="Which existing records to replace with a new run.",
    )(command)


def interruptible(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a signal end the command where it can stop; see `debiasbench.common.signals`."""

    @wraps(command)
    def followed(**arguments: Any) -> Any:
        with stopped_by_signals(ending=True):
            return command(**arguments)

    return followed


def check_name(kind: str, name: str | None, known: Iterable[str]) -> None:
    """Raise `UnknownNameError` if a name is given that is not known."""
    if name is not None and name not in known:
        raise UnknownNameError(kind, name, known)


def print_table(places: Iterable[Path], form: str | None, **asked: Any) -> None:
    """Print the leaderboard of records, and a warning for each that is bad; see `table`."""
    from debiasbench.leaderboard import table

    form, styled = table_format(form)
    text, problems = table(places, form, styled=styled, **asked)
    for problem in problems:
        say(f"Warning: {problem}", err=True)
    click.echo(text, nl=False)  # tables are printable, and may be bold on a terminal


def load_plugins() -> Plugins:
    """Load all plugins; write warnings for those that fail, change settings or import slowly."""
    from debiasbench.common.foreign import trace
    from debiasbench.specs.plugins import Plugins

    context = click.get_current_context()
    with stopped_by_signals(ending=True) as stop:  # a signal must not break an import
        plugins = context.obj or Plugins()
        stop.check()
    for broken in plugins.broken if speaks() else ():
        if broken.error is not None and context.meta.get("debug"):
            click.echo(trace(broken.error), err=True)
        say(f"Warning: {broken}", err=True)
    for warning in plugins.warnings if speaks() else ():
        say(f"Warning: {warning}", err=True)
    return plugins
