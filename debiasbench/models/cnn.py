"""The small convolutional network of DCWP and REST for CMNIST."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from debiasbench.common.errors import OptionError
from debiasbench.common.options import option
from debiasbench.core.model import Model, Shape

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class CNN(Model):
    """4x4 convolutions of stride 2 with BatchNorm (three), global pooling, one linear layer."""

    citation: ClassVar[str] = (
        "Park et al. Training Debiased Subnetworks with Contrastive Weight Pruning. CVPR 2023."
    )

    width: int = option(
        64, "channels of the first convolution; the others have 2 and 4 times as many", ge=1
    )
    depth: int = option(
        3, "number of convolutions; from the fourth on 3x3, of stride 1", ge=1, absent=3
    )

    def build(self, shape: Shape) -> nn.Module:
        """3 -> 64 -> 128 -> 256 channels by default, with 660,992 weights that can be sparse.

        Raises `OptionError` for anything except images of at least 8x8 pixels.
        """
        from torch import nn

        if len(shape.input) != 3 or min(shape.input[1:]) < 8:
            raise OptionError(
                f"cnn takes images (C, H, W) of at least 8x8, not samples of shape {shape.input}. "
                "Try --model mlp"
            )
        sizes = [shape.input[0], *(self.width * 2 ** min(i, 2) for i in range(self.depth))]
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(pairwise(sizes)):
            kernel, stride = (4, 2) if i < 3 else (3, 1)
            layers += [
                nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        return nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], shape.classes)
        )
