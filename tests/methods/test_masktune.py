"""MaskTune finds what a network looks at, and covers it before augmentation and normalisation."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from debiasbench import Batch, Objective, Supervision
from debiasbench.common.errors import OptionError
from debiasbench.core.settings import Training
from debiasbench.core.stage import Stage, Trained
from debiasbench.methods.masktune import MaskTune, last_rate
from debiasbench.models.cnn import CNN
from debiasbench.models.mlp import MLP
from debiasbench.parts.saliency import last_spatial, saliency, scaled, unsalient, xgradcam
from debiasbench.runs import fit as fitting
from debiasbench.testing import toy_task
from debiasbench.testing.methods import TRAINING
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor
from debiasbench.training.trainer import Sequential
from tests.running import fit
from tests.training.stages import CPU, ON_CPU


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


def test_only_the_pixel_above_two_deviations_of_the_positive_heat_is_salient() -> None:
    heat = torch.full((1, 4, 4), 0.1)
    heat[0, 0, 0], heat[0, 3, 3] = 0.0, 1.0
    positive = heat[heat > 0]
    assert positive.mean().item() == close(0.16)
    assert positive.std(correction=0).item() == close(0.224499)
    visible = unsalient(heat)
    assert (~visible).nonzero().tolist() == [[0, 3, 3]]
    threshold = (0.608999 - 0.16) / 0.224499
    assert threshold == close(2.0)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_an_image_without_differences_stays_whole(value: float) -> None:
    assert unsalient(torch.full((2, 3, 3), value)).all()
    assert scaled(torch.full((2, 3, 3), value)).eq(0).all()


def test_xgradcam_weighs_channels_by_their_share_of_the_logit() -> None:
    activations = torch.tensor([[[[1.0, 0], [0, 1]], [[0, 2], [0, 0]]]])
    gradients = torch.tensor([[[[2.0, 9], [9, 4]], [[0, -1], [0, 0]]]])
    # w = (2 + 4) / 2 and -2 / 2
    assert xgradcam(activations, gradients)[0].tolist() == [
        close([3.0, 0.0]),
        close([0.0, 3.0]),
    ]


def test_heat_is_where_the_evidence_of_the_predicted_class_is() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    conv: Any = network[0]
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        conv.bias.zero_()
    x = torch.zeros(2, 1, 4, 4)
    x[0, 0, 1, 2], x[0, 0, 3, 3] = 5.0, -1.0  # class 0 is predicted from the one bright pixel
    x[1, 0, 3, 3], x[1, 0, 1, 2] = -5.0, 1.0
    heat = saliency(network, x)
    assert heat[0].argmax().item() == 6
    assert heat[1].argmax().item() == 15
    assert heat.count_nonzero().item() == 2
    assert all(p.grad is None for p in network.parameters())


def test_the_heat_of_a_network_without_spatial_layers_is_gradient_times_value() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    linear: Any = network[1]
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2, -1, 0], [0, 0, 0, 0]]))
    heat = saliency(network, torch.tensor([[[[1.0, 2], [1, 1]]]]))
    assert heat[0].tolist() == [close([0.25, 1.0]), close([0.0, 0.0])]


@pytest.mark.parametrize("name", ["resnet18", "swin_t", "googlenet"])
def test_the_target_layer_is_the_last_with_an_image_plane(name: str) -> None:
    from torchvision import models

    more: Any = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    network = models.get_model(name, num_classes=2, **more).eval()
    planes = {
        "resnet18": (512, 2, 2),
        "swin_t": (768, 2, 2),  # the activations of its blocks have the channels last
        "googlenet": (1024, 2, 2),  # of several branches, joined
        "vgg11": (512, 4, 4),  # before the pooling with which its features end
    }
    with torch.no_grad(), last_spatial(network, (64, 64)) as found:
        network(torch.zeros(1, 3, 64, 64))
    assert found[-1].shape[1:] == planes[name]
    assert not any(m._forward_hooks for m in network.modules())


def test_the_target_layer_of_the_small_cnn_is_its_last_relu() -> None:
    network = CNN().build(toy_shape := toy_task(samples=8).shape).eval()
    with last_spatial(network, toy_shape.input[1:]) as found:
        network(torch.rand(2, 3, 8, 8))
    assert found[-1].shape == (2, 128, 2, 2)  # that of the last layer is a single position
    with last_spatial(network, (28, 28)) as found:
        network(torch.rand(2, 3, 28, 28))
    assert found[-1].shape == (2, 256, 3, 3)
    assert found[-1].min().item() == 0


class Watching(Objective):
    """Cross-entropy; notes the inputs and masks of all batches."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, batch: Batch) -> Tensor:
        assert isinstance(batch.x, Tensor)
        self.seen.append((batch.x.clone(), batch.visible))
        return nn.functional.cross_entropy(self.network(batch.x), batch.y)


def test_masked_pixels_are_black_before_augmentation_and_normalisation() -> None:
    def shifted(x: Tensor, rng: torch.Generator) -> Tensor:
        return x.roll(1, 3)

    task = replace(toy_task(), mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.5), augment=shifted)
    visible = torch.rand(len(task.train), 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.3
    loss: list[Watching] = []

    class Masks(MaskTune):
        def fit(self, lab: Any) -> Any:
            loss.append(Watching(lab.model()))
            return lab.train(loss[0], name="train", visible=visible)

    fit(task, Masks(), model=MLP(hidden=(4,)), training=replace(TRAINING, epochs=1))
    assert len(loss[0].seen) == 10
    for x, mask in loss[0].seen:
        covered = ~mask.roll(1, 3).expand_as(x)
        black = torch.tensor([-1.0, -2.0, -1.0]).view(1, 3, 1, 1).expand_as(x)
        assert x[covered].equal(black[covered])
        assert (x[~covered] > black[~covered]).any()


@pytest.mark.parametrize(
    ("schedule", "epochs", "more", "rate"),
    [
        ("constant", 4, {}, 0.1),
        ("plateau", 4, {}, 0.1),
        ("linear", 4, {}, 0.025),
        ("step", 4, {"milestones": (0.5, 0.75, 0.9), "decay": 0.5}, 0.025),
        ("step", 4, {}, 0.01),  # after two epochs
        ("step", 3, {}, 0.001),
        ("step", 1, {}, 0.1),
        ("cosine", 4, {}, 0.1 * (1 + math.cos(0.75 * math.pi)) / 2),
        ("cosine", 1, {}, 0.1),
    ],
)
def test_the_last_epoch_has_the_rate_to_which_the_schedule_has_come(
    schedule: Any, epochs: int, more: Any, rate: float
) -> None:
    assert last_rate(Training(epochs=epochs, lr=0.1, schedule=schedule, **more)) == close(rate)


def stages(method: MaskTune, **more: Any) -> list[tuple[Stage, Trained]]:
    """Return the stages of a method on toy images, without augmentation."""
    seen: list[tuple[Stage, Trained]] = []

    class Watched(Sequential):
        def train(self, stages: Sequence[Stage]) -> list[Trained]:
            (trained,) = super().train(stages)
            seen.append((stages[0], trained))
            return [trained]

    predictor = Predictor(ON_CPU)
    fitting.fit(
        PlacedTask(toy_task(), CPU),
        method,
        model=CNN(width=4),
        training=replace(TRAINING, epochs=2, **more),
        seed=0,
        trainer=Watched(ON_CPU, predictor),
        predictor=predictor,
    )
    return seen


@pytest.mark.parametrize("masks", ["last", "best"])
def test_the_last_epoch_covers_what_the_network_looks_at_and_keeps_the_optimizer(
    masks: Any,
) -> None:
    (first, base), (last, _) = stages(MaskTune(masks=masks), schedule="cosine")
    network = copy.deepcopy(base.objective)
    if masks == "best":
        network.load_state_dict(base.checkpoints["val_average"].state)
    x: Any = toy_task().train.x
    heat = saliency(network.network.eval(), x.float() / 255)
    assert last.extra["visible"].equal(unsalient(heat)[:, None])
    covered = (~last.extra["visible"]).float().mean().item()
    assert 0 < covered < 0.1
    assert (first.steps, last.steps) == (20, 10)
    assert (last.settings.lr, last.settings.schedule) == (close(0.025), "constant")
    assert last.optimizer is not None
    assert last.select
    assert first.select is (masks == "best")


def test_masktune_refuses_samples_that_are_no_images() -> None:
    task = toy_task()
    flat: Any = {name: s.x for name, s in task.splits().items()}
    splits = {n: replace(s, x=flat[n].flatten(1).float()) for n, s in task.splits().items()}
    with pytest.raises(OptionError, match=r"needs a data set of images.*Use another method"):
        fit(replace(task, **splits), MaskTune(), model=MLP(), training=TRAINING)


def test_masktune_reads_validation_labels_only_for_the_best_epoch() -> None:
    assert MaskTune().supervision == Supervision()
    assert MaskTune(masks="best").supervision == Supervision(val="select")
