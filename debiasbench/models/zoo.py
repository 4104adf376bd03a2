"""Any classification model of torchvision or timm, by its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.common.options import option
from debiasbench.core.model import Model, Shape
from debiasbench.models._weights import fetching

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Torchvision(Model):
    """Any classification model of torchvision, as torchvision:NAME."""

    citation: ClassVar[str] = "TorchVision maintainers and contributors. github.com/pytorch/vision."

    name: str = option("resnet18", "the model's name in torchvision")
    pretrained: bool = option(False, "start from its default weights, downloaded by torchvision")

    def build(self, shape: Shape) -> nn.Module:
        """Build the model for three-channel images, with a last linear layer for the classes."""
        from torchvision import models

        self._check(shape)
        if not self.pretrained:
            # these two would also return auxiliary logits in training
            more = {"aux_logits": False, "init_weights": True} if self._is_auxiliary else {}
            network: nn.Module = models.get_model(self.name, num_classes=shape.classes, **more)
            return network
        with fetching(f"torchvision:{self.name}", wanted=True):
            network = models.get_model(self.name, weights="DEFAULT")
        return self._fitted(network, shape)

    def skeleton(self, shape: Shape) -> nn.Module:
        """Build the same network; with `pretrained`, as torchvision does it for its weights."""
        from torchvision import models

        if not self.pretrained:
            return self.build(shape)
        self._check(shape)
        more = {
            "aux_logits": self.name == "inception_v3",
            "transform_input": True,
            "init_weights": False,
        }
        return self._fitted(
            models.get_model(self.name, **more if self._is_auxiliary else {}), shape
        )

    def _check(self, shape: Shape) -> None:
        from torchvision import models

        known = [n for n in models.list_models() if "." not in n and "/" not in n]
        known = [n for n in known if models.get_model_builder(n).__module__.count(".") == 2]
        if self.name not in known:
            raise UnknownNameError(
                "torchvision model", self.name, known, "torchvision.models.list_models() lists them"
            )
        if len(shape.input) != 3 or shape.input[0] != 3:
            raise OptionError(f"torchvision:{self.name} takes three-channel images only")

    @property
    def _is_auxiliary(self) -> bool:
        return self.name in {"googlenet", "inception_v3"}

    def _fitted(self, network: nn.Module, shape: Shape) -> nn.Module:
        """Replace the last layer of a network for the classes of ImageNet."""
        from torch import nn

        if hasattr(network, "aux_logits"):
            setattr(network, "aux_logits", False)  # noqa: B010 - not an attribute of every module
        head = self.head(network)
        inputs = head.weight.shape[1]
        _replace(
            network,
            head,
            nn.Linear(inputs, shape.classes)
            if isinstance(head, nn.Linear)
            else nn.Conv2d(inputs, shape.classes, 1),
        )
        return network


@dataclass(frozen=True)
class Timm(Model):
    """Any image model of timm, as timm:NAME."""

    citation: ClassVar[str] = (
        "Wightman. PyTorch Image Models. github.com/huggingface/pytorch-image-models."
    )

    name: str = option("resnet18", "the model's name in timm")
    pretrained: bool = option(False, "start from pretrained weights, downloaded by timm")

    def build(self, shape: Shape) -> nn.Module:
        """Build the model for the channels, classes and, if needed, the image size of the task."""
        import timm

        if not timm.is_model(self.name):
            raise UnknownNameError(
                "timm model", self.name, timm.list_models(), "timm.list_models() lists them"
            )
        if len(shape.input) != 3:
            raise OptionError(
                f"timm:{self.name} takes images (C, H, W), not samples of shape {shape.input}"
            )
        settings: dict[str, Any] = {
            "pretrained": self.pretrained,
            "num_classes": shape.classes,
            "in_chans": shape.input[0],
        }
        with fetching(f"timm:{self.name}", wanted=self.pretrained):
            try:
                network: nn.Module = timm.create_model(
                    self.name, img_size=shape.input[1:], **settings
                )
            except TypeError:  # convolutional networks accept any size and have no such argument
                network = timm.create_model(self.name, **settings)
        return network

    def skeleton(self, shape: Shape) -> nn.Module:
        """Build the same network without pretrained weights."""
        return replace(self, pretrained=False).build(shape)


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace the module `old` by `new`."""
    for name, module in network.named_modules():
        if module is old:
            parent, _, last = name.rpartition(".")
            setattr(network.get_submodule(parent), last, new)
            return
