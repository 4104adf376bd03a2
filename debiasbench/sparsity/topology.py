"""Which weights to drop and which to grow: functions from masks and scores to masks."""

from __future__ import annotations

import math
from hashlib import blake2b

import torch
from torch import Tensor


def drop_and_grow(
    mask: Tensor, drop_scores: Tensor, grow_scores: Tensor, drop: int, grow: int | None = None
) -> Tensor:
    """Drop the active weights with the lowest scores, then grow inactive ones with the highest.

    `mask`: bool, any shape. `drop_scores`, `grow_scores`: floats of the same shape. `drop`, `grow`:
    how many weights; `grow` None means as many as `drop`. A weight that was just dropped may be
    grown again (RigL; Evci et al., ICML 2020, algorithm 1). Ties and zeros never change a count:
    among equal scores the lower index is chosen first, and NaN is the lowest score.

    Returns the new mask. Raises `ValueError` if there are not enough weights to drop or grow.
    """
    grow = drop if grow is None else grow
    new = mask.flatten().clone()
    active = new.nonzero()[:, 0]  # (n,)
    if not (0 <= drop <= len(active) and 0 <= grow <= len(new) - len(active) + drop):
        raise ValueError(
            f"cannot drop {drop} and grow {grow} with {len(active)} of {len(new)} weights active"
        )
    new[highest(active, -drop_scores, drop)] = False
    inactive = (~new).nonzero()[:, 0]  # (N - n + drop,)
    new[highest(inactive, grow_scores, grow)] = True
    return new.view_as(mask)


def drop_and_grow_in_rows(
    mask: Tensor, drop_scores: Tensor, grow_scores: Tensor, drop: int
) -> Tensor:
    """Drop weights like `drop_and_grow`; every row grows as many weights as it lost.

    `mask`: (R, S) bool. Scores: (R, S). Returns the new mask, with the same counts in each row.
    """
    kept = drop_and_grow(mask, drop_scores, grow_scores, drop, grow=0)
    lost = mask.sum(1) - kept.sum(1)  # (R,)
    return kept | top_in_rows(grow_scores, ~kept, lost)


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
    chosen[tied[: k - int(chosen.sum())]] = True
    return among[chosen]


def top(scores: Tensor, k: int) -> Tensor:
    """Return a mask of exactly `k` weights with the highest scores."""
    chosen = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    chosen[highest(torch.arange(len(chosen), device=scores.device), scores, k)] = True
    return chosen.view_as(scores)


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


def keyed_generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator that is seeded by `key`: the same on every device and restart."""
    digest = blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
