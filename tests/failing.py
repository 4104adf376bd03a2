"""Methods that fail, for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from debiasbench import Method


@dataclass(frozen=True)
class Diverges(Method):
    """Becomes NaN in its second stage, at its third step."""

    def fit(self, lab: Any) -> Any:
        from debiasbench import Batch
        from debiasbench.core.objective import CrossEntropy

        class Exploding(CrossEntropy):
            step = 0

            def forward(self, batch: Batch) -> torch.Tensor:
                self.step += 1
                return super().forward(batch) / (self.step < 3)

        lab.train(lab.model(), name="first")
        return lab.train(Exploding(lab.model()), name="second")


@dataclass(frozen=True)
class Raises(Method):
    """Has a bug."""

    def fit(self, lab: Any) -> Any:
        raise IndexError("off by one")
