"""DivDis has the losses and the order of queries of its authors' functions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench import Batch
from debiasbench.methods.divdis import (
    DivDisLoss,
    disagreement,
    divergence,
    mutual_information,
)

# logits of three target samples: two heads with two classes
P = torch.tensor([[2.0, 0, -1, 1], [0, 1, 2, 0], [1, 0, 0, 0]]).view(3, 2, 2).softmax(2)


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


def test_mutual_information_and_order_of_disagreement_are_those_of_the_authors() -> None:
    assert mutual_information(P).item() == close(0.052786)
    assert disagreement(P).argsort(descending=True).tolist() == [0, 1, 2]


def test_disagreement_sums_the_l1_distance_over_all_pairs() -> None:
    p = torch.rand(5, 3, 4).softmax(2)
    expected = (p[:, :, None] - p[:, None]).abs().sum((1, 2, 3))
    torch.testing.assert_close(disagreement(p), expected)


def test_mutual_information_is_the_mean_over_pairs_of_different_heads() -> None:
    p = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0)).softmax(2)
    pairs = [mutual_information(p[:, [h, g]]) for h, g in ((0, 1), (0, 2), (1, 2))]
    assert mutual_information(p).item() == close(torch.stack(pairs).mean().item())


def test_mutual_information_of_equal_certain_heads_is_the_entropy_of_their_classes() -> None:
    z = torch.tensor([[500.0, 0], [0, 500]]).repeat(2, 1)[:, None].expand(-1, 2, -1)
    z = z.clone().requires_grad_()
    information = mutual_information(z.softmax(2))
    information.backward()
    assert information.item() == close(math.log(2))
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_mutual_information_of_one_sample_is_0_and_has_a_gradient() -> None:
    z = torch.randn(1, 4, 3).requires_grad_()
    information = mutual_information(z.softmax(2))
    information.backward()
    assert information.item() == close(0)
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_divergence_is_that_of_the_mean_predictions_of_each_head_from_those_in_training() -> None:
    source = torch.tensor([[[0.8, 0.2], [0.6, 0.4]], [[0.4, 0.6], [0.2, 0.8]]], requires_grad=True)
    q = torch.tensor([0.5, 0.5])  # over samples and heads
    p = P.mean(0)
    expected = sum(float((p[h] * (p[h] / q).log()).sum()) for h in (0, 1)) / 2
    target = P.clone().requires_grad_()
    value = divergence(target, source)
    assert value.item() == close(expected)
    value.backward()
    assert source.grad is None
    assert target.grad is not None


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def features_of(network: nn.Module, x: Any) -> tuple[Tensor, Tensor]:
    return network(x), x


def make_loss(diversity: float, balance: float) -> DivDisLoss:
    others = nn.Linear(2, 4, bias=False)
    with torch.no_grad():
        others.weight.copy_(torch.tensor([[0.0, 1], [1, 0], [2, 0], [0, -1]]))
    return DivDisLoss(Identity(), others, features_of, diversity, balance)


def batch() -> Batch:
    rng = torch.Generator().manual_seed(0)
    x, u = torch.randn(5, 2, generator=rng), torch.randn(3, 2, generator=rng)
    beside = Batch(u, torch.zeros(3, dtype=torch.long), torch.arange(3))
    return Batch(x, torch.tensor([0, 1, 1, 0, 1]), torch.arange(5), beside=beside)  # type: ignore[arg-type]


def test_the_networks_own_head_is_the_first_and_the_others_follow() -> None:
    x = torch.tensor([[3.0, 5.0]])
    assert make_loss(1, 1).logits(x).tolist() == [[[3, 5], [5, 3], [6, -5]]]
    assert make_loss(1, 1).predict(x).tolist() == [[3, 5]]


def test_the_loss_adds_cross_entropy_diversity_and_balance() -> None:
    given = batch()
    loss = make_loss(10.0, 5.0)
    z, u = loss.logits(given.x), loss.logits(given.beside.x)
    ce = torch.stack([F.cross_entropy(z[:, h], given.y) for h in range(3)]).mean()
    p = u.softmax(2)
    expected = ce + 10 * mutual_information(p) + 5 * divergence(p, z.softmax(2))
    assert loss(given).item() == close(expected.item())
