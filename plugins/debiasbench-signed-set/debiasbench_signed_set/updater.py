"""SET as its paper drops: as large a part of the positive as of the negative weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from debiasbench.sparsity import SET, Layer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SignedSET(SET):
    """SET: drop the smallest positive and the largest negative weights, grow at random."""

    citation: ClassVar[str] = SET.citation

    def drop_scores(self, layer: Layer) -> Tensor:
        """Rank a weight among those of its own sign, as a fraction in [0, 1)."""
        scores = torch.zeros_like(layer.weight)
        for side in (layer.weight > 0, layer.weight <= 0):
            among = side & layer.mask
            size = layer.weight[among].abs()  # (n,)
            scores[among] = size.argsort().argsort() / max(1, len(size))
        return scores
