"""`debiasbench cache`: list and remove what can be made again, such as stages and indexes."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import click

from debiasbench.cli.common import debug_option, results_option, say
from debiasbench.cli.parsing import Group
from debiasbench.common.wording import counted, shown

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class _Bytes(click.ParamType):  # type: ignore[type-arg]
    """A number of bytes, such as 500M or 4G."""

    name = "bytes"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        text = str(value).strip().upper()
        match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([KMGT]?)B?", text)
        if match is None:
            message = f"{shown(value)} is not a size: use a number of bytes, such as 500M or 4G"
            self.fail(message, param, ctx)
        return int(Decimal(match[1]) * UNITS[match[2]])


@click.group(cls=Group)
def cache() -> None:
    """List and remove trained stages that runs share, indexes of folders, and unpacked archives."""


@cache.command()
@results_option
@debug_option
def ls(results: Path) -> None:
    """List indexes of folders of records, unpacked archives, and the finished stages in --results.

    Stages that were used most recently are first.
    """
    from datetime import datetime

    from tabulate import tabulate

    from debiasbench.training.stage_store import FOLDER, all_in

    _list_indexes()
    _list_archives()
    stages = all_in(results / FOLDER)
    rows = [
        (
            stage.name,
            stage.run,
            f"{stage.bytes / 1e6:,.1f} MB",
            datetime.fromtimestamp(stage.used).strftime("%Y-%m-%d %H:%M"),
        )
        for stage in stages
    ]
    say(tabulate(rows, ("stage", "trained by run", "size", "last used"), "simple"))
    size = sum(s.bytes for s in stages) / 1e6
    say(f"\n{counted(len(stages), 'stage')}, {size:,.1f} MB")


def _list_indexes() -> None:
    from tabulate import tabulate

    from debiasbench.records.index import kept

    indexes = kept()
    if not indexes:
        return
    rows = [
        (one.place or f"damaged: {one.path}", f"{one.records:,}", f"{one.bytes / 1e6:,.1f} MB")
        for one in indexes
    ]
    say(tabulate(rows, ("index of", "records", "size"), "simple", disable_numparse=True) + "\n")


def _list_archives() -> None:
    from tabulate import tabulate

    from debiasbench.records.archive import all_unpacked

    rows = [
        (one.folder.name, f"{one.files:,}", f"{one.bytes / 1e6:,.1f} MB") for one in all_unpacked()
    ]
    if rows:
        header = ("unpacked archive", "files", "size")
        say(tabulate(rows, header, "simple", disable_numparse=True) + "\n")


@cache.command()
@debug_option
def clear() -> None:
    """Remove the indexes of all folders of records, and the unpacked files of archives.

    They are made again when a table needs them. Records, archives and trained stages are kept.
    """
    from debiasbench.records.archive import remove_unpacked
    from debiasbench.records.index import remove

    removed = remove()
    size = sum(one.bytes for one in removed) / 1e6
    number = f"{len(removed):,} index{'' if len(removed) == 1 else 'es'}"
    say(f"{number} removed ({size:,.1f} MB)")
    if archives := remove_unpacked():
        size = sum(one.bytes for one in archives) / 1e6
        say(f"{counted(len(archives), 'unpacked archive')} removed ({size:,.1f} MB)")


@cache.command()
@results_option
@click.option(
    "--limit",
    type=_Bytes(),
    default="4G",
    show_default=True,
    help="Largest total size to keep, such as 500M or 4G; 0 removes all stages.",
)
@debug_option
def gc(results: Path, limit: int) -> None:
    """Remove the least recently used stages until the others fit the limit.

    Records are kept. A removed stage is trained again if a run needs it. Indexes of folders that do
    not exist any more are removed, too.
    """
    from debiasbench.common.locks import remove_leftovers
    from debiasbench.records.index import remove
    from debiasbench.training.stage_store import FOLDER, collect, sizes, tidy

    stages = results / FOLDER
    before = sizes(stages)
    removed = collect(stages, limit)
    freed = sum(before.get(stage, 0) for stage in removed)
    tidy(stages)
    remove_leftovers(results)
    remove(only_orphans=True)
    say(
        f"{counted(len(removed), 'stage')} removed ({freed / 1e6:,.1f} MB), "
        f"{sum(sizes(stages).values()) / 1e6:,.1f} MB left"
    )
