"""Which weights to drop and which to grow: functions from masks and scores to masks.

A choice has two routes with equal results. On a CPU, the scores of the candidates are gathered,
which is faster if they are few. On an accelerator, the host would have to wait for their number, so
all scores are compared with a threshold instead.
"""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def drop_and_grow(
    mask: Tensor,
    drop_scores: Tensor,
    grow_scores: Tensor,
    drop: int,
    grow: int | None = None,
    *,
    active: int | None = None,
) -> Tensor:
    """Drop the active weights with the lowest scores, then grow inactive ones with the highest.

    `mask`: bool, any shape. `drop_scores`, `grow_scores`: floats of the same shape. `drop`, `grow`:
    how many weights; `grow` None means as many as `drop`. `active`: the number of ones in `mask`;
    without it, they are counted, and the host waits for the device. A weight that was just dropped
    may be grown again (RigL; Evci et al., ICML 2020, algorithm 1). Ties and zeros never change a
    count: among equal scores the lower index is chosen first, and NaN is the lowest score.

    Returns the new mask. Raises `ValueError` if there are not enough weights to drop or grow.
    """
    grow = drop if grow is None else grow
    if mask.is_cpu:
        return _exchange_by_gathering(mask, drop_scores, grow_scores, drop, grow)
    old = mask.flatten()
    _check_counts(int(old.sum()) if active is None else active, len(old), drop, grow)
    kept = old ^ _highest_by_threshold(-drop_scores, drop, among=old)
    return (kept | _highest_by_threshold(grow_scores, grow, among=~kept)).view_as(mask)


def drop_and_grow_in_rows(
    mask: Tensor, drop_scores: Tensor, grow_scores: Tensor, drop: int, *, active: int | None = None
) -> Tensor:
    """Drop weights like `drop_and_grow`; every row grows as many weights as it lost.

    `mask`: (R, S) bool. Scores: (R, S). Returns the new mask, with the same counts in each row.
    """
    kept = drop_and_grow(mask, drop_scores, grow_scores, drop, grow=0, active=active)
    lost = mask.sum(1) - kept.sum(1)  # (R,)
    return kept | top_in_rows(grow_scores, ~kept, lost)


def top(scores: Tensor, k: int) -> Tensor:
    """Return a mask of exactly `k` weights with the highest scores."""
    if not scores.is_cpu:
        return _highest_by_threshold(scores, k).view_as(scores)
    chosen = torch.zeros(scores.numel(), dtype=torch.bool)
    chosen[highest(torch.arange(len(chosen)), scores, k)] = True
    return chosen.view_as(scores)


def _exchange_by_gathering(
    mask: Tensor, drop_scores: Tensor, grow_scores: Tensor, drop: int, grow: int
) -> Tensor:
    new = mask.flatten().clone()
    active = new.nonzero()[:, 0]  # (n,)
    _check_counts(len(active), len(new), drop, grow)
    new[highest(active, -drop_scores, drop)] = False
    inactive = (~new).nonzero()[:, 0]  # (N - n + drop,)
    new[highest(inactive, grow_scores, grow)] = True
    return new.view_as(mask)


def _check_counts(active: int, size: int, drop: int, grow: int) -> None:
    if not (0 <= drop <= active and 0 <= grow <= size - active + drop):
        raise ValueError(
            f"cannot drop {drop} and grow {grow} with {active} of {size} weights active"
        )


def highest(among: Tensor, scores: Tensor, k: int) -> Tensor:
    """Return exactly `k` of the indices `among` (M,), those with the highest scores.

    NaN is the lowest score.
    """
    values = finite(scores.flatten()[among])
    if k == 0:
        return among[:0]
    threshold = values.topk(k).values[-1]  # ten times faster than sorting 500,000 scores
    chosen = values > threshold
    tied = (values == threshold).nonzero()[:, 0]
    chosen[tied[: k - int(chosen.count_nonzero())]] = True
    return among[chosen]


def _highest_by_threshold(scores: Tensor, k: int, among: Tensor | None = None) -> Tensor:
    """Return (N,) bool: exactly `k` of the places `among` (N,), those that `highest` chooses.

    `among`: at least `k` places; None means all. The host does not wait for the device.
    """
    values = finite(scores.flatten())
    if k == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if among is not None:
        floating = values.is_floating_point()
        lowest = -math.inf if floating else torch.iinfo(values.dtype).min
        values = values.masked_fill_(~among, lowest)
    threshold = values.topk(k, sorted=False).values.amin()
    above, tied = values > threshold, values == threshold
    if among is not None:
        tied &= among  # other places are tied if the threshold is the lowest value
    return above | (tied & (tied.cumsum(0) <= k - above.sum()))


def top_in_rows(scores: Tensor, among: Tensor, k: Tensor) -> Tensor:
    """Return (R, S) bool: in row r exactly the `k[r]` highest scores of places `among` (R, S)."""
    values = finite(scores).masked_fill(~among, -math.inf)
    best_first = values.argsort(dim=1, descending=True, stable=True)
    # some places in `among` also have the lowest score: put those that are not in it last
    last = (~among).gather(1, best_first).to(torch.uint8).argsort(dim=1, stable=True)
    order = best_first.gather(1, last)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(scores.shape[1], device=scores.device).expand_as(order))
    return (rank < k[:, None]) & among


def finite(scores: Tensor) -> Tensor:
    """Replace NaN by -inf, the lowest score."""
    return scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)


def random_mask(shape: torch.Size, nnz: int, generator: torch.Generator) -> Tensor:
    """Return a bool mask with exactly `nnz` active weights at random places, on the CPU."""
    mask = torch.zeros(math.prod(shape), dtype=torch.bool)
    mask[torch.randperm(len(mask), generator=generator)[:nnz]] = True
    return mask.view(shape)


def keyed_generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator of `device` that is seeded by `key`, also equal after a restart."""
    digest = blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
