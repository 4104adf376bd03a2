"""A network that never reads a part of the images is refused, or warned about."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from debiasbench import Shape
from debiasbench.common.errors import OptionError
from debiasbench.core.coverage import check_reads_whole
from debiasbench.core.settings import Training
from debiasbench.methods.erm import ERM
from debiasbench.models.cnn import CNN
from debiasbench.models.mlp import MLP
from debiasbench.models.resnet import ResNet18
from debiasbench.models.zoo import Timm
from debiasbench.testing import toy_task
from tests.core.test_head import Built
from tests.running import fit_whole


def patches(size: int, *, zero_head: bool = False) -> Callable[[Shape], nn.Module]:
    """Make networks that cut images into patches, without the last incomplete ones."""

    def build(shape: Shape) -> nn.Module:
        head = nn.Linear(4, shape.classes)
        if zero_head:
            nn.init.zeros_(head.weight)
        pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(nn.Conv2d(3, 4, size, stride=size), nn.BatchNorm2d(4), *pooled, head)

    return build


@pytest.mark.parametrize("zero_head", [False, True])
def test_a_run_is_refused_if_patches_do_not_cover_the_image(zero_head: bool) -> None:
    with pytest.raises(
        OptionError, match=r"6 of 8 rows and 6 of 8 columns.*44%.*3x3.*data import --size 9x9"
    ):
        fit_whole(
            toy_task(),
            ERM(),
            model=Built(patches(3, zero_head=zero_head)),
            training=Training(epochs=1),
        )


def test_a_vision_transformer_on_images_that_its_patches_do_not_cover_is_refused() -> None:
    network = Timm("vit_tiny_patch16_224", pretrained=False).build(Shape((3, 28, 28), 10))
    with pytest.raises(OptionError, match=r"timm vit reads only 16 of 28 rows.*67%.*32x32"):
        check_reads_whole(network, (3, 28, 28), "timm vit")


def test_a_network_that_omits_a_border_is_used_with_a_warning() -> None:
    network = patches(4)(Shape((3, 81, 80), 2))
    with pytest.warns(UserWarning, match="80 of 81 rows and 80 of 80 columns.*1% of their pixels"):
        check_reads_whole(network, (3, 81, 80), "it")


class Dead(nn.Module):
    """No input has an influence, since all units are dead."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1)[:, :2] - 1e6).relu()


class Detached(nn.Module):
    """Has no gradient with respect to its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().flatten(1)[:, :2]


class Maximum(nn.Module):
    """Only one pixel in each window has an influence."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x, 4).flatten(1)


@pytest.mark.parametrize(
    "network",
    [
        patches(4)(Shape((3, 28, 28), 2)),
        CNN().build(Shape((3, 28, 28), 2)),
        MLP().build(Shape((3, 28, 28), 2)),
        ResNet18(width=8).build(Shape((3, 28, 28), 2)),
        Dead(),
        Detached(),
        Maximum(),
    ],
    ids=lambda network: type(network).__name__,
)
def test_networks_that_may_read_everything_are_used_without_a_word(network: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_reads_whole(network, (3, 28, 28), "it")


def test_the_check_changes_neither_the_network_nor_the_global_generator() -> None:
    network: Any = patches(4)(Shape((3, 28, 28), 2)).train()
    network[1].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    check_reads_whole(network, (3, 28, 28), "it")
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[n]) for n, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert [m.training for m in network] == [True, False, True, True, True]
