"""SET with the drop rule of its paper: the same fraction of positive and negative weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from debiasbench.sparsity import SET, Layer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SignedSET(SET):
    """Signed SET: drop the smallest positive and largest negative weights, grow random ones."""

    citation: ClassVar[str] = SET.citation

    def drop_scores(self, layer: Layer) -> Tensor:
        """Return the rank of a weight among those of the same sign, as a fraction in [0, 1)."""
        scores = torch.zeros_like(layer.weight)
        for side in (layer.weight > 0, layer.weight <= 0):
            among = side & layer.mask
            size = layer.weight[among].abs()  # (n,)
            scores[among] = size.argsort().argsort() / max(1, len(size))
        return scores
