"""Random tensors and masks, and bitwise comparison, shared by tests of packing and CSR."""

from __future__ import annotations

import torch
from torch import Tensor

Tensors = dict[str, Tensor]

BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def bernoulli(density: float, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


def bits(x: Tensor) -> Tensor:
    return x.view(BITS[x.dtype]) if x.dtype in BITS else x


def assert_same_bits(actual: Tensors, expected: Tensors) -> None:
    assert set(actual) == set(expected)
    for name, x in expected.items():
        assert actual[name].dtype == x.dtype
        assert torch.equal(bits(actual[name]), bits(x)), name
