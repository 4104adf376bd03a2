"""Rows with predictions are compared over seeds and test samples, the others over seeds alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from debiasbench.leaderboard import Board, Row, boards, render
from debiasbench.leaderboard.crossed import Groups, by_group, p_values, parts
from debiasbench.leaderboard.groups import NORMAL, noise_floor, worst_group
from debiasbench.leaderboard.ranks import rank_intervals
from debiasbench.records.correct import Correct, Splits
from debiasbench.records.metrics import METRICS, GroupCounts, accuracies, weights
from debiasbench.records.record import Record
from tests.leaderboard.test_leaderboard import run

GROUP = np.repeat(np.arange(4), 10).astype(np.uint16)
ALIGNED = np.array([[True, False], [False, True]])
Made = dict[str, dict[str, Correct]]


def right(rng: np.random.Generator, hits: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return (40,) correct samples with so many hits in each group of ten."""
    return np.concatenate([rng.permutation(10) < hit for hit in hits])


def made(
    method: str, hits: list[tuple[int, ...]], *, seed: int = 0, **changes: Any
) -> tuple[list[Record], Made]:
    """Return a record for each tuple of hits, and which samples are correct under every rule."""
    rng = np.random.default_rng(seed)
    records = [run(method, s, h, **changes) for s, h in enumerate(hits)]
    bits = {r.id: np.packbits(right(rng, h)) for r, h in zip(records, hits, strict=True)}
    own = {name: Correct(GROUP, bits[name].tobytes()) for name in bits}
    return records, {"val_unbiased": own, "last": own}


def joined(*parts_of: tuple[list[Record], Made]) -> tuple[list[Record], Made]:
    correct: Made = {}
    for _, own in parts_of:
        for rule, of in own.items():
            correct.setdefault(rule, {}).update(of)
    return [record for records, _ in parts_of for record in records], correct


LOW = made("low", [(9, 3, 2, 9), (8, 2, 3, 9), (9, 2, 2, 8)])
HIGH = made("high", [(9, 9, 8, 9), (8, 9, 9, 9), (9, 9, 9, 8)], seed=1)


def board(*parts_of: tuple[list[Record], Made], **words: Any) -> Board:
    records, correct = joined(*parts_of)
    (one,) = boards(records, correct=correct, **words)
    return one


def table(row: Row) -> NDArray[np.bool_]:
    return np.stack([row.tables[seed] for seed in sorted(row.values)], axis=1)


@pytest.mark.parametrize("metric", [name for name in METRICS if name != "worst_group"])
def test_the_weights_of_a_metric_give_the_metric(metric: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        totals = rng.integers(1, 9, 6)
        counts = GroupCounts.of(
            rng.binomial(totals, 0.5).tolist(),
            totals.tolist(),
            [[True, False, False], [False, True, True]],
            rng.integers(1, 50, 6).tolist(),
        )
        own = weights(counts, metric)
        assert own is not None
        assert (own * counts.accuracy).sum() == pytest.approx(accuracies(counts)[metric])


def test_a_group_without_samples_has_no_weight_and_may_leave_a_metric_undefined() -> None:
    counts = GroupCounts.of([1, 0, 2, 3], [2, 0, 4, 4], ALIGNED.tolist(), [5, 5, 5, 5])
    assert weights(counts, "adjusted_average") is None
    assert weights(counts, "worst_group") is None
    for metric in ("average", "unbiased", "balanced_groups", "conflict", "aligned"):
        own = weights(counts, metric)
        assert own is not None
        assert own[0, 1] == 0
        filled = np.nan_to_num(counts.accuracy)
        assert (own * filled).sum() == pytest.approx(accuracies(counts)[metric])


def test_the_interval_of_a_row_is_that_of_its_table() -> None:
    one = board(LOW, metric="conflict")
    (row,) = one.rows
    found = parts(table(row), Groups.of([10] * 4, [0, 0.5, 0.5, 0]))
    assert row.mean == pytest.approx(found.mean)
    low, high = found.interval()
    assert (row.interval.low, row.interval.high) == pytest.approx((low, high))
    assert (row.interval.seeds, row.interval.samples) == pytest.approx(found.halves())
    assert row.interval.basis == "both"
    assert "over seeds and test samples together" in render([one], "markdown")


def test_the_difference_is_that_of_the_tables_and_its_p_the_level_at_which_it_touches_0() -> None:
    one = board(LOW, HIGH, baseline="low", metric="average")
    high, low = one.rows
    found = parts(table(high).astype(int) - table(low), Groups.of([10] * 4, [0.25] * 4))
    assert high.difference.mean == pytest.approx(high.mean - low.mean)
    assert (high.difference.low, high.difference.high) == pytest.approx(found.interval())
    assert high.difference.p == pytest.approx(p_values([found])[0])
    assert [(row.method, row.marked, row.rank) for row in one.rows] == [
        ("high", True, (1, 1, 2)),
        ("low", False, (2, 2, 2)),
    ]


def test_rows_of_which_one_has_no_predictions_are_compared_over_seeds() -> None:
    records, correct = joined(LOW, HIGH)
    missing = {
        rule: {k: v for k, v in own.items() if k in LOW[1][rule]} for rule, own in correct.items()
    }
    (one,) = boards(records, correct=missing, baseline="low", metric="average")
    high, low = one.rows
    assert (high.interval.basis, low.interval.basis) == ("seeds", "both")
    (of_seeds,) = boards(records, baseline="low", metric="average")
    assert high.difference == of_seeds.rows[0].difference
    assert any(
        note.startswith("high: intervals and tests are over seeds alone") for note in one.notes
    )


def test_a_run_on_other_samples_is_not_compared_sample_by_sample() -> None:
    records, correct = joined(LOW, HIGH)
    other = {rule: dict(own) for rule, own in correct.items()}
    odd = HIGH[0][0].id
    for own in other.values():
        own[odd] = replace(own[odd], group=np.roll(GROUP, 1))
    (one,) = boards(records, correct=other, metric="average")
    assert {row.method: row.interval.basis for row in one.rows} == {"high": "seeds", "low": "both"}


def test_one_seed_has_wilsons_interval_over_samples_and_no_rank() -> None:
    one = board(made("alone", [(9, 5, 4, 10)]), LOW, metric="average")
    row = next(row for row in one.rows if row.method == "alone")
    assert row.interval.basis == "samples"
    assert row.interval.low < 0.7 < row.interval.high
    assert (row.rank, row.marked) == (None, False)
    assert "alone" in next(note for note in one.notes if note.startswith("One seed each"))


def test_a_row_that_is_right_everywhere_is_not_certain() -> None:
    one = board(made("perfect", [(10, 10, 10, 10)] * 3), metric="average")
    interval = one.rows[0].interval
    assert interval.low == pytest.approx(0.9124, abs=1e-3)  # Wilson, 40 of 40
    assert interval.high == 1


def test_a_row_with_failed_runs_is_shown_and_not_ranked() -> None:
    failed = [run("high", 3, failed=True)], {}
    one = board(LOW, HIGH, made("third", [(9, 5, 5, 9)] * 3, seed=2), failed)
    ranks = {row.method: row.rank for row in one.rows}
    assert ranks["high"] is None
    assert ranks["low"] is not None
    assert "Failed runs, so no rank and no mark: high." in one.notes


def test_a_row_of_an_older_revision_is_shown_and_not_compared() -> None:
    def revised(records: list[Record], correct: Made) -> tuple[list[Record], Made]:
        newer, ids = [], {}
        for record in records:
            spec = replace(record.spec, revisions={"method": 2, "rules": 2})
            newer.append(replace(record, spec=spec, id=spec.id))
            ids[record.id] = spec.id
        return newer, {rule: {ids[k]: v for k, v in own.items()} for rule, own in correct.items()}

    one = board(LOW, HIGH, revised(*HIGH))
    rows = {row.name: row for row in one.rows}
    assert rows["high (revision of method=1)"].stale == "revision of method 1 instead of 2"
    assert rows["high (revision of method=1)"].rank is None
    assert rows["high (revision of method=2)"].rank == (1, 1, 2)
    assert any("out of date" in note for note in one.notes)


def test_rows_selected_by_an_older_revision_of_the_rules_are_named() -> None:
    records = [replace(r, spec=(s := replace(r.spec, revisions=None)), id=s.id) for r in LOW[0]]
    (one,) = boards(records)
    assert any(note.startswith("Epochs were selected by older rules") for note in one.notes)
    (last,) = boards(records, select="last")  # no revision has changed it
    assert not any("older rules" in note for note in last.notes)
    (mixed,) = boards([*records, *HIGH[0]])
    assert {row.method: bool(row.stale) for row in mixed.rows} == {"low": True, "high": False}
    (mixed,) = boards([*records, *HIGH[0]], select="last")
    assert not any(row.stale for row in mixed.rows)


def test_worst_groups_have_their_interval_and_floor() -> None:
    one = board(LOW, HIGH, metric="worst_group")
    for row in one.rows:
        found = worst_group(table(row), Groups.of([10] * 4, [0.25] * 4))
        assert row.mean == pytest.approx(found.point)
        assert (row.interval.low, row.interval.high) == (found.low, found.high)
        assert row.floor == pytest.approx(noise_floor(row.side["balanced_groups"], [10] * 4))
        # ten samples a group: the worst group says too little
        assert (row.rank, row.marked) == (None, False)
    assert any("not ranked by it" in note for note in one.notes)


def test_the_half_width_of_samples_of_a_worst_group_is_that_of_the_group_that_is_worst() -> None:
    one = board(LOW, HIGH, metric="worst_group")
    for row in one.rows:
        means, v_samples, _ = by_group(table(row).T[None], Groups.of([10] * 4, [0.25] * 4))
        worst = int(means[0].mean(axis=1).argmin())
        assert row.interval.samples == pytest.approx(NORMAL * math.sqrt(v_samples[0, worst]))
    assert any(row.interval.samples > 0 for row in one.rows)


def test_a_row_that_is_better_over_common_seeds_is_marked_although_its_mean_is_lower() -> None:
    def runs(method: str, hits: list[int]) -> list[Record]:
        return [run(method, seed, (hit,) * 4) for seed, hit in enumerate(hits)]

    (one,) = boards([*runs("many", [6, 6, 9, 9, 9]), *runs("few", [7, 7])])
    rows = {row.method: row for row in one.rows}
    assert rows["many"].mean > rows["few"].mean
    assert rows["few"].rank == (1, 1, 2)
    assert rows["few"].marked


def test_worst_groups_are_ranked_where_groups_are_large() -> None:
    def large(method: str, hits: tuple[int, ...]) -> tuple[list[Record], Made]:
        group = np.repeat(np.arange(4), 2000).astype(np.uint16)
        records, correct = [], {}
        for seed in range(3):
            record = run(method, seed, hits)
            counts = {**record.task.group_counts, "test": [2000] * 4}
            records.append(replace(record, task=replace(record.task, group_counts=counts)))
            own = np.concatenate([np.arange(2000) < hit for hit in hits])
            correct[record.id] = Correct(shared.group(group), np.packbits(own).tobytes())
        return records, {"val_unbiased": correct}

    shared = Splits()
    one = board(
        large("bad", (1900, 1000, 1800, 1900)),
        large("good", (1900, 1700, 1800, 1900)),
        large("close", (1900, 1705, 1800, 1900)),
        metric="worst_group",
        baseline="bad",
    )
    assert [(row.method, row.rank, row.marked) for row in one.rows] == [
        ("close", (1, 2, 3), True),
        ("good", (1, 2, 3), True),
        ("bad", (3, 3, 3), False),
    ]
    assert one.rows[0].difference.low > 0.3
    assert math.isnan(one.rows[0].difference.p)


def test_rank_intervals_count_what_is_significantly_better_and_worse() -> None:
    worse = {(2, 0), (3, 0), (3, 1), (3, 2)}
    assert rank_intervals(4, worse) == [(1, 2), (1, 3), (2, 3), (4, 4)]
    assert rank_intervals(3, set()) == [(1, 3)] * 3


def test_correct_samples_come_back_from_their_bits_and_share_their_groups() -> None:
    splits, record = Splits(), run("erm", 0)
    group = np.array([0, 3, 1, 2, 2], dtype=np.int64)
    stored = {"test.y": group // 2, "test.group": group, "test.epoch_1": np.array([0, 1, 1, 0, 1])}
    first, again = (splits.correct(record, stored)["last"] for _ in range(2))
    assert first.right.tolist() == [True, True, False, False, True]
    assert first.group is again.group
    assert splits.correct(replace(record, outcomes={}), stored) == {}
