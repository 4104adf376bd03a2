"""DeNetDM: deep branches learn the bias, shallow ones the rest; a full network is taught both."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.common.space import choice, log
from debiasbench.core.method import Method
from debiasbench.core.objective import Objective

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.core.data import Batch
    from debiasbench.core.features import FeaturesOf
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.lab import Lab
    from debiasbench.core.stage import Trained


class Branches(nn.Module):
    """Logits of the sum of a shallow and a deep branch's features (B, D), by one classifier."""

    def __init__(self, shallow: nn.Module, deep: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.shallow, self.deep, self.classifier = shallow, deep, classifier

    def forward(self, x: Inputs) -> Tensor:
        """Return logits (B, C)."""
        logits: Tensor = self.classifier(self.shallow(x) + self.deep(x))
        return logits


class DeNetDMLoss(Objective):
    """Cross-entropy beside the deep branch, and distillation from the shallow one.

    `classifier`: the last layer of `network`, which has the shape of that of the branches. `first`:
    the frozen branches, which the trainer keeps in evaluation mode.
    """

    additive: ClassVar[bool] = True
    capturable: ClassVar[bool | None] = True

    def __init__(
        self,
        network: nn.Module,
        classifier: nn.Module,
        first: Branches,
        features_of: FeaturesOf,
        options: DeNetDM,
    ) -> None:
        super().__init__(network)
        self.classifier, self.first = classifier, first
        self.features_of, self.options = features_of, options

    def forward(self, batch: Batch) -> Tensor:
        """Return the weighted sum of both losses."""
        with torch.no_grad():
            biased = self.first.deep(batch.x)  # (B, D)
            teacher = self.first.classifier(self.first.shallow(batch.x))  # (B, C)
        student, features = self.features_of(self.network, batch.x)  # (B, C), (B, D)
        together = F.cross_entropy(self.classifier(features + biased), batch.y)
        distilled = distillation(student, teacher, self.options.temperature)
        return self.options.poe_weight * together + self.options.dist_weight * distilled


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 times the mean cross-entropy of softened predictions, of logits (B, C)."""
    target = (teacher / temperature).softmax(1)
    return temperature**2 * F.cross_entropy(student / temperature, target)


@dataclass(frozen=True)
class DeNetDM(Method):
    """DeNetDM: a deep branch takes the bias, and the shallow one beside it teaches a network."""

    citation: ClassVar[str] = (
        "Sreelatha et al. DeNetDM: Debiasing by Network Depth Modulation. NeurIPS 2024. "
        "arXiv:2403.19863."
    )
    presets: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "cmnist": {
            "model": "mlp",
            "model.hidden": [100, 100, 100, 100],
            "train.optimizer": "adam",
            "train.lr": 0.001,
            "train.weight_decay": 0.001,
            "train.batch_size": 64,
            "train.epochs": 100,
        },
        "bffhq": {
            "model": "resnet18",
            "model.pretrained": True,
            "stage1_epochs": 10,
            "dist_weight": 0.0,
            "train.optimizer": "adam",
            "train.schedule": "constant",
            "train.lr": 0.0001,
            "train.weight_decay": 0.0,
            "train.batch_size": 64,
            "train.epochs": 100,
        },
    }

    shallow: int = option(2, "depth of the shallow branch, see the option `depth` of models", ge=1)
    deep: int = option(4, "depth of the deep branch", ge=2)
    stage1_epochs: int | None = option(
        None, "epochs of both branches together; none: as many as the run has", ge=1
    )
    poe_weight: float = option(1.0, "weight of the cross-entropy beside the deep branch", ge=0)
    dist_weight: float = option(
        1.0, "weight of the distillation from the shallow branch", ge=0, search=log(0.1, 10)
    )
    temperature: float = option(
        2.0, "temperature T of the distillation", gt=0, search=choice(1, 2, 4)
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` if the shallow branch is not the shallower one."""
        if self.shallow >= self.deep:
            raise OptionError(
                f"method denetdm: shallow={self.shallow} must be less than deep={self.deep}: give "
                "a smaller shallow or a larger deep"
            )

    def fit(self, lab: Lab) -> Trained:
        """Train the branches together, then a network of `--model` beside the frozen ones."""
        shallow, deep = (_of_depth(lab, depth) for depth in (self.shallow, self.deep))
        size = lab.head(deep).weight.shape[1]
        for branch in (shallow, deep):
            _end(lab, branch, size, nn.Identity())
        both = Branches(shallow, deep, nn.Linear(size, lab.shape.classes))
        epochs = self.stage1_epochs or lab.training.epochs
        stage = lab.train(both, epochs=epochs, name="branches", select=False)
        first = cast("Branches", copy.deepcopy(stage.objective.network)).requires_grad_(False)
        network = lab.model()
        classifier = copy.deepcopy(first.classifier).requires_grad_(True)
        _end(lab, network, size, classifier)
        loss = DeNetDMLoss(network, classifier, first, lab.features_of, self)
        return lab.train(loss, name="train")


def _of_depth(lab: Lab, depth: int) -> nn.Module:
    """Return a branch, which begins at random, as those of the authors do."""
    try:
        return lab.model(depth=depth, pretrained=False)
    except OptionError:
        pass  # a model without pretrained weights, or without the option `depth`
    try:
        return lab.model(depth=depth)
    except OptionError as error:
        raise OptionError(
            f"method denetdm needs a network of depth {depth}, by the option `depth` of a model: "
            f"use --model mlp, cnn, resnet18 or resnet50, or a plugin's that has it ({error})"
        ) from error


def _end(lab: Lab, network: nn.Module, size: int, layer: nn.Module) -> None:
    """Replace the head by `layer`, after a linear layer if there are not `size` features."""
    features = lab.head(network).weight.shape[1]
    own = layer if features == size else nn.Sequential(nn.Linear(features, size), layer)
    lab.replace_head(network, own)
