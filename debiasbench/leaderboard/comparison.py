"""How the rows of a board are summarised and compared: intervals, tests, marks and ranks.

Where predictions are at hand, seeds and test samples count together (`crossed`). Otherwise only the
seeds do, with Student's t, which covers the true accuracy too rarely.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.leaderboard.crossed import by_group, chunks, p_values, parts_of
from debiasbench.leaderboard.groups import (
    NORMAL,
    noise_floors,
    over_samples,
    v_of_worst,
    worst_groups,
)
from debiasbench.leaderboard.pairs import parts_of_pairs
from debiasbench.leaderboard.ranks import rank_intervals
from debiasbench.leaderboard.row import Difference, Interval
from debiasbench.leaderboard.statistics import holm, interval, paired_difference, paired_p

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from debiasbench.leaderboard.crossed import Groups, Parts
    from debiasbench.leaderboard.row import Row
    from debiasbench.leaderboard.samples import Samples
    from debiasbench.records.metrics import GroupCounts

LEVEL = 0.05
RANKED = 80  # rows of a section that all pairwise tests are made for
SHORTFALL = 0.10  # of the noise floor, from which on the worst group says too little to rank by


@dataclass(frozen=True)
class Comparison:
    """The statistics of one metric.

    `samples`: the test samples that rows share; None if no row has predictions. `test`: the counts
    of the test split.
    """

    metric: str
    samples: Samples | None
    test: GroupCounts

    @cached_property
    def groups(self) -> Groups | None:
        """How the accuracies of the groups make the metric; None if they do not."""
        return None if self.samples is None else self.samples.groups(self.metric)

    def summarised(self, rows: Sequence[Row]) -> list[Row]:
        """Return rows with the interval of the mean, that of the worst group, and its floor."""
        equal = np.array([accuracy_of(row) for row in rows])
        floors = np.full(len(rows), math.nan)
        known = ~np.isnan(equal)
        sizes = [int(n) for n in self.test.totals.ravel() if n]
        floors[known] = noise_floors(equal[known], sizes)
        made = [
            replace(row, interval=_of_seeds(row), worst=Interval(), floor=float(floor))
            for row, floor in zip(rows, floors, strict=True)
        ]
        by_number: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            if self.samples is not None and row.values and _has_tables(row, row.values):
                by_number.setdefault(len(row.values), []).append(i)
        for number, places in by_number.items():
            assert self.samples is not None
            for some in chunks(len(places), number * len(self.samples.group)):
                for i, row in self._over_samples(made, places[some]):
                    made[i] = row
        return made

    def _over_samples(
        self, rows: Sequence[Row], places: Sequence[int]
    ) -> Iterator[tuple[int, Row]]:
        """Yield the rows at some places, all of equally many seeds, with intervals over samples."""
        assert self.samples is not None
        some = [rows[i] for i in places]
        table = self.samples.stacked(some, [sorted(row.values) for row in some])
        means, v_samples, v_total = by_group(table, self.samples.each)
        worst = self._worst(means, v_samples)
        intervals: list[Interval] = [row.interval for row in some]
        basis = "samples" if table.shape[1] == 1 else "both"
        if self.metric == "worst_group":
            halves = [NORMAL * math.sqrt(v) for v in v_of_worst(means, v_samples).tolist()]
            intervals = [
                replace(one, samples=half, basis=basis)
                for one, half in zip(worst, halves, strict=True)
            ]
        elif self.groups is not None:
            low, high = (bound.tolist() for bound in over_samples(means, self.groups))
            parted = [] if basis == "samples" else parts_of(means, v_samples, v_total, self.groups)
            for i, row in enumerate(some):
                if basis == "samples" or row.mean in {0.0, 1.0}:
                    half = (high[i] - low[i]) / 2
                    intervals[i] = Interval(low[i], high[i], 0.0, half, basis)
                else:
                    least, most = parted[i].interval()
                    cut = max(least, 0.0), min(most, 1.0)
                    intervals[i] = Interval(*cut, *parted[i].halves(), basis)
        for i, row, own, of_worst in zip(places, some, intervals, worst, strict=True):
            yield i, replace(row, interval=own, worst=of_worst)

    def difference(self, row: Row, baseline: Row) -> Difference:
        """Return the mean difference of two rows over common seeds, with its 95 % interval and p.

        All are NaN for fewer than two common seeds. The interval of two worst groups is that of
        their intervals, which is wide, and has no p.
        """
        return self.differences([(row, baseline)])[0]

    def differences(self, pairs: Sequence[tuple[Row, Row]]) -> list[Difference]:
        """Return the `difference` of each pair of rows, all pairs at once."""
        crossed_parts = self._parts(pairs)
        p = dict(zip(crossed_parts, p_values(list(crossed_parts.values())), strict=True))
        made = []
        for i, (one, other) in enumerate(pairs):
            seeds = sorted(one.values.keys() & other.values.keys())
            mean = math.fsum(one.values[s] - other.values[s] for s in seeds) / max(len(seeds), 1)
            if len(seeds) < 2:
                made.append(Difference())
            elif i in p:
                made.append(Difference(mean, *crossed_parts[i].interval(LEVEL), p[i]))
            else:
                made.append(self._apart(one, other, seeds, mean))
        return made

    def _apart(self, one: Row, other: Row, seeds: Sequence[int], mean: float) -> Difference:
        """Return a difference that is not that of a crossed table."""
        if self.samples is None or not all(_has_tables(row, seeds) for row in (one, other)):
            low, high = paired_difference(one.values, other.values)[1:]
            return Difference(mean, low, high, paired_p(one.values, other.values))
        if self.metric != "worst_group":
            return Difference()
        a, b = tables = self.samples.stacked([one, other], [seeds, seeds])
        if np.array_equal(a, b):
            return Difference(0.0, 0.0, 0.0, 1.0)
        first, second = self._worst(*by_group(tables, self.samples.each)[:2], LEVEL / 2)
        return Difference(mean, first.low - second.high, first.high - second.low)

    def _worst(
        self, means: NDArray[np.float64], v_samples: NDArray[np.float64], level: float = LEVEL
    ) -> list[Interval]:
        """Return the intervals of worst groups, from what `by_group` returned for the tables."""
        assert self.samples is not None
        low, high, _ = worst_groups(means, v_samples, self.samples.each, level)
        return [Interval(*both) for both in zip(low.tolist(), high.tolist(), strict=True)]

    def tests(self, pairs: Sequence[tuple[Row, Row]]) -> list[float]:
        """Return the p of each pair of rows; NaN for a pair that cannot be tested."""
        found = self._parts(pairs)
        known = dict(zip(found, p_values(list(found.values())), strict=True))
        return [
            known[i] if i in known else self._p_of_seeds(one, other)
            for i, (one, other) in enumerate(pairs)
        ]

    def _p_of_seeds(self, one: Row, other: Row) -> float:
        """Return the p over seeds alone; NaN if there are predictions, which have no test."""
        seeds = one.values.keys() & other.values.keys()
        if self.samples is not None and all(_has_tables(row, seeds) for row in (one, other)):
            return math.nan
        return paired_p(one.values, other.values)

    def _parts(self, pairs: Sequence[tuple[Row, Row]]) -> dict[int, Parts]:
        """Return number of a pair -> the parts of its difference, where predictions allow it."""
        if self.samples is None or self.groups is None:
            return {}
        alike: dict[tuple[int, ...], list[int]] = {}  # common seeds -> pairs
        for i, (one, other) in enumerate(pairs):
            seeds = tuple(sorted(one.values.keys() & other.values.keys()))
            if len(seeds) >= 2 and all(_has_tables(row, seeds) for row in (one, other)):
                alike.setdefault(seeds, []).append(i)
        found: dict[int, Parts] = {}
        for seeds, numbers in alike.items():
            rows = {id(row): row for i in numbers for row in pairs[i]}
            place = {name: number for number, name in enumerate(rows)}
            tables = self.samples.stacked(list(rows.values()), [seeds] * len(rows))
            of = [(place[id(pairs[i][0])], place[id(pairs[i][1])]) for i in numbers]
            found |= zip(numbers, parts_of_pairs(tables, self.groups, of), strict=True)
        return found

    def compared(self, section: Sequence[Row]) -> list[Row]:
        """Return the rows of a section with marks and ranks.

        Marked are the best row and those that tests with Holm's correction cannot distinguish from
        it. Ranks follow from the tests of all pairs, with Holm's correction over all of them. A row
        has neither if it has failed runs or fewer than two seeds, if it is stale, and if no other
        row of the section can be compared with it.
        """
        places = self._tested([i for i, row in enumerate(section) if is_comparable(row)], section)
        rows = [section[i] for i in places]
        result = [replace(row, marked=False, rank=None) for row in section]
        if len(rows) < 2 or not self.ranks(rows):
            return result
        ranks: list[Any] = [None] * len(rows)
        p = None
        if len(rows) <= RANKED:
            p = self.tests([(rows[i], rows[j]) for i, j in all_pairs(len(rows))])
            ranks = list(rank_intervals(len(rows), self.worse(rows, p)))
        marks = self.marks(rows, p)
        for i, mark, rank in zip(places, marks, ranks, strict=True):
            of = None if rank is None else (*rank, len(rows))
            result[i] = replace(section[i], marked=mark, rank=of)
        return result

    def _tested(self, places: Sequence[int], section: Sequence[Row]) -> list[int]:
        """Return the places of rows that can be compared with any other."""
        if self.metric == "worst_group" and self.samples is not None:
            return [i for i in places if _has_tables(section[i], section[i].values)]
        seeds = {i: section[i].values.keys() for i in places}
        return [
            i for i in places if any(len(seeds[i] & of) >= 2 for j, of in seeds.items() if j != i)
        ]

    def ranks(self, rows: Sequence[Row]) -> bool:
        """Say whether rows may be ranked: not by a worst group that the split cannot judge."""
        return self.metric != "worst_group" or not any(map(is_noise, rows))

    def marks(self, rows: Sequence[Row], p: Sequence[float] | None = None) -> list[bool]:
        """Return which rows are the best, or cannot be distinguished from it; `p`: see `worse`."""
        best = max(range(len(rows)), key=lambda i: rows[i].mean)
        if self.metric == "worst_group" and self.samples is not None:
            worse = {i for i, j in self.worse(rows) if j == best}
            return [i not in worse for i in range(len(rows))]
        others = [i for i in range(len(rows)) if i != best]
        if p is None:
            against = self.tests([(rows[best], rows[i]) for i in others])
        else:
            of = dict(zip(all_pairs(len(rows)), p, strict=True))
            against = [of[max(i, best), min(i, best)] for i in others]
        known = {i: one for i, one in zip(others, against, strict=True) if not math.isnan(one)}
        worse_of = dict(zip(known, holm(list(known.values()), LEVEL), strict=True))
        # a row of other seeds may have the lower mean, and be the better one over common seeds
        return [
            i == best or (i in worse_of and not (worse_of[i] and self._ahead(rows[best], rows[i])))
            for i in range(len(rows))
        ]

    def worse(self, rows: Sequence[Row], p: Sequence[float] | None = None) -> set[tuple[int, int]]:
        """Return the pairs (i, j) of which i is significantly worse, at 5 % for all together.

        `p`: what `tests` returns for `all_pairs(len(rows))`, if it is known already.
        """
        if self.metric == "worst_group" and self.samples is not None:
            return self._worse_apart(rows)
        pairs = all_pairs(len(rows))
        if p is None:
            p = self.tests([(rows[i], rows[j]) for i, j in pairs])
        known = [one for one in zip(pairs, p, strict=True) if not math.isnan(one[1])]
        rejected = holm([value for _, value in known], LEVEL)
        return {
            (i, j) if self._ahead(rows[j], rows[i]) else (j, i)
            for ((i, j), _), worse in zip(known, rejected, strict=True)
            if worse
        }

    @staticmethod
    def _ahead(one: Row, other: Row) -> bool:
        seeds = one.values.keys() & other.values.keys()
        return math.fsum(one.values[s] - other.values[s] for s in seeds) > 0

    def _worse_apart(self, rows: Sequence[Row]) -> set[tuple[int, int]]:
        """Compare worst groups by intervals that hold for all rows at once (Bonferroni)."""
        assert self.samples is not None
        bounds: dict[int, Interval] = {}
        for i, row in enumerate(rows):
            if _has_tables(row, row.values):
                table = self.samples.stacked([row], [sorted(row.values)])
                found = by_group(table, self.samples.each)[:2]
                (bounds[i],) = self._worst(*found, LEVEL / len(rows))
        return {(i, j) for i, a in bounds.items() for j, b in bounds.items() if a.high < b.low}


def _has_tables(row: Row, seeds: Collection[int]) -> bool:
    """Say whether there are predictions of all these seeds of a row."""
    return row.tables.keys() >= set(seeds)


def all_pairs(number: int) -> list[tuple[int, int]]:
    """Return the pairs (i, j) of `number` rows with j < i."""
    return [(i, j) for i in range(number) for j in range(i)]


def is_comparable(row: Row) -> bool:
    """Say whether a row has marks and ranks: two seeds or more, none failed, and not stale."""
    return len(row.values) >= 2 and not row.failed and not row.stale


def is_noise(row: Row) -> bool:
    """Say whether a classifier that is fair to all groups would show a much worse worst group."""
    return row.floor < accuracy_of(row) - SHORTFALL


def accuracy_of(row: Row) -> float:
    """Return the mean accuracy of a row's groups."""
    return row.side.get("balanced_groups", row.mean)


def _of_seeds(row: Row) -> Interval:
    low, high = interval(list(row.values.values()))
    return Interval(low, high, (high - low) / 2, math.nan, basis="seeds")
