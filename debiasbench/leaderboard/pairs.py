"""All pairs of rows at once: the parts of their differences from Gram matrices.

The sums of squares of A - B follow from those of A and B and from their product, and the products
of M tables are one matrix multiplication, (M, N S) by (N S, M), in each group. Sums of products of
0 and 1 are whole numbers, which floats hold exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.leaderboard.crossed import Parts, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from debiasbench.leaderboard.crossed import Groups, Parts

EXACT = 1 << 24  # whole numbers up to this one are exact in 32 bits


def parts_of_pairs(
    tables: Sequence[NDArray[Any]], groups: Groups, pairs: Sequence[tuple[int, int]]
) -> list[Parts]:
    """Return `parts(tables[i] - tables[j], groups)` for each pair (i, j).

    `tables`: M of (N, S) with 0 and 1, samples sorted by group, all with the same S >= 2 seeds.
    """
    if not pairs:
        return []
    stacked = np.stack([np.asarray(table, dtype=bool) for table in tables])  # (M, N, S)
    seeds = stacked.shape[2]
    first, second = np.array(pairs, dtype=np.int64).T
    number, n = len(groups.sizes), groups.sizes
    right = np.add.reduceat(stacked, groups.starts, axis=1, dtype=np.int64)  # (M, G, S)
    # (P, G) sums over samples and seeds of (A - B)^2, and over samples of (sum_s A - B)^2
    whole = np.zeros((len(pairs), number))
    of_rows = np.zeros((len(pairs), number))
    for g in range(number):
        if not groups.weights[g]:
            continue
        x = stacked[:, groups.starts[g] : groups.starts[g] + n[g]]
        both = _gram(x.reshape(len(x), -1), int(n[g]) * seeds)
        sums = _gram(x.sum(axis=2), int(n[g]) * seeds * seeds)
        whole[:, g] = _squared(both, first, second)
        of_rows[:, g] = _squared(sums, first, second)
    d = (right[first] - right[second]).astype(np.float64)  # (P, G, S)
    middle = d.sum(axis=2) ** 2 / (n * seeds)
    of_samples = of_rows / seeds - middle
    of_seeds = (d**2).sum(axis=2) / n - middle
    many = np.maximum(n - 1, 1)  # as in `by_group`
    rest = np.maximum(whole - middle - of_samples - of_seeds, 0.0) / (many * max(seeds - 1, 1))
    v_total = of_samples / many / (n * seeds)
    v_samples = np.maximum(of_samples / many - rest, 0.0) / (n * seeds)
    for variance in (v_samples, v_total):
        variance[:, n == 1] = 1.0
    return parts_of(d / n[:, None], v_samples, v_total, groups)


def _gram(x: NDArray[Any], largest: int) -> NDArray[np.float64]:
    """Return x @ x.T; none of its entries is above `largest`."""
    wide: NDArray[Any] = x.astype(np.float32 if largest < EXACT else np.float64)
    product: NDArray[np.float64] = (wide @ wide.T).astype(np.float64)
    return product


def _squared(
    gram: NDArray[np.float64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the squared distance of each pair of rows, from their Gram matrix."""
    own = np.diagonal(gram)
    squared: NDArray[np.float64] = own[first] + own[second] - 2 * gram[first, second]
    return squared
