"""Parts that the losses of several methods share: GCE, and averages of every sample over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def gce(logits: Tensor, y: Tensor, q: float, *, released: bool = False) -> Tensor:
    """Return (B,) generalised cross-entropy (1 - p_y^q) / q.

    `logits`: (B, C). `y`: (B,) int64 classes. `q`: in (0, 1]; towards 0 it is cross-entropy.
    `released`: the form of the code of LfF, which others copied: CE * p_y^q * q, in which p_y^q has
    no gradient. Its gradient is q times that of the paper, and its value is another.

    Zhang, Sabuncu. Generalized Cross Entropy Loss. NeurIPS 2018.
    """
    p = logits.float().softmax(1).gather(1, y[:, None])[:, 0]  # (B,) of the class
    if released:
        return F.cross_entropy(logits, y, reduction="none") * p.detach() ** q * q
    loss: Tensor = (1 - p.clamp(min=1e-8) ** q) / q
    return loss


class SampleAverages(nn.Module):
    """Exponential moving averages of values of every training sample, in buffers.

    The first value of a sample is taken whole; later m = decay * m + (1 - decay) * value. A sample
    that was not seen yet has the average 0. As in the code of LfF (util.py, class EMA).

    `y`: (N,) classes. `rows`: kinds of values. `decay`: in [0, 1).
    """

    y: Tensor  # (N,)
    average: Tensor  # (rows, N)
    seen: Tensor  # (N,) bool

    def __init__(self, y: Tensor, decay: float, rows: int = 1) -> None:
        super().__init__()
        self.decay, self.classes = decay, int(y.max()) + 1
        self.register_buffer("y", y)
        self.register_buffer("average", torch.zeros(rows, len(y)))
        self.register_buffer("seen", torch.zeros(len(y), dtype=torch.bool))

    def update(self, index: Tensor, values: Tensor) -> None:
        """Add `values` (rows, B) of the samples at `index` (B,), in place."""
        share = torch.where(self.seen[index], 1 - self.decay, 1.0)  # (B,)
        self.average[:, index] = self.average[:, index].lerp(values, share)
        self.seen.index_fill_(0, index, True)

    def of(self, index: Tensor) -> Tensor:
        """Return (rows, B) averages of samples."""
        return self.average[:, index]

    def by_class(self, index: Tensor) -> Tensor:
        """Return (rows, B) averages, divided by the largest of all samples of the class."""
        rows = len(self.average)
        largest = self.average.new_zeros(rows, self.classes).scatter_reduce(
            1, self.y.expand(rows, -1), self.average, "amax"
        )  # (rows, C)
        return self.of(index) / (largest[:, self.y[index]] + 1e-8)


def relative_difficulty(biased: Tensor, debiased: Tensor) -> Tensor:
    """Return W = L_b / (L_b + L_d), in [0, 1], of losses of the biased and debiased network."""
    return biased / (biased + debiased + 1e-8)
