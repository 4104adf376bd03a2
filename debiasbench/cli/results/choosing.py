"""The options that choose records by method, data set and seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.records.held import Choice


def choosing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--method`, `--dataset`, `--seed` and `--failed`."""
    options = (
        click.option("--method", help="Only records of this method."),
        click.option(
            "--dataset", help="Only records of this data set; imported ones need no prefix."
        ),
        click.option("--seed", metavar="SEEDS", help="Only these seeds, such as 0-4 or 1,3."),
        click.option("--failed", is_flag=True, help="Only runs that failed."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def choice(
    method: str | None,
    dataset: str | None,
    seed: str | None,
    failed: bool,
    ids: tuple[str, ...] = (),
) -> Choice:
    """Return what the options choose; raises `OptionError` for seeds that are no numbers."""
    from debiasbench.records.held import Choice
    from debiasbench.specs.grid import seeds

    chosen = None if seed is None else frozenset(seeds(seed))
    return Choice(ids, method, dataset, chosen, failed)
