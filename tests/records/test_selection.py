"""Every selection rule is followed at once."""

from __future__ import annotations

import math

from debiasbench.records.metrics import METRICS
from debiasbench.records.selection import RULES, Tracker


def epoch(**metrics: float) -> dict[str, float]:
    return dict.fromkeys(METRICS, 0.5) | metrics


def test_each_rule_keeps_its_own_best_epoch() -> None:
    tracker = Tracker()
    tracker.update(1, epoch(average=0.9, conflict=0.1))
    tracker.update(2, epoch(average=0.8, conflict=0.4))
    tracker.update(3, epoch(average=0.7, conflict=0.3))
    assert tracker.best["val_average"] == (1, 0.9)
    assert tracker.best["val_conflict"] == (2, 0.4)
    assert tracker.best["last"][0] == 3


def test_the_last_of_equal_epochs_is_kept() -> None:
    tracker = Tracker()
    assert set(tracker.update(1, epoch())) == set(RULES)
    assert set(tracker.update(2, epoch())) == set(RULES)
    assert tracker.best["val_unbiased"][0] == 2


def test_of_epochs_with_an_equal_worst_group_the_most_unbiased_is_kept() -> None:
    tracker = Tracker()
    for number, unbiased in enumerate((0.2, 0.6, 0.6, 0.4), start=1):
        tracker.update(number, epoch(worst_group=0.0, unbiased=unbiased))
    assert tracker.best["val_worst_group"] == (3, 0.0)


def test_a_rule_that_reads_no_bias_labels_keeps_the_last_of_equal_epochs() -> None:
    tracker = Tracker()
    tracker.update(1, epoch(average=0.9, unbiased=0.8))
    tracker.update(2, epoch(average=0.9, unbiased=0.2))
    assert tracker.best["val_average"] == (2, 0.9)


def test_a_tie_is_broken_by_the_epoch_that_is_kept_not_by_the_best_one_seen() -> None:
    tracker = Tracker()
    tracker.update(1, epoch(worst_group=0.1, unbiased=0.9))
    tracker.update(2, epoch(worst_group=0.2, unbiased=0.3))
    tracker.update(3, epoch(worst_group=0.2, unbiased=0.5))
    assert tracker.best["val_worst_group"] == (3, 0.2)


def test_an_undefined_unbiased_accuracy_decides_nothing() -> None:
    tracker = Tracker()
    for number in (1, 2):
        tracker.update(number, epoch(worst_group=0.1, unbiased=math.nan))
    assert tracker.best["val_worst_group"] == (2, 0.1)


def test_a_worst_group_at_zero_does_not_fall_back_to_the_average() -> None:
    # the released REST code compares the average with later worst-group values and never leaves
    # the first, most biased epoch
    tracker = Tracker()
    tracker.update(1, epoch(worst_group=0.0, average=0.99))
    tracker.update(2, epoch(worst_group=0.3, average=0.70))
    assert tracker.best["val_worst_group"] == (2, 0.3)


def test_a_rule_whose_metric_is_undefined_keeps_nothing() -> None:
    tracker = Tracker()
    improved = tracker.update(1, epoch(conflict=math.nan))
    assert "val_conflict" not in improved
    assert "val_conflict" not in tracker.best
    tracker.update(2, epoch(conflict=0.0))
    assert tracker.best["val_conflict"] == (2, 0.0)
