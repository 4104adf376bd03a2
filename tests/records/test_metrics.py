"""Metrics against an independent definition, sample by sample, and at their edges."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from debiasbench.records.metrics import METRICS, GroupCounts, accuracies, accuracies_of

ALIGNED = [[True, False], [False, True]]


def counts(hits: list[int], totals: list[int], train: list[int] | None = None) -> GroupCounts:
    return GroupCounts.of(hits, totals, ALIGNED, train or totals)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [  # groups (y, bias): (0,0) 8 of 10, (0,1) 1 of 2, (1,0) 1 of 4, (1,1) 4 of 4
        ("average", 14 / 20),
        ("balanced_groups", (0.8 + 0.5 + 0.25 + 1.0) / 4),
        ("unbiased", 12 / 20 * (0.8 + 0.5) / 2 + 8 / 20 * (0.25 + 1.0) / 2),
        ("worst_group", 0.25),
        ("conflict", 2 / 6),
        ("aligned", 12 / 14),
        ("adjusted_average", (70 * 0.8 + 10 * 0.5 + 10 * 0.25 + 10 * 1.0) / 100),
    ],
)
def test_metric_of_a_small_table(metric: str, expected: float) -> None:
    table = counts([8, 1, 1, 4], [10, 2, 4, 4], train=[70, 10, 10, 10])
    assert METRICS[metric](table) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_a_count_over_samples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes, biases, n = 3, 4, 400
    y, bias = rng.integers(classes, size=n), rng.integers(biases, size=n)
    right = rng.random(n) < 0.6
    aligned = rng.random((classes, biases)) < 0.4
    train = rng.integers(1, 50, size=classes * biases)

    by_group: dict[tuple[int, int], list[bool]] = defaultdict(list)
    for sample in range(n):
        by_group[int(y[sample]), int(bias[sample])].append(bool(right[sample]))
    accuracy = {g: sum(v) / len(v) for g, v in by_group.items()}
    conflicting = [right[i] for i in range(n) if not aligned[y[i], bias[i]]]
    expected = {
        "average": sum(right) / n,
        "balanced_groups": sum(accuracy.values()) / len(accuracy),
        "unbiased": sum(
            (y == c).sum() / n * np.mean([a for (k, _), a in accuracy.items() if k == c])
            for c in range(classes)
        ),
        "worst_group": min(accuracy.values()),
        "conflict": sum(conflicting) / len(conflicting),
        "aligned": (sum(right) - sum(conflicting)) / (n - len(conflicting)),
        "adjusted_average": sum(
            train[c * biases + b] * accuracy[c, b] for c in range(classes) for b in range(biases)
        )
        / train.sum(),
    }

    group = y * biases + bias
    totals = np.bincount(group, minlength=classes * biases)
    hits = np.bincount(group[right], minlength=classes * biases)
    measured = accuracies(
        GroupCounts.of(hits.tolist(), totals.tolist(), aligned.tolist(), train.tolist())
    )
    assert measured == pytest.approx(expected)


def test_unbiased_is_the_average_on_a_bias_balanced_split() -> None:
    table = counts([3, 1, 0, 7], [4, 4, 8, 8])
    assert METRICS["unbiased"](table) == METRICS["average"](table)


def test_an_absent_group_does_not_count_and_has_no_accuracy() -> None:
    table = counts([8, 0, 1, 4], [10, 0, 4, 4])
    assert math.isnan(table.accuracy[0, 1])
    assert METRICS["worst_group"](table) == 0.25
    assert METRICS["balanced_groups"](table) == pytest.approx((0.8 + 0.25 + 1.0) / 3)


def test_adjusted_average_is_undefined_without_a_group_that_training_has() -> None:
    table = counts([8, 0, 1, 4], [10, 0, 4, 4], train=[1, 1, 1, 1])
    assert math.isnan(METRICS["adjusted_average"](table))


def test_conflict_is_undefined_without_conflicting_samples() -> None:
    table = counts([8, 0, 0, 4], [10, 0, 0, 4])
    assert math.isnan(METRICS["conflict"](table))
    assert METRICS["aligned"](table) == pytest.approx(12 / 14)


def test_every_metric_is_undefined_on_an_empty_split() -> None:
    empty = counts([0] * 4, [0] * 4, train=[0] * 4)
    assert all(math.isnan(value) for value in accuracies(empty).values())


def test_alignment_is_declared_and_not_the_equality_of_class_and_bias() -> None:
    crossed = GroupCounts.of([5, 1, 1, 5], [5, 5, 5, 5], [[False, True], [True, False]], [1] * 4)
    assert METRICS["aligned"](crossed) == 0.2
    assert METRICS["conflict"](crossed) == 1.0


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.integers(0, 3))
def test_many_tables_at_once_have_exactly_the_metrics_of_each(
    seed: int, classes: int, biases: int, smallest: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (classes, biases)
    totals = rng.integers(smallest, 50, shape)
    aligned = rng.random(shape) < rng.choice([0.0, 0.3, 1.0])
    split = GroupCounts(totals, totals, aligned, rng.integers(0, 100, shape))
    hits = rng.integers(0, totals[None] + 1, (3, *shape))
    for table, found in zip(hits, accuracies_of(hits, split), strict=True):
        one = GroupCounts(table, totals, aligned, split.train)
        expected = {name: metric(one) for name, metric in METRICS.items()}
        assert list(found) == list(expected)
        assert [float(v).hex() for v in found.values()] == [
            float(v).hex() for v in expected.values()
        ]
