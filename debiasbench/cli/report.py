"""The report of a run: accuracies by group and by selection rule, and the path of the record."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tabulate import tabulate

from debiasbench.common.wording import printable
from debiasbench.records.record import Record, test_counts
from debiasbench.records.selection import RULES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.records.store import Run

MOST_BIASES = 5  # largest number of columns that fit into a terminal
COLUMNS = ("average", "unbiased", "worst_group", "conflict", "aligned")


def report(run: Run, changed: Sequence[str] = ()) -> str:
    """Return the report of a run as text.

    `changed`: plugins whose code is not the one that made the record.
    """
    record = run.record
    spec = record.spec
    sparse = f", sparse by {spec.sparse.name}" if spec.sparse is not None else ""
    title = f"{spec.method.name} on {spec.dataset.name} with {spec.model.name}{sparse}"
    parts = [f"{title}, seed {spec.seed}"]
    if record.failure is None:
        rule = record.task.select if record.task.select in record.outcomes else "last"
        parts += [_groups(record, rule), _rules(record, rule)]
    if record.cost is not None:
        parts.append(
            f"{record.cost.training_seconds:.1f} s of training on {record.provenance.hardware}; "
            f"{record.cost.active_parameters:,} of {record.cost.parameters:,} parameters active"
        )
        parts += [
            f"The steps of stage {stage['name']!r} were computed without a graph: {stage['eager']}"
            for stage in record.cost.stages
            if stage.get("eager")  # older records do not say it
        ]
    if not run.fresh:
        parts.append(
            f"Already done on {record.provenance.started[:10]} with "
            f"{record.provenance.plugins['method']}; use --overwrite always to run it again"
        )
        if changed:
            parts.append(
                f"The code of {' and '.join(changed)} has changed since then: a new run may give "
                "another result"
            )
    parts.append(f"Record: {run.path}")
    return printable("\n\n".join(parts))


def _groups(record: Record, rule: str) -> str:
    """Return a table with a row for each class.

    Its columns are the bias values, or aligned and conflicting if there are many bias values.
    """
    task, counts = record.task, test_counts(record, record.outcomes[rule])
    if len(task.biases) <= MOST_BIASES:
        head = [f"{bias} %" for bias in task.biases]
        rows = [
            [
                _share(counts.hits[c, b], counts.totals[c, b]) + (" *" if aligned else "  ")
                for b, aligned in enumerate(counts.aligned[c])
            ]
            for c in range(len(task.classes))
        ]
        note = "\n* bias-aligned"
    else:
        head = ["aligned %", "conflicting %"]
        rows = [
            [
                _share(counts.hits[c, side].sum(), counts.totals[c, side].sum())
                for side in (counts.aligned[c], ~counts.aligned[c])
            ]
            for c in range(len(task.classes))
        ]
        empty = int((counts.totals == 0).sum())
        note = f"\n{empty} of {counts.totals.size} groups have no test samples" if empty else ""
    table = tabulate(
        [[name, *row] for name, row in zip(task.classes, rows, strict=True)],
        headers=["class", *head],
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", *["right"] * len(head)),
    )
    return f"Test accuracy per group (samples), at the epoch selected by {rule}:\n\n{table}{note}"


def _rules(record: Record, chosen: str) -> str:
    rows = []
    for rule in (rule for rule in RULES if rule in record.outcomes):  # a file has another order
        outcome = record.outcomes[rule]
        metrics = outcome.test.metrics
        epoch = "—" if outcome.epoch is None else str(outcome.epoch)
        mark = " *" if rule == chosen else ""
        rows.append([rule + mark, epoch, *(_percent(metrics[m]) for m in COLUMNS)])
    head = ("selected by", "epoch", *(c.replace("_", " ") for c in COLUMNS))
    table = tabulate(
        rows,
        headers=head,
        tablefmt="simple",
        disable_numparse=True,
        colalign=("left", *["right"] * (len(head) - 1)),
    )
    return f"Test accuracy in % by selection rule (* used above):\n\n{table}"


def _share(hits: int, total: int) -> str:
    return f"{_percent(hits / total)} ({total})" if total else "— (0)"


def _percent(value: float) -> str:
    return "—" if math.isnan(value) else f"{100 * value:.1f}"
