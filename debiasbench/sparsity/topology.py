"""Which weights to drop and which to grow. Masks and scores in, masks out; no state."""

from __future__ import annotations

import math
from hashlib import blake2b

import torch
from torch import Tensor


def drop_and_grow(
    mask: Tensor, drop_scores: Tensor, grow_scores: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Drop the `k` active weights of lowest score, then grow the `k` inactive ones of highest.

    `mask`: bool, any shape; scores: floats of the same shape. A weight just dropped may be grown
    again (RigL; Evci et al., ICML 2020, algorithm 1). Both choices are made over index sets, so
    ties and zeros never change a count; among equals the lower index comes first.

    Returns the new mask and the weights that it has and `mask` had not, both shaped like `mask`.
    """
    flat = mask.flatten()
    active = flat.nonzero()[:, 0]  # (n,)
    if not 0 <= k <= len(active):
        raise ValueError(f"cannot drop {k} of {len(active)} active weights")
    new = flat.clone()
    new[_highest(active, -drop_scores, k)] = False
    inactive = (~new).nonzero()[:, 0]  # (N - n + k,)
    new[_highest(inactive, grow_scores, k)] = True
    return new.view_as(mask), (new & ~flat).view_as(mask)


def _highest(among: Tensor, scores: Tensor, k: int) -> Tensor:
    """Return the `k` indices `among` (M,) of highest score, exactly; NaN is lowest."""
    values = scores.flatten()[among].nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    if k == 0:
        return among[:0]
    threshold = values.topk(k).values[-1]  # ten times faster than sorting half a million
    chosen = values > threshold
    tied = (values == threshold).nonzero()[:, 0]
    chosen[tied[: k - int(chosen.sum())]] = True
    return among[chosen]


def random_mask(shape: torch.Size, nnz: int, generator: torch.Generator) -> Tensor:
    """Return a bool mask with exactly `nnz` ones at random places, on the CPU."""
    mask = torch.zeros(math.prod(shape), dtype=torch.bool)
    mask[torch.randperm(len(mask), generator=generator)[:nnz]] = True
    return mask.view(shape)


def keyed_generator(*key: int | str) -> torch.Generator:
    """Return a CPU generator that depends on `key` alone: the same on every device and restart."""
    digest = blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
