"""`Scaled`: multiplies inputs by a constant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class Scaled(nn.Module):
    """Multiplies its input by `factor`."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return factor * x."""
        return self.factor * x

    def extra_repr(self) -> str:
        """Show the factor."""
        return f"{self.factor:g}"
