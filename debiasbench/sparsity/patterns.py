"""Where active weights may be: anywhere, N in every M inputs, or equally many per neuron."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.topology import top_in_rows

if TYPE_CHECKING:
    from torch import Tensor

_N_OF_M = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class Pattern:
    """A view of a weight as rows that all have the same number of active weights.

    `n`, `m`: n active weights in every m consecutive inputs. Without them a row holds all inputs of
    one neuron (constant fan-in; Lasby et al., ICLR 2024).
    """

    n: int | None = None
    m: int | None = None

    def rows(self, weight: Tensor) -> Tensor:
        """(out, in, *kernel) -> (R, S); the order of a row need not be that in memory."""
        if self.m is None:
            return weight.flatten(1)
        return weight.movedim(1, -1).reshape(-1, self.m)

    def back(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Undo `rows`."""
        if self.m is None:
            return rows.view(shape)
        return rows.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)

    def per_row(self, name: str, shape: torch.Size, nnz: int) -> int:
        """Return the number of active weights per row of a layer that may keep `nnz` weights.

        Raises `SparsityError` if the shape does not fit the pattern.
        """
        if self.n is None or self.m is None:
            return min(max(1, round(nnz / shape[0])), math.prod(shape[1:]))
        if shape[1] % self.m:
            raise SparsityError(
                f"{name} has {shape[1]} inputs, which is not a multiple of {self.m}: exclude this "
                "layer, or keep it dense"
            )
        return self.n

    def nnz(self, name: str, shape: torch.Size, nnz: int) -> int:
        """Return how many weights the layer keeps: as close to `nnz` as equal rows allow."""
        per_row = self.per_row(name, shape, nnz)
        return per_row * math.prod(shape) // (self.m or math.prod(shape[1:]))

    def best(self, scores: Tensor, nnz: int) -> Tensor:
        """Return a mask of `nnz` weights in equal rows, with the highest scores of every row."""
        rows = self.rows(scores)
        k = torch.full((len(rows),), nnz // len(rows), device=scores.device)
        everywhere = torch.ones_like(rows, dtype=torch.bool)
        return self.back(top_in_rows(rows, everywhere, k), scores.shape)


def read_pattern(text: str) -> Pattern | None:
    """Parse "unstructured" (None), "constant_fan_in" or "N:M"; raise `SparsityError` otherwise."""
    if text == "unstructured":
        return None
    if text == "constant_fan_in":
        return Pattern()
    match = _N_OF_M.fullmatch(text)
    if match and 0 < int(match[1]) <= int(match[2]):
        return Pattern(int(match[1]), int(match[2]))
    raise SparsityError(
        f"Unknown pattern {text!r}. Available: unstructured, constant_fan_in, and N:M such as 2:4"
    )
