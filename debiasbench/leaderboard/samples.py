"""The test samples of a board, sorted by group, and the tables of correct ones that rows have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.leaderboard.crossed import Groups
from debiasbench.records.metrics import weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from debiasbench.leaderboard.row import Row
    from debiasbench.records.correct import Correct
    from debiasbench.records.metrics import GroupCounts


class Tables(Mapping[int, "NDArray[np.bool_]"]):
    """Seed -> (N,) which samples are correct, sorted by group; unpacked when they are read."""

    def __init__(self, of: Mapping[int, Correct], order: NDArray[np.int64]) -> None:
        self._of, self._order = of, order

    def __getitem__(self, seed: int) -> NDArray[np.bool_]:
        sorted_: NDArray[np.bool_] = self._of[seed].right[self._order]
        return sorted_

    def __iter__(self) -> Iterator[int]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __contains__(self, seed: object) -> bool:
        return seed in self._of  # that of the base class unpacks

    def bits(self, seed: int) -> bytes:
        """Return the samples of a seed as they were stored, not sorted."""
        return self._of[seed].bits


@dataclass(frozen=True, eq=False)
class Samples:
    """The test samples that all rows of a board share.

    `group`: (N,) as in the predictions.
    """

    group: NDArray[np.integer]
    counts: GroupCounts

    @classmethod
    def common(cls, correct: Mapping[str, Correct], counts: GroupCounts) -> Samples | None:
        """Return the samples of most runs, the first of equally many; None without any."""
        found: dict[int, list[Any]] = {}
        for one in correct.values():
            found.setdefault(id(one.group), [one.group, 0])[1] += 1
        if not found:
            return None
        return cls(max(found.values(), key=lambda pair: pair[1])[0], counts)

    def tables(self, correct: Mapping[int, Correct]) -> Tables:
        """Return the tables of seeds, without those of runs on other samples."""
        own = {seed: one for seed, one in correct.items() if one.group is self.group}
        return Tables(own, self.order)

    def stacked(self, rows: Sequence[Row], seeds: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
        """Return (R, S, N) the tables of rows that have predictions for equally many seeds.

        `seeds`: of each row.
        """
        bits = [_bits(row.tables, seed) for row, of in zip(rows, seeds, strict=True) for seed in of]
        packed = np.frombuffer(b"".join(bits), dtype=np.uint8).reshape(len(bits), -1)
        x = np.unpackbits(packed, axis=1, count=len(self.group))[:, self.order]
        return x.view(bool).reshape(len(rows), -1, len(self.group))

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(N,) the places of the samples sorted by group."""
        return np.argsort(self.group, kind="stable")

    def groups(self, metric: str) -> Groups | None:
        """Return how the accuracies of the groups make a metric; None if they do not."""
        own = weights(self.counts, metric)
        if own is None:
            return None
        sizes = self.counts.totals.ravel()
        present = sizes > 0
        return Groups.of(sizes[present].tolist(), own.ravel()[present].tolist())

    @cached_property
    def each(self) -> Groups:
        """The groups with equal weights."""
        sizes = [int(n) for n in self.counts.totals.ravel() if n]
        return Groups.of(sizes, [1 / len(sizes)] * len(sizes))


def _bits(tables: Mapping[int, NDArray[np.bool_]], seed: int) -> bytes:
    assert isinstance(tables, Tables)
    return tables.bits(seed)
