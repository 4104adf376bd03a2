"""Colours, places and balanced splits of digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from debiasbench.datasets._assignment import take_per_class
from debiasbench.datasets._colour import (
    COLOURS,
    LFF_COLOURS,
    THRESHOLD,
    colour,
    lff_colour,
    placed,
)
from tests.datasets.mnist import MNIST_ROOT, real_mnist


def test_taking_some_of_each_class_leaves_the_rest() -> None:
    y = torch.arange(57) % 10
    taken, rest = take_per_class(y, 3, torch.Generator())
    assert y[taken].bincount().tolist() == [3] * 10
    assert sorted([*taken.tolist(), *rest.tolist()]) == list(range(57))


def test_pixels_above_the_threshold_become_the_pure_colour() -> None:
    grey = torch.tensor([[[0, 1, THRESHOLD, THRESHOLD + 1, 255]]], dtype=torch.uint8)
    image = colour(grey, torch.tensor([5]))[0]  # cyan
    greys = [[0, 0, 0], [1, 1, 1], [100, 100, 100]]
    assert image[:, 0].T.tolist() == [*greys, [0, 255, 255], [0, 255, 255]]


def test_the_palette_is_the_published_one() -> None:
    assert [rgb for _, rgb in COLOURS] == [
        (255, 0, 0), (255, 128, 0), (255, 255, 0), (128, 255, 0), (0, 255, 0),
        (0, 255, 255), (0, 0, 255), (128, 0, 255), (255, 0, 128), (255, 0, 255),
    ]  # fmt: skip


def test_colours_of_lff_are_shades_of_one_colour_with_less_noise_at_higher_severity() -> None:
    grey = torch.full((500, 4, 4), 255, dtype=torch.uint8)
    grey[:, 0, 0] = 51
    bias = torch.arange(500) % 10
    spread = []
    for severity in (1, 3, 5):
        painted = lff_colour(grey, bias, torch.Generator().manual_seed(0), severity=severity)
        assert torch.allclose(painted[:, :, 0, 0].float(), painted[:, :, 1, 1].float() / 5, atol=1)
        mean = 255 * torch.tensor(LFF_COLOURS)[bias]
        spread.append((painted[:, :, 1, 1] - mean).abs().mean().item())
    assert spread[0] > spread[1] > spread[2]


def test_a_place_moves_the_complete_digit() -> None:
    grey = torch.zeros(10, 28, 28, dtype=torch.uint8)
    grey[:, 10:18, 10:18] = 200
    moved = placed(grey, torch.arange(10))
    centres = [(m.nonzero().double().mean(0)).tolist() for m in moved]
    assert len({tuple(c) for c in centres}) == 10
    assert centres[5][0] - centres[0][0] == pytest.approx(8)
    assert centres[1][1] - centres[0][1] == pytest.approx(2)
    assert moved.flatten(1).sum(1).unique().numel() == 1


SAMPLE = MNIST_ROOT / "samples" / "cmnist_0_label0_bias5.png"


@real_mnist
@pytest.mark.skipif(
    not SAMPLE.is_file(),
    reason="no released image: put samples/cmnist_0_label0_bias5.png into DEBIASBENCH_TEST_DATA",
)
def test_the_colour_rule_equals_the_released_image() -> None:
    from torchvision.datasets import MNIST

    mnist = MNIST(str(MNIST_ROOT), train=True, download=False)
    zeros = mnist.data[mnist.targets == 0]
    painted = colour(zeros, torch.full((len(zeros),), 5))
    with Image.open(SAMPLE) as image:
        released = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
    assert (painted == released).flatten(1).all(1).sum() == 1


@real_mnist
def test_the_colour_rule_gives_the_three_colours_of_the_released_cmnist() -> None:
    # one released image is known: a 0 coloured as 5, with 666 black, 96 cyan and 22 grey pixels
    from torchvision.datasets import MNIST

    mnist = MNIST(str(MNIST_ROOT), train=True, download=False)
    zeros = mnist.data[mnist.targets == 0]
    painted = colour(zeros, torch.full((len(zeros),), 5))
    cyan = torch.tensor([0, 255, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    grey = torch.full((1, 3, 1, 1), 64, dtype=torch.uint8)
    of_cyan = (painted == cyan).all(1).sum((1, 2))
    of_grey = (painted == grey).all(1).sum((1, 2))
    black = (painted == 0).all(1).sum((1, 2))
    assert ((of_cyan == 96) & (of_grey == 22) & (black == 666)).sum() == 1
