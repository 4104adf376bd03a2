"""Accuracies of groups that overlap: each further attribute of test samples with each class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from debiasbench.records.beside import Predictions


@dataclass(frozen=True)
class Part:
    """The test samples of a class that have an attribute, and how many were predicted correctly."""

    attribute: str
    label: str
    samples: int
    correct: int

    @property
    def accuracy(self) -> float:
        """The fraction of correct samples; NaN without any sample."""
        return self.correct / self.samples if self.samples else math.nan


def parts(
    predictions: Predictions, attributes: Mapping[str, NDArray[Any]], classes: Sequence[str]
) -> list[Part]:
    """Return a part for each attribute and class, in their order.

    `predictions`: of the test split, see `read_predictions`. `attributes`: (N,) bool of each
    attribute. As in WILDS (Koh et al., ICML 2021), which takes the worst of them,
    only samples that have the attribute count. Raises `RecordError` for another number of samples.
    """
    y, right = predictions["y"], predictions["y"] == predictions["predicted"]
    found = []
    for name, mask in attributes.items():
        if mask.shape != y.shape:
            raise RecordError(f"{name} is known of {len(mask):,} test samples, not of {len(y):,}")
        for number, label in enumerate(classes):
            own = mask & (y == number)
            found.append(Part(name, label, int(own.sum()), int((own & right).sum())))
    return found
