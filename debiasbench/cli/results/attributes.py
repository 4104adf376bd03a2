"""`debiasbench results attributes`: accuracies by attributes that are no part of the groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import (
    data_root_option,
    debug_option,
    load_plugins,
    results_option,
    say,
)
from debiasbench.cli.parsing import Command

if TYPE_CHECKING:
    from pathlib import Path

    from debiasbench.records.attributes import Part


@click.command(cls=Command)
@click.argument("record", metavar="ID|FILE")
@results_option
@data_root_option
@click.option(
    "--select", help="The selection rule that chooses the epoch.  [default: that of the data set]"
)
@debug_option
def attributes(record: str, results: Path, data_root: Path, select: str | None) -> None:
    """Print the test accuracy of a record by attribute and class.

    Some data sets know more attributes of their test samples than the bias, such as the eight
    identities of civilcomments. A sample may have several of them, so these groups overlap. The
    data are read again, and must be those of the record.
    """
    from debiasbench.common.errors import DataError, OptionError
    from debiasbench.records.attributes import parts
    from debiasbench.records.held import one
    from debiasbench.records.store import read_predictions
    from debiasbench.runs.session import load_task
    from debiasbench.specs.resolve import instance

    path, found = one(results, record)
    rule = select or found.task.select
    stored = read_predictions(path, found, rule, "test")
    plugins, choice = load_plugins(), found.spec.dataset
    have = instance(plugins.datasets, choice).attributes(data_root)
    if not have:
        raise OptionError(f"{choice.name} knows no attributes beside its bias")
    if load_task(plugins, choice, data_root).fingerprint() != found.task.fingerprint:
        raise DataError(
            f"The data under {data_root} are not those of {path.name}: give their folder with "
            "--data-root"
        )
    masks = {name: mask.numpy() for name, mask in have.items()}
    say(_table(parts(stored, masks, found.task.classes), rule))


def _table(parts: list[Part], rule: str) -> str:
    from tabulate import tabulate

    rows = [
        (
            one.attribute,
            one.label,
            f"{one.samples:,}",
            f"{100 * one.accuracy:.1f}" if one.samples else "—",
        )
        for one in parts
    ]
    text = tabulate(
        rows,
        ("attribute", "class", "samples", "accuracy %"),
        "simple",
        disable_numparse=True,
        colalign=("left", "left", "right", "right"),
    )
    known = [one for one in parts if one.samples]
    if not known:
        return text
    worst = min(known, key=lambda one: one.accuracy)
    return (
        f"{text}\n\nWorst of {len(known)} groups that overlap: {worst.attribute}, {worst.label}, "
        f"{100 * worst.accuracy:.1f} %, at the epoch of {rule}"
    )
