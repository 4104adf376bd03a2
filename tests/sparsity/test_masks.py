"""Masks are packed into bits and restored."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from debiasbench.sparsity.masks import digest, pack, unpack


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_a_packed_mask_comes_back(bits: list[bool]) -> None:
    mask = torch.tensor(bits)
    packed = pack(mask)
    assert len(packed) == math.ceil(len(bits) / 8)
    assert torch.equal(unpack(packed, mask.shape), mask)
    assert digest({"a": mask}) != digest({"a": ~mask})
    with pytest.raises(ValueError, match="A packed mask of shape"):
        unpack(packed, (len(bits) + 8,))
