"""The slope of a loss whose logits are scaled, by which IRM and EIIL judge environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def slopes(logits: Tensor, y: Tensor) -> Tensor:
    """Return (B,) derivatives of the cross-entropy of s * logits by s, at s = 1.

    They are sum_c p_c z_c - z_y, without bounds, and have a gradient for `logits` (B, C). `y`: (B,)
    int64 classes. A binary logit z is the same as the logits (0, z).

    Arjovsky et al. Invariant Risk Minimization. 2019. arXiv:1907.02893.
    """
    expected = (logits.softmax(1) * logits).sum(1)
    return expected - logits.gather(1, y[:, None])[:, 0]
