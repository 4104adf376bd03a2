"""`debiasbench results diff`: what differs between two records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import debug_option, results_option, say
from debiasbench.cli.parsing import Command
from debiasbench.common.wording import counted, shortened

if TYPE_CHECKING:
    from debiasbench.records.record import Record

LISTED = 20  # groups, those with most differences first


@click.command(cls=Command)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option(
    "--select", help="Compare samples at the epoch of this rule.  [default: that of the data set]"
)
@results_option
@debug_option
def diff(first: str, second: str, select: str | None, results: Path) -> None:
    """Compare records A and B, each given by its file, its id, or the first digits of its id.

    Shows what differs in spec, versions, machine and cost, the accuracies of both, and how many
    test samples only one of them has right, by group. The samples show how two networks differ.
    To compare two methods, use `debiasbench leaderboard --baseline`.
    """
    from debiasbench.common.errors import UnknownNameError
    from debiasbench.records.held import one
    from debiasbench.records.selection import RULES

    if select is not None and select not in RULES:
        raise UnknownNameError("selection rule", select, RULES)
    a, b = one(results, first), one(results, second)
    rule = select or a[1].task.select
    say("\n\n".join([f"A: {a[0]}\nB: {b[0]}", _values(a[1], b[1]), _accuracies(a[1], b[1], rule)]))
    say("\n" + _samples(a, b, rule))


def _values(a: Record, b: Record) -> str:
    from tabulate import tabulate

    from debiasbench.records.difference import differing

    rows = [
        (one.name, shortened(str(one.first), 60), shortened(str(one.second), 60))
        for one in differing(a, b)
    ]
    if not rows:
        return "Equal in spec, data, code, machine and cost"
    return tabulate(rows, ("", "A", "B"), "simple", disable_numparse=True)


def _accuracies(a: Record, b: Record, chosen: str) -> str:
    """Write all accuracies of the chosen rule, and that of the data set of the others."""
    from tabulate import tabulate

    from debiasbench.records.difference import accuracies_by_rule

    of_a, of_b = accuracies_by_rule(a), accuracies_by_rule(b)
    rows = [
        (rule, metric.replace("_", " "), *_both(one, of_b[rule][metric]))
        for rule in of_a
        if rule in of_b
        for metric, one in of_a[rule].items()
        if rule == chosen or metric == a.task.metric
    ]
    if not rows:
        return "No selection rule has a result in both"
    head = ("selected by", "accuracy", "A %", "B %", "B - A")
    return tabulate(
        rows,
        head,
        "simple",
        disable_numparse=True,
        colalign=("left", "left", "right", "right", "right"),
    )


def _samples(a: tuple[Path, Record], b: tuple[Path, Record], rule: str) -> str:
    from tabulate import tabulate

    from debiasbench.common.errors import RecordError
    from debiasbench.records.difference import samples

    try:
        groups = samples(a, b, rule)
    except RecordError as error:
        return f"Samples are not compared: {error}"
    total = sum(g.samples for g in groups)
    changed = sum(g.only_first + g.only_second for g in groups)
    text = f"Of {total:,} test samples, {changed:,} are right in only one, at the epoch of {rule}"
    different = [g for g in groups if g.only_first or g.only_second]
    if not different:
        return text
    different.sort(key=lambda g: -(g.only_first + g.only_second))
    rows = [(g.group, g.samples, g.only_first, g.only_second) for g in different[:LISTED]]
    head = ("group", "samples", "only A right", "only B right")
    more = len(different) - LISTED
    last = f"\nand {counted(more, 'more group')}" if more > 0 else ""
    return f"{text}:\n\n{tabulate(rows, head, 'simple')}{last}"


def _both(a: float, b: float) -> tuple[str, str, str]:
    from debiasbench.leaderboard.cells import percent

    return percent(a), percent(b), "—" if math.isnan(b - a) else f"{100 * (b - a):+.1f}"
