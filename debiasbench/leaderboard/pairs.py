"""The parts of the differences of many pairs of rows, one by one or all at once.

All at once: the sums of squares of A - B follow from those of A and B and from their product, and
the products of M tables are one matrix multiplication, (M, S N) by (S N, M), in each group. Sums of
products of 0 and 1 are whole numbers, which floats hold exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.leaderboard.crossed import by_group, chunks, of_sums, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from debiasbench.leaderboard.crossed import Groups, Parts

DENSE = 2  # pairs of each row, from which on all products are computed
EXACT = 1 << 24  # whole numbers up to this one are exact in 32 bits


def parts_of_pairs(
    tables: NDArray[np.bool_], groups: Groups, pairs: Sequence[tuple[int, int]]
) -> list[Parts]:
    """Return the parts of the difference of tables i and j for each pair (i, j).

    `tables`: (M, S, N), samples sorted by group, of S >= 2 seeds.
    """
    if not pairs:
        return []
    first, second = np.array(pairs, dtype=np.int64).T
    if len(pairs) >= DENSE * len(tables):
        return _at_once(tables, groups, first, second)
    x = tables.view(np.int8)
    found: list[Parts] = []
    for some in chunks(len(pairs), x[0].size):
        found += parts_of(*by_group(x[first[some]] - x[second[some]], groups), groups)
    return found


def _at_once(
    tables: NDArray[np.bool_],
    groups: Groups,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
) -> list[Parts]:
    """Return the parts of the differences from the products of all tables."""
    seeds, number = tables.shape[1], len(groups.sizes)
    sums = np.add.reduceat(tables, groups.starts, axis=2, dtype=np.int64).transpose(0, 2, 1)
    # (P, G) sums over samples and seeds of (A - B)^2, and over samples of (sum_s A - B)^2
    squares, of_each = np.zeros((2, len(first), number))
    for g in np.flatnonzero(groups.weights):
        size = int(groups.sizes[g])
        x = tables[:, :, groups.starts[g] : groups.starts[g] + size]
        both = _gram(x.reshape(len(x), -1), size * seeds)
        squares[:, g] = _squared(both, first, second)
        of_each[:, g] = _squared(_gram(x.sum(axis=1), size * seeds * seeds), first, second)
    differences = sums[first] - sums[second]  # (P, G, S)
    return parts_of(*of_sums(differences, squares, of_each, groups.sizes, alone=1.0), groups)


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
