"""CVaR-DRO passes the checks of methods, and computes the loss of its paper."""

from __future__ import annotations

import pytest
import torch
from debiasbench_cvar.method import CVaRDRO, CVaRLoss
from torch import Tensor, nn

from debiasbench import Batch
from debiasbench.testing import check_method


def test_it_passes_the_checks_of_methods() -> None:
    check_method(CVaRDRO(alpha=0.5))


@pytest.mark.parametrize(
    ("alpha", "expected"),  # four losses: 4, 3, 2, 1
    [(1.0, 2.5), (0.5, 3.5), (0.25, 4.0), (0.375, (4 + 0.5 * 3) / 1.5), (0.01, 4.0)],
)
def test_the_loss_is_the_mean_of_the_worst_fraction(alpha: float, expected: float) -> None:
    class WithLosses(nn.Module):
        """Logits whose cross-entropies for class 0 are 1, 2, 3, 4."""

        def forward(self, x: Tensor) -> Tensor:
            p = torch.exp(-torch.tensor([1.0, 2.0, 3.0, 4.0]))
            return torch.stack([p, 1 - p], dim=1).log()

    batch = Batch(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long), torch.arange(4))
    assert CVaRLoss(WithLosses(), alpha)(batch).item() == pytest.approx(expected)
