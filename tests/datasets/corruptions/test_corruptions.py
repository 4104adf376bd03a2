"""All corruptions: each image depends only on itself, its number and the seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from debiasbench.datasets import _corruptions as corruptions
from debiasbench.datasets._corruptions import NAMES, corrupt
from tests.datasets.corruptions.images import SEVERITIES, changed, pictures

DRAWN = ("snow", "frost", "fog", "spatter", "elastic")  # these use random numbers


def test_corruptions_are_in_the_order_of_the_classes() -> None:
    first = ("snow", "frost", "fog", "brightness", "contrast")
    last = ("spatter", "elastic", "jpeg", "pixelate", "saturate")
    assert (*first, *last) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, index = pictures(7), torch.tensor([3, 59_999, 0, 12, 5, 40, 41])
    together = corrupt(name, x, 5, index)
    alone = [corrupt(name, x[i : i + 1], 5, index[i : i + 1])[0] for i in range(7)]
    torch.manual_seed(1)  # global generators must not matter
    np.random.seed(1)
    assert torch.equal(together, torch.stack(alone))
    assert torch.equal(together, corrupt(name, x.flip(0), 5, index.flip(0)).flip(0))
    monkeypatch.setattr(corruptions, "CHUNK", 3)
    assert torch.equal(together, corrupt(name, x, 5, index))
    assert together.dtype == torch.uint8
    assert together.shape == x.shape


@pytest.mark.parametrize("name", NAMES)
def test_the_given_images_are_not_changed(name: str) -> None:
    x = pictures(2)
    before = x.clone()
    assert not torch.equal(changed(name, x, 5), before.float())
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", NAMES)
def test_seed_and_number_matter_only_where_random_numbers_are_used(name: str) -> None:
    x = pictures(1).expand(3, -1, -1, -1)
    a, b, again = corrupt(name, x, 5, torch.tensor([0, 1, 0]))
    other = corrupt(name, x[:1], 5, torch.tensor([0]), seed=1)[0]
    assert torch.equal(a, again)
    assert torch.equal(a, b) == torch.equal(a, other) == (name not in DRAWN)


@pytest.mark.parametrize("name", ["snow", "fog", "brightness", "contrast", "jpeg", "pixelate"])
def test_a_higher_severity_is_farther_from_the_clean_image(name: str) -> None:
    x = pictures(96)
    distance = [(changed(name, x, s) - x).abs().mean().item() for s in SEVERITIES]
    assert distance == sorted(distance)
    assert distance[0] > 0.5
