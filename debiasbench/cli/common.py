"""What commands share: the `--debug` option, and plugins with a word on the broken ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.plugins import Plugins


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


def load_plugins() -> Plugins:
    """Load all plugins; name those that fail on stderr."""
    from debiasbench.plugins import Plugins

    plugins = click.get_current_context().obj or Plugins()
    for broken in plugins.broken:
        click.echo(f"Warning: {broken}", err=True)
    return plugins
