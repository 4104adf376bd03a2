"""BPA computes the weights of its authors' code, and of its paper where the code differs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from debiasbench import Batch
from debiasbench.methods.bpa import PseudoAttributeLoss, pseudo_attributes

CLUSTERS = torch.tensor([0, 0, 0, 1])
LOSSES = (0.1, 0.2, 0.3, 2.0)


class Given(nn.Module):
    """A network whose logits are its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def batch(losses: tuple[float, ...] = LOSSES, step: int = 0, epoch: int = 0, **more: Any) -> Batch:
    """Make samples of class 0 with these cross-entropies; two logits (z, 0) have log(1 + e^-z)."""
    z = torch.tensor([[-math.log(math.expm1(loss)), 0.0] for loss in losses])
    index = more.get("index", torch.arange(len(z)))
    return Batch(
        z,
        torch.zeros(len(z), dtype=torch.long),
        index,
        step=torch.tensor(step),
        epoch=torch.tensor(epoch),
    )


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


def weights(loss: PseudoAttributeLoss) -> list[float]:
    values: list[float] = loss.log_weight.exp().tolist()
    return values


@pytest.mark.parametrize(
    ("released", "first", "second"),
    [
        (False, (0.983057, 1.050828), (0.935818, 1.192546)),
        (True, (0.644453, 2.066642), (0.103187, 3.690438)),
    ],
)
def test_weights_are_those_of_the_authors_code_and_as_meant(
    released: bool, first: tuple[float, float], second: tuple[float, float]
) -> None:
    loss = PseudoAttributeLoss(Given(), CLUSTERS, 0.05, released=released)
    value = loss(batch())
    assert weights(loss) == close([*[first[0]] * 3, first[1]])
    assert value.item() == close((first[0] * 0.6 + first[1] * 2) / 4)
    assert loss.losses.tolist() == close(LOSSES)
    loss(batch(step=10))
    assert loss.loss.tolist() == close([0.2, 2.0])
    assert weights(loss) == close([*[second[0]] * 3, second[1]])


@pytest.mark.parametrize(
    ("step", "epoch", "updated"), [(9, 0, False), (10, 0, True), (3, 1, True), (11, 0, False)]
)
def test_losses_of_clusters_are_updated_every_ten_steps_and_with_each_epoch(
    step: int, epoch: int, updated: bool
) -> None:
    loss = PseudoAttributeLoss(Given(), CLUSTERS, 0.05)
    loss(batch())
    loss(batch(step=step, epoch=epoch))
    assert loss.loss.tolist() == close([0.2, 2.0] if updated else [0.0, 0.0])
    assert loss.known.item() is updated


def test_losses_of_clusters_count_only_when_every_sample_has_been_seen() -> None:
    loss = PseudoAttributeLoss(Given(), CLUSTERS, 0.05)
    loss(batch((0.1, 2.0), index=torch.tensor([0, 3])))
    loss(batch((0.1, 2.0), step=10, index=torch.tensor([0, 3])))
    assert not loss.known.item()
    assert loss.loss.tolist() == close([0.1, 2.0])  # means of the samples that were seen
    # v = (2/3, 2) / (4/3) in both steps
    ratio = math.exp(2 * 0.05 * (1.5 - 0.5))
    assert weights(loss)[3] / weights(loss)[0] == close(ratio)


@pytest.mark.parametrize("released", [False, True])
def test_weights_stay_finite_where_losses_are_zero_and_where_one_cluster_has_all(
    released: bool,
) -> None:
    loss = PseudoAttributeLoss(Given(), CLUSTERS, 1e4, every=1, released=released)
    for losses in (LOSSES, (1e-9, 1e-9, 1e-9, 50.0), LOSSES):
        loss(batch(losses))
        assert all(map(math.isfinite, weights(loss)))
        assert sum(weights(loss)) == close(4)
    loss.losses.zero_()
    loss(batch())
    assert all(map(math.isfinite, weights(loss)))


def test_a_batch_of_one_sample_has_the_weight_one() -> None:
    loss = PseudoAttributeLoss(Given(), CLUSTERS, 0.05)
    assert loss(batch((0.7,), index=torch.tensor([3]))).item() == close(0.7)


def test_clusters_are_of_one_class_and_follow_the_direction_of_features() -> None:
    angle = torch.tensor([0.0, 0.1, 1.5, 1.6, 0.0, 0.1, 1.5, 1.6])
    length = torch.tensor([1.0, 9, 1, 9, 1, 9, 1, 9])
    features = length[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    y = torch.tensor([0] * 4 + [2] * 4)
    found = pseudo_attributes(features, y, 2, seed=0).tolist()
    assert sorted(set(found)) == [0, 1, 2, 3]
    assert found[:2] == [found[0]] * 2
    assert found[2:4] == [found[2]] * 2
    assert {*found[:4]} == {0, 1}
    assert {*found[4:]} == {2, 3}


def test_a_class_has_no_more_clusters_than_different_samples() -> None:
    features, y = torch.ones(5, 3), torch.tensor([0, 0, 0, 0, 1])
    features[0] = 0
    found = pseudo_attributes(features, y, 8, seed=0)
    assert found.max().item() == 2
    assert found.bincount().tolist() in ([1, 3, 1], [3, 1, 1])
