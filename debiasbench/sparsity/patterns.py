"""Where active weights may lie: anywhere, N in every M, or equally many into every neuron."""

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
    """A weight seen as rows that all hold equally many active weights.

    `n`, `m`: n in every m consecutive inputs; without them a row is what enters one neuron
    (constant fan-in; Lasby et al., ICLR 2024).
    """

    n: int | None = None
    m: int | None = None

    def rows(self, weight: Tensor) -> Tensor:
        """(out, in, *kernel) -> (R, S), sharing no order with memory where it need not."""
        if self.m is None:
            return weight.flatten(1)
        return weight.movedim(1, -1).reshape(-1, self.m)

    def back(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Undo `rows`."""
        if self.m is None:
            return rows.view(shape)
        return rows.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)

    def per_row(self, name: str, shape: torch.Size, nnz: int) -> int:
        """Return how many weights of a row are active, for a layer that may keep `nnz`.

        Raises `SparsityError` where the shape does not fit.
        """
        if self.n is None or self.m is None:
            return min(max(1, round(nnz / shape[0])), math.prod(shape[1:]))
        if shape[1] % self.m:
            raise SparsityError(
                f"{name} has {shape[1]} inputs, no multiple of {self.m}: exclude it, or keep it "
                f"dense"
            )
        return self.n

    def nnz(self, name: str, shape: torch.Size, nnz: int) -> int:
        """Return how many weights the whole layer keeps: `nnz` as nearly as the rows allow."""
        per_row = self.per_row(name, shape, nnz)
        return per_row * math.prod(shape) // (self.m or math.prod(shape[1:]))

    def best(self, scores: Tensor, nnz: int) -> Tensor:
        """Bool of the shape of `scores`: in every row its share of `nnz` of highest score."""
        rows = self.rows(scores)
        k = torch.full((len(rows),), nnz // len(rows), device=scores.device)
        everywhere = torch.ones_like(rows, dtype=torch.bool)
        return self.back(top_in_rows(rows, everywhere, k), scores.shape)


def read_pattern(text: str) -> Pattern | None:
    """Read "unstructured" (None), "constant_fan_in" or "N:M"; raises `SparsityError`."""
    if text == "unstructured":
        return None
    if text == "constant_fan_in":
        return Pattern()
    found = _N_OF_M.fullmatch(text)
    if found and 0 < int(found[1]) <= int(found[2]):
        return Pattern(int(found[1]), int(found[2]))
    raise SparsityError(
        f"Unknown pattern {text!r}. Available: unstructured, constant_fan_in, and N:M such as 2:4"
    )
