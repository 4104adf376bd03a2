"""How much the accuracy of two runs of one spec may differ: test samples and seeds (W02).

Two runs that are not equal bit for bit, because the machine or the code differs, are two trainings.
Test samples and seeds explain a difference of their accuracies: twice the standard error over
samples, plus the standard deviation over the seeds of the row.
"""

from __future__ import annotations

import math
from statistics import stdev
from typing import TYPE_CHECKING

import numpy as np

from debiasbench.records.metrics import weights
from debiasbench.records.record import test_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from debiasbench.records.record import Record


def accuracy(record: Record) -> float:
    """Return the test accuracy by which the data set ranks; NaN if there is none."""
    outcome = record.outcomes.get(record.task.select) or record.outcomes.get("last")
    return math.nan if outcome is None else outcome.test.metrics.get(record.task.metric, math.nan)


def tolerance(record: Record, spread: float) -> float:
    """Return the largest difference of `accuracy`; `spread`: the `deviation` over seeds."""
    return 2 * _error(record) + spread


def _error(record: Record) -> float:
    """Return the standard error over test samples; that of the worst group for other metrics."""
    outcome = record.outcomes.get(record.task.select) or record.outcomes["last"]
    counts = test_counts(record, outcome)
    present = counts.totals > 0
    # one more right and one more wrong, so that nothing is certain where all samples are right
    share = (counts.hits[present] + 1) / (counts.totals[present] + 2)
    variance = share * (1 - share) / counts.totals[present]
    share_of = weights(counts, record.task.metric)
    if share_of is None:
        return math.sqrt(float(variance.max()))
    return math.sqrt(float(np.sum(share_of[present] ** 2 * variance)))


def deviation(row: Sequence[Record]) -> float:
    """Return the standard deviation of `accuracy` over the seeds of a row; 0 for one record."""
    values = [value for record in row if not math.isnan(value := accuracy(record))]
    return stdev(values) if len(values) > 1 else 0.0
