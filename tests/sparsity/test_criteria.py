"""Scores of weights are those of their papers, and global masks keep exact budgets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from debiasbench.sparsity import (
    SparsityTooHigh,
    global_masks,
    grasp_scores,
    magnitude_scores,
    snip_scores,
)


def small_net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 36, 5),
        )


def test_snip_scores_are_weight_times_gradient_on_the_real_initialisation() -> None:
    net = nn.Linear(3, 2, bias=False)
    before = net.weight.detach().clone()
    x = torch.tensor([[1.0, -2.0, 0.5]])
    scores = snip_scores(net, lambda: net(x).sum())
    assert torch.allclose(scores["weight"], (before * x).abs())
    other = snip_scores(net, lambda: net(x).sum(), reinitialise=torch.Generator().manual_seed(0))
    assert not torch.allclose(other["weight"], scores["weight"])
    assert torch.equal(net.weight, before)


def test_grasp_scores_are_weight_times_hessian_times_gradient() -> None:
    net = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 2.0]]))
    hessian = torch.tensor([[2.0, 1.0], [1.0, 4.0]])
    scores = grasp_scores(net, lambda: 0.5 * (net.weight @ hessian @ net.weight.T).sum())
    gradient = net.weight.detach() @ hessian
    assert torch.allclose(scores["weight"], net.weight.detach() * (gradient @ hessian))


@pytest.mark.parametrize("tie", [0.0, 1.0])
def test_ties_never_change_a_global_budget(tie: float) -> None:
    scores = {"a": torch.full((10, 10), tie), "b": torch.full((4, 5), tie)}
    masks = global_masks(scores, 0.25)
    assert sum(int(m.sum()) for m in masks.values()) == 30
    assert all(m.any() for m in masks.values())


def test_global_masks_keep_the_highest_scores_and_one_in_every_layer() -> None:
    scores = {"a": torch.arange(6.0).view(2, 3) + 10, "b": torch.arange(4.0).view(2, 2)}
    masks = global_masks(scores, 0.3)
    assert masks["a"].int().tolist() == [[0, 0, 0], [0, 1, 1]]
    assert masks["b"].int().tolist() == [[0, 0], [0, 1]]
    with pytest.raises(SparsityTooHigh, match=r"smallest feasible density is 0\.7"):
        global_masks(scores, 0.3, dense=["a"])
    assert set(magnitude_scores(small_net())) == {"0.weight", "4.weight"}
