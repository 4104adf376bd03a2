"""Residual networks of torchvision with configurable width and stem."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import nn
from torchvision.models import resnet

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.core.model import Model, Shape
from debiasbench.models._weights import fetching

Stem = Literal["imagenet", "small"]

_CITATION = "He et al. Deep Residual Learning for Image Recognition. CVPR 2016."
_WIDTH = "channels of the first stage; 64 is the original"
_STEM = (
    "imagenet: 7x7 convolution of stride 2 and pooling; small: 3x3 of stride 1, for 32x32 images"
)
_PRETRAINED = "start from ImageNet weights, downloaded by torchvision"
_DEPTH = "number of stages that are used: the first ones; the linear layer follows the last of them"


@dataclass(frozen=True)
class ResNet18(Model):
    """ResNet-18 of torchvision."""

    citation: ClassVar[str] = _CITATION

    width: int = option(64, _WIDTH, ge=1)
    stem: Stem = option("imagenet", _STEM)
    pretrained: bool = option(False, _PRETRAINED)
    depth: int = option(4, _DEPTH, ge=1, le=4, absent=4)

    def build(self, shape: Shape) -> nn.Module:
        """Build 4 stages of 2 basic blocks each."""
        weights = resnet.ResNet18_Weights.DEFAULT if self.pretrained else None
        return _resnet(resnet.BasicBlock, (2, 2, 2, 2), shape, self, weights)

    def skeleton(self, shape: Shape) -> nn.Module:
        """Build the same network without pretrained weights."""
        return replace(self, pretrained=False).build(shape)


@dataclass(frozen=True)
class ResNet50(Model):
    """ResNet-50 of torchvision."""

    citation: ClassVar[str] = _CITATION

    width: int = option(64, _WIDTH, ge=1)
    stem: Stem = option("imagenet", _STEM)
    pretrained: bool = option(False, _PRETRAINED)
    depth: int = option(4, _DEPTH, ge=1, le=4, absent=4)

    def build(self, shape: Shape) -> nn.Module:
        """Build stages of 3, 4, 6 and 3 bottleneck blocks."""
        weights = resnet.ResNet50_Weights.DEFAULT if self.pretrained else None
        return _resnet(resnet.Bottleneck, (3, 4, 6, 3), shape, self, weights)

    def skeleton(self, shape: Shape) -> nn.Module:
        """Build the same network without pretrained weights."""
        return replace(self, pretrained=False).build(shape)


def _resnet(
    block: Any,
    layers: tuple[int, int, int, int],
    shape: Shape,
    options: ResNet18 | ResNet50,
    weights: Any,
) -> nn.Module:
    width, stem = options.width, options.stem
    if len(shape.input) != 3:
        raise OptionError(
            f"resnet takes images (C, H, W), not samples of shape {shape.input}. Try --model mlp"
        )
    original = width == 64 and stem == "imagenet" and shape.input[0] == 3
    if weights is not None and not original:
        raise OptionError("Pretrained weights require width=64, stem=imagenet and three channels")
    net: Any = resnet.ResNet(block, list(layers))
    if weights is not None:
        with fetching(str(weights), wanted=True):
            net.load_state_dict(weights.get_state_dict(check_hash=True))
    if width != 64:
        net.inplanes = width
        net.bn1 = nn.BatchNorm2d(width)
        for i, blocks in enumerate(layers):
            stage = net._make_layer(block, width * 2**i, blocks, stride=1 if i == 0 else 2)
            setattr(net, f"layer{i + 1}", _initialised(stage))
    if not original:
        stem_conv = (
            nn.Conv2d(shape.input[0], width, 7, stride=2, padding=3, bias=False)
            if stem == "imagenet"
            else nn.Conv2d(shape.input[0], width, 3, stride=1, padding=1, bias=False)
        )
        net.conv1 = _initialised(stem_conv)
        if stem == "small":
            net.maxpool = nn.Identity()
    for i in range(options.depth, 4):
        setattr(net, f"layer{i + 1}", nn.Identity())
    net.fc = nn.Linear(width * 2 ** (options.depth - 1) * block.expansion, shape.classes)
    network: nn.Module = net
    return network


def _initialised(module: nn.Module) -> nn.Module:
    """Initialise convolutions as the constructor of torchvision does."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return module
