"""A residual network for tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from debiasbench import Model, Shape, option


class Block(nn.Module):
    """x + Linear(ReLU(Linear(LayerNorm(x)))), (B, D) to (B, D)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the output of the layers to the input."""
        change: Tensor = self.layers(x)
        return x + change


@dataclass(frozen=True)
class TabularResNet(Model):
    """Residual blocks of two linear layers, after Gorishniy et al."""

    citation: ClassVar[str] = (
        "Gorishniy et al. Revisiting Deep Learning Models for Tabular Data. NeurIPS 2021."
    )

    width: int = option(64, "width of the residual stream", ge=1)
    depth: int = option(2, "number of residual blocks", ge=0)
    dropout: float = option(0.1, "probability of dropping a hidden unit", ge=0, lt=1)

    def build(self, shape: Shape) -> nn.Module:
        """Return linear layer, blocks, LayerNorm, ReLU, linear layer."""
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(shape.features, self.width),
            *(Block(self.width, self.dropout) for _ in range(self.depth)),
            nn.LayerNorm(self.width),
            nn.ReLU(),
            nn.Linear(self.width, shape.classes),
        )
