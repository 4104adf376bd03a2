"""Options and steps that several commands share."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from debiasbench.common.signals import stopped_by_signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.specs.plugins import Plugins


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


def data_root_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--data-root`."""
    return click.option(
        "--data-root",
        type=click.Path(path_type=Path),
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
        type=click.Path(path_type=Path),
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
    """Add `--compile` and `--deterministic`."""
    command = click.option(
        "--deterministic",
        is_flag=True,
        help="Use deterministic algorithms on an accelerator, which are slower. On a CPU, results "
        "are always deterministic.",
    )(command)
    return click.option(
        "--compile",
        type=click.Choice(["off", "on", "graphs"]),
        default="off",
        show_default=True,
        help="Compile networks with torch.compile; graphs also uses CUDA graphs, which makes small "
        "networks faster on a GPU.",
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


def load_plugins() -> Plugins:
    """Load all plugins, with a warning on stderr for each that fails."""
    from debiasbench.specs.plugins import Plugins

    with stopped_by_signals(ending=True) as stop:  # a signal must not break an import
        plugins = click.get_current_context().obj or Plugins()
        stop.check()
    for broken in plugins.broken:
        click.echo(f"Warning: {broken}", err=True)
    return plugins
