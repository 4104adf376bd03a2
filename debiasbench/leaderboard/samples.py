"""The test samples of a board, sorted by group, and the tables of correct ones that rows have."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.leaderboard.crossed import Groups
from debiasbench.records.metrics import weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from debiasbench.records.correct import Correct
    from debiasbench.records.metrics import GroupCounts

Tables = dict[int, "NDArray[np.bool_]"]  # seed -> (N,) correct samples, sorted by group


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

    def table(self, correct: Correct | None) -> NDArray[np.bool_] | None:
        """Return which samples a run classified correctly, sorted by group.

        None without predictions, and for a run on other samples.
        """
        if correct is None or correct.group is not self.group:
            return None
        sorted_: NDArray[np.bool_] = correct.right[self.order]
        return sorted_

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(N,) the places of the samples sorted by group."""
        return np.argsort(self.group, kind="stable")

    def groups(self, metric: str) -> Groups | None:
        """Return how the accuracies of the groups make a metric; None if they do not."""
        own = weights(self.counts, metric)
        if own is None:
            return None
        present = self.counts.totals.ravel() > 0
        return Groups.of(
            self.counts.totals.ravel()[present].tolist(), own.ravel()[present].tolist()
        )

    @property
    def each(self) -> Groups:
        """The groups with equal weights."""
        sizes = [int(n) for n in self.counts.totals.ravel() if n]
        return Groups.of(sizes, [1 / len(sizes)] * len(sizes))


def crossed(tables: Tables, seeds: Sequence[int]) -> NDArray[np.bool_] | None:
    """Return the (N, S) table of some seeds, None if one of them has no predictions."""
    if any(seed not in tables for seed in seeds):
        return None
    return np.stack([tables[seed] for seed in seeds], axis=1)
