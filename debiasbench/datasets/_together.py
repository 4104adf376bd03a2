"""Which classes and bias values occur together more often than by chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from debiasbench.core.data import Split


def together(split: Split, num_classes: int) -> Tensor:
    """(C, B) bool: which classes and bias values occur together more often than by chance.

    This is P(class | bias) > P(class), counted in `split`. A group that is exactly as frequent as
    by chance, or absent, is not aligned.
    """
    groups = split.group.bincount(minlength=num_classes * split.num_biases)
    counts = groups.view(num_classes, split.num_biases)  # (C, B)
    expected = counts.sum(dim=1, keepdim=True) * counts.sum(dim=0, keepdim=True)  # times N
    return counts * counts.sum() > expected
