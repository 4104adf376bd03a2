"""Halfway passes the checks of methods; its batches and its loss are what it says."""

from __future__ import annotations

import pytest
import torch
from debiasbench_halfway.method import EqualBatches, Halfway, SwitchedLoss
from torch import Tensor, nn

from debiasbench import Batch
from debiasbench.testing import check_method


def test_it_passes_the_checks_of_methods() -> None:
    check_method(Halfway())


def test_every_batch_has_equally_many_samples_of_every_group() -> None:
    group = torch.tensor([0] * 50 + [1] * 7 + [3] * 20)
    batches = EqualBatches(group, size=16)(0, torch.Generator().manual_seed(0))
    assert len(batches) == 77 // 15
    assert all(group[index].bincount().tolist() == [5, 5, 0, 5] for index in batches)


def test_a_batch_has_a_sample_of_every_group_even_if_it_should_be_smaller() -> None:
    group = torch.tensor([0, 1, 2, 2])
    (batch,) = EqualBatches(group, size=1)(0, torch.Generator().manual_seed(0))
    assert group[batch].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 2.25), (0.49, 2.25), (0.5, 3.5)])
def test_the_loss_is_the_mean_of_the_groups_and_later_that_of_the_worst(
    progress: float, expected: float
) -> None:
    class WithLosses(nn.Module):
        """Logits whose cross-entropies for class 0 are 1, 3, 4."""

        def forward(self, x: Tensor) -> Tensor:
            p = torch.exp(-torch.tensor([1.0, 3.0, 4.0]))
            return torch.stack([p, 1 - p], dim=1).log()

    batch = Batch(
        torch.zeros(3, 1),
        torch.zeros(3, dtype=torch.long),
        torch.arange(3),
        group=torch.tensor([0, 2, 2]),
        progress=torch.tensor(progress),
    )
    loss = SwitchedLoss(WithLosses(), groups=4, switch=0.5)(batch)
    assert loss.item() == pytest.approx(expected)
