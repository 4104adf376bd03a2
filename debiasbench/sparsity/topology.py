"""Which weights to drop and which to grow. Masks and scores in, masks out; no state."""

from __future__ import annotations

import math
from hashlib import blake2b

import torch
from torch import Tensor


def drop_and_grow(
    mask: Tensor, drop_scores: Tensor, grow_scores: Tensor, drop: int, grow: int | None = None
) -> Tensor:
    """Drop the active weights of lowest score, then grow the inactive ones of highest.

    `mask`: bool, any shape; scores: floats of the same shape; `drop`, `grow`: how many, `grow`
    None for as many as are dropped. A weight just dropped may be grown again (RigL; Evci et al.,
    ICML 2020, algorithm 1). Both choices are made over index sets, so ties and zeros never change
    a count; among equals the lower index comes first, NaN is lowest.

    Returns the new mask.
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
    """Drop as `drop_and_grow` does; every row grows as many as it lost.

    `mask`: (R, S) bool; scores: (R, S). Returns the new mask, with the row counts of the old.
    """
    kept = drop_and_grow(mask, drop_scores, grow_scores, drop, grow=0)
    lost = mask.sum(1) - kept.sum(1)  # (R,)
    return kept | top_in_rows(grow_scores, ~kept, lost)


def highest(among: Tensor, scores: Tensor, k: int) -> Tensor:
    """Return the `k` indices `among` (M,) of highest score, exactly; NaN is lowest."""
    values = finite(scores.flatten()[among])
    if k == 0:
        return among[:0]
    threshold = values.topk(k).values[-1]  # ten times faster than sorting half a million
    chosen = values > threshold
    tied = (values == threshold).nonzero()[:, 0]
    chosen[tied[: k - int(chosen.sum())]] = True
    return among[chosen]


def top(scores: Tensor, k: int) -> Tensor:
    """Bool, shaped like `scores`: the `k` highest of all, exactly."""
    chosen = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    chosen[highest(torch.arange(len(chosen), device=scores.device), scores, k)] = True
    return chosen.view_as(scores)


def top_in_rows(scores: Tensor, among: Tensor, k: Tensor) -> Tensor:
    """(R, S) bool: in row r the `k[r]` places `among` (R, S) of highest score, exactly."""
    values = finite(scores).masked_fill(~among, -math.inf)
    best_first = values.argsort(dim=1, descending=True, stable=True)
    # places that are not `among` share the lowest score with some that are: put them last
    last = (~among).gather(1, best_first).to(torch.uint8).argsort(dim=1, stable=True)
    order = best_first.gather(1, last)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(scores.shape[1], device=scores.device).expand_as(order))
    return (rank < k[:, None]) & among


def finite(scores: Tensor) -> Tensor:
    """Let NaN rank lowest."""
    return scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)


def random_mask(shape: torch.Size, nnz: int, generator: torch.Generator) -> Tensor:
    """Return a bool mask with exactly `nnz` ones at random places, on the CPU."""
    mask = torch.zeros(math.prod(shape), dtype=torch.bool)
    mask[torch.randperm(len(mask), generator=generator)[:nnz]] = True
    return mask.view(shape)


def keyed_generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator that depends on `key` alone: the same on every device and restart."""
    digest = blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
