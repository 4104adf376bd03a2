"""Layouts of weights: where a layer stores its outputs and inputs, and in which groups they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """How a layer stores its weight.

    A linear layer stores (out, in), a convolution (out, in / groups, *kernel), and a transposed
    convolution (in, out / groups, *kernel). An output reads the inputs of its group only.
    """

    groups: int = 1
    transposed: bool = False

    def shape(self, stored: torch.Size) -> torch.Size:
        """Return the shape of `by_output`."""
        if not self.transposed:
            return stored
        return torch.Size([stored[1] * self.groups, stored[0] // self.groups, *stored[2:]])

    def by_output(self, stored: Tensor) -> Tensor:
        """Return (out, in / groups, *kernel): a row holds all weights that one output reads."""
        return self._swapped(stored) if self.transposed else stored

    def by_input(self, stored: Tensor) -> Tensor:
        """Return (in, out / groups, *kernel): a row holds all weights that read one input."""
        return stored if self.transposed else self._swapped(stored)

    def stored(self, by_output: Tensor) -> Tensor:
        """Undo `by_output`."""
        return self._swapped(by_output) if self.transposed else by_output

    def _swapped(self, weight: Tensor) -> Tensor:
        """Exchange the first two dimensions in each group; doing it twice changes nothing."""
        # (groups, rows / groups, columns, *kernel)
        grouped = weight.reshape(self.groups, -1, *weight.shape[1:])
        return grouped.transpose(1, 2).flatten(0, 1).contiguous()


def layout_of(layer: nn.Module) -> Layout:
    """Return the layout of the weights of a layer."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        return Layout(layer.groups, layer.transposed)
    return Layout()
