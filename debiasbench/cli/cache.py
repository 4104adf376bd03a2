"""`debiasbench cache`: the stages that runs have kept, and room made where they take too much."""

from __future__ import annotations

import re
from pathlib import Path

import click

from debiasbench.cli.common import debug_option, results_option

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class _Bytes(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, such as 500M or 4G."""

    name = "bytes"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", str(value).strip().upper())
        if found is None:
            self.fail(f"{value!r} is no size: write a number of bytes, or 500M, or 4G", param, ctx)
        return int(float(found[1]) * UNITS[found[2]])


@click.group()
def cache() -> None:
    """List trained stages that runs share, and remove those used longest ago."""


@cache.command()
@results_option
@debug_option
def ls(results: Path) -> None:
    """List the finished stages beside the records, those used last first."""
    from datetime import datetime

    from tabulate import tabulate

    from debiasbench.training.stage_store import FOLDER, all_in

    found = all_in(results / FOLDER)
    rows = [
        (stage.name, stage.run, f"{stage.bytes / 1e6:,.1f} MB",
         datetime.fromtimestamp(stage.used).strftime("%Y-%m-%d %H:%M"))
        for stage in found
    ]  # fmt: skip
    click.echo(tabulate(rows, ("stage", "trained by run", "size", "last used"), "simple"))
    click.echo(f"\n{len(found)} stages, {sum(s.bytes for s in found) / 1e6:,.1f} MB")


@cache.command()
@results_option
@click.option(
    "--limit", type=_Bytes(), default="4G", show_default=True, help="Bytes to keep; 0 keeps none."
)
@debug_option
def gc(results: Path, limit: int) -> None:
    """Remove finished stages, those used longest ago first, until the rest fits.

    Records stay. A stage that is gone is trained again when a run needs it.
    """
    from debiasbench.training.stage_store import FOLDER, collect, weight

    before = weight(results / FOLDER)
    removed = collect(results / FOLDER, limit)
    left = weight(results / FOLDER)
    click.echo(f"{len(removed)} stages removed, {(before - left) / 1e6:,.1f} MB; "
               f"{left / 1e6:,.1f} MB left")  # fmt: skip
