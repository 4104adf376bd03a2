"""Records of trainings of several epochs, with curves and predictions, for tests of forgeries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from debiasbench.records.beside import PREDICTIONS, digest, prediction_key
from debiasbench.records.metrics import GroupCounts, accuracies
from debiasbench.records.record import Cost, Curves, Outcome, SplitResult
from debiasbench.records.selection import RULES, Tracker
from debiasbench.records.store import Store
from debiasbench.specs.spec import Spec
from tests.records.test_record import SPEC, make_record

ALIGNED, TRAIN = [[True, False], [False, True]], [95, 5, 5, 95]
EPOCHS = ((9, 1, 2, 10), (9, 5, 6, 9), (10, 3, 5, 10))  # hits of ten samples in each of four groups
STAGE = {"name": "train", "epochs": 3, "steps": 39, "samples": 600, "seconds": 2.0, "flops": 4e9}


def trained(
    folder: Path,
    spec: Spec = SPEC,
    epochs: Sequence[tuple[int, ...]] = EPOCHS,
    *,
    kept: dict[str, int] | None = None,
    noise: int = 0,
    **changes: Any,
) -> Path:
    """Save a record of a training whose epochs have these hits in val and test.

    `kept`: rule -> the epoch that it keeps instead of the best one. `noise`: decides which samples
    of a group are right, and the losses.
    """
    results = [_result(hits) for hits in epochs]
    tracker = Tracker()
    for epoch, result in enumerate(results, 1):
        tracker.update(epoch, result.metrics)
    of = {rule: epoch for rule, (epoch, _) in tracker.best.items()} | (kept or {})
    outcomes = {
        rule: Outcome(
            of[rule],
            math.nan if metric is None else results[of[rule] - 1].metrics[metric],
            results[of[rule] - 1],
            results[of[rule] - 1],
        )
        for rule, metric in RULES.items()
    }
    predicted = _predictions({epoch: epochs[epoch - 1] for epoch in of.values()}, noise)
    names = list(results[0].metrics)
    values = {f"val_{n}": [_rounded(r.metrics[n]) for r in results] for n in names}
    values["loss"] = [_rounded(1 / (epoch + noise / 7)) for epoch in range(1, len(epochs) + 1)]
    stage = {**STAGE, "epochs": len(epochs)}
    record = make_record(spec, **{"curves": [Curves("train", values)], **changes})
    if "cost" not in changes:
        cost = Cost(3.0, 2.0, 300.0, 10**6, 1000, 1000, 1.0, 2e6, 4e9, [stage])
        record = replace(record, cost=cost)
    entry = {"file": spec.stem + PREDICTIONS, "sha256": digest(predicted)}
    record = replace(record, outcomes=outcomes, predictions=entry)
    return Store(folder).save(record, predicted)


def _result(hits: tuple[int, ...]) -> SplitResult:
    return SplitResult(list(hits), accuracies(GroupCounts.of(hits, [10] * 4, ALIGNED, TRAIN)))


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _predictions(epochs: dict[int, tuple[int, ...]], noise: int) -> dict[str, Any]:
    group = np.repeat(np.arange(4, dtype=np.uint8), 10)
    y = group // 2
    values: dict[str, Any] = {}
    for split in ("val", "test"):
        values |= {f"{split}.y": y, f"{split}.group": group}
        for epoch, hits in epochs.items():
            right = np.concatenate(
                [(np.arange(10) + noise * (3 + g)) % 10 < n for g, n in enumerate(hits)]
            )
            values[f"{split}.{prediction_key(epoch)}"] = np.where(right, y, 1 - y).astype(np.uint8)
    return values


def seeds(folder: Path, number: int = 5, spec: Spec = SPEC, **changes: Any) -> list[Path]:
    """Save records of several seeds of a spec, all different."""
    return [
        trained(folder, replace(spec, seed=seed), noise=seed, **changes) for seed in range(number)
    ]
