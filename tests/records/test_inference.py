"""Numbers of the panel of groups, from counts by hand and by a loop over pairs of samples."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debiasbench.records.inference import NUMBERS, Inference, area_under_curve, count, judge
from debiasbench.records.metrics import GroupCounts

ALIGNED = [[True, False], [False, True]]


def train(*totals: int, aligned: Any = ALIGNED) -> GroupCounts:
    return GroupCounts.of(totals, totals, aligned, totals)


def judged(inference: Inference, *totals: int, aligned: Any = ALIGNED) -> list[float]:
    numbers = judge(inference, train(*totals, aligned=aligned))
    assert tuple(numbers) == NUMBERS
    return list(numbers.values())


def test_counts_are_those_of_each_true_group() -> None:
    group = np.array([0, 0, 1, 2, 3, 3, 3], dtype=np.uint8)
    columns = {
        "groups": np.array([5, 9, 9, 5, 7, 7, 9], dtype=np.uint64),
        "conflict": np.array([0, 1, 1, 1, 0, 0, 1], dtype=bool),
        "scores": np.array([0, 1, 1, 2, 0, 0, -np.inf], dtype=np.float32),
    }
    assert count(columns, group, np.array(ALIGNED), 2) == Inference(
        stages=2,
        conflict=[1, 1, 1, 1],
        groups=[[1, 0, 1, 0], [0, 0, 0, 2], [1, 1, 0, 1]],  # 5, 7, 9
        auc=(4.5 + 5) / 10,  # of score 1: four below and one equal; of score 2: all five
    )


def test_flags_of_conflict_have_recall_precision_and_the_worst_group() -> None:
    recall, precision, worst, area = judged(Inference(1, conflict=[9, 4, 2, 19]), 90, 5, 5, 95)
    assert recall == pytest.approx(6 / 10)
    assert precision == pytest.approx(6 / 34)
    assert worst == pytest.approx(2 / 5)  # the others: 81/90, 4/5 and 76/95
    assert area == pytest.approx((1 + 6 / 10 - 28 / 185) / 2)


def test_the_area_of_flags_is_that_of_scores_with_two_values() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(4, size=200)
    conflict = rng.random(200) < 0.3
    totals = np.bincount(group, minlength=4).tolist()
    flags = count({"conflict": conflict}, group, np.array(ALIGNED), 0)
    scores = count({"scores": conflict.astype(float)}, group, np.array(ALIGNED), 0)
    assert judged(flags, *totals)[3] == pytest.approx(judged(scores, *totals)[3], abs=1e-12)


def test_of_pseudo_groups_all_but_the_largest_of_a_class_are_taken_for_conflicting() -> None:
    table = [[80, 1, 0, 0], [10, 4, 0, 1], [0, 0, 3, 94], [0, 0, 2, 0]]
    recall, precision, worst, area = judged(Inference(1, groups=table), 90, 5, 5, 95)
    assert recall == pytest.approx(6 / 10)  # 4 of (0, 1) and 2 of (1, 0)
    assert precision == pytest.approx(6 / (6 + 10 + 1))
    # pseudo-group 0 for (0, 0), 1 for (0, 1), 2 for (1, 1), 3 for (1, 0): 80/90, 4/5, 94/95, 2/5
    assert worst == pytest.approx(2 / 5)
    assert area == pytest.approx((1 + 6 / 10 - 11 / 185) / 2)


def test_a_group_without_a_pseudo_group_of_its_own_is_not_recovered() -> None:
    three = [[True, False, False], [False, True, False]]
    table = [[50, 5, 1, 0, 0, 0], [0, 0, 4, 5, 60, 5]]  # one pseudo-group may lie in two classes
    recall, _, worst, _ = judged(Inference(1, groups=table), 50, 5, 5, 5, 60, 5, aligned=three)
    assert recall == pytest.approx(4 / 20)
    assert worst == 0.0


def test_numbers_of_pseudo_groups_do_not_depend_on_how_they_are_numbered() -> None:
    rng = np.random.default_rng(1)
    group, pseudo = rng.integers(6, size=(2, 300))
    aligned = np.array([[True, False, False], [False, True, False]])
    totals = np.bincount(group, minlength=6).tolist()
    first, second = (
        judged(count({"groups": p}, group, aligned, 0), *totals, aligned=aligned.tolist())
        for p in (pseudo, 100 - 7 * pseudo)
    )
    assert first == pytest.approx(second)


def test_flags_decide_recall_beside_pseudo_groups_and_scores_decide_the_area() -> None:
    both = Inference(1, conflict=[0, 5, 5, 0], groups=[[90, 5, 5, 95]], auc=0.7)
    assert judged(both, 90, 5, 5, 95) == [1.0, 1.0, 0.0, 0.7]


def test_scores_alone_have_no_threshold_so_only_an_area() -> None:
    assert judged(Inference(1, auc=0.7), 90, 5, 5, 95) == pytest.approx(
        [math.nan, math.nan, math.nan, 0.7], nan_ok=True
    )


def test_an_empty_group_does_not_count() -> None:
    numbers = judged(Inference(1, groups=[[90, 5, 0, 0], [0, 0, 0, 95]]), 90, 5, 0, 95)
    assert numbers == pytest.approx([0.0, math.nan, 0.0, 0.5], nan_ok=True)
    assert judged(Inference(1, conflict=[0, 5, 0, 0]), 90, 5, 0, 95) == [1.0, 1.0, 1.0, 1.0]


def test_without_conflicting_samples_there_is_no_recall_and_no_area() -> None:
    numbers = judged(Inference(1, conflict=[9, 0, 0, 0], auc=math.nan), 90, 0, 0, 95)
    assert numbers == pytest.approx([math.nan, 0.0, 0.9, math.nan], nan_ok=True)
    group = np.zeros(3, dtype=np.int64)
    counted = count({"scores": np.arange(3.0)}, group, np.array(ALIGNED), 0)
    assert counted.auc is not None
    assert math.isnan(counted.auc)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=40))
def test_the_area_is_the_share_of_pairs_in_the_right_order(samples: Any) -> None:
    scores, positive = (np.array(values) for values in zip(*samples, strict=True))
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in scores[positive]
        for b in scores[~positive]
    ]
    expected = sum(pairs) / len(pairs) if pairs else math.nan
    assert area_under_curve(scores.astype(float), positive) == pytest.approx(expected, nan_ok=True)
