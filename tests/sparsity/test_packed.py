"""A packed state takes fewer bytes and is restored bit for bit, or refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from debiasbench.sparsity.errors import SparsityError
from debiasbench.sparsity.packed import pack_state, packed_bytes, unpack_state
from tests.sparsity.random_tensors import BITS, Tensors, assert_same_bits, bernoulli, bits, random

SPECIAL = (0.0, -0.0, math.nan, math.inf, -math.inf)
DIGEST_BYTES = 32

densities = st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.9, 0.98, 1.0])


@st.composite
def floats(draw: st.DrawFn) -> Tensor:
    """Tensors of any shape and density with arbitrary bits, some of them special values."""
    dtype = draw(st.sampled_from(list(BITS)))
    shape = draw(st.lists(st.integers(0, 9), max_size=4))
    seed, density = draw(st.integers(0, 2**31)), draw(densities)
    limits = torch.iinfo(BITS[dtype])
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(
        limits.min, limits.max, shape, generator=generator, dtype=BITS[dtype]
    ).view(dtype)
    which = torch.randint(0, len(SPECIAL), shape, generator=generator)
    special = torch.rand(shape, generator=generator) < draw(st.sampled_from([0.0, 0.01, 0.5]))
    values = torch.where(special, torch.tensor(SPECIAL, dtype=dtype)[which], values)
    return values.where(torch.rand(shape, generator=generator) < density, 0.0)


others = st.sampled_from(
    [
        torch.tensor(7),  # as num_batches_tracked is
        torch.tensor([True, False, True]),
        torch.arange(6, dtype=torch.uint8).view(2, 3),
        torch.tensor([[1 + 2j, 0j]]),
    ]
)
states = st.dictionaries(st.text(max_size=6), floats() | others, max_size=4).filter(
    lambda state: not any("::" in name for name in state)
)


@given(states)
@settings(max_examples=50)
def test_any_state_comes_back_bit_for_bit_and_takes_no_more_bytes_than_dense(
    state: Tensors,
) -> None:
    packed = pack_state(state)
    unpacked, masks = unpack_state(packed)
    assert_same_bits(unpacked, state)
    assert_same_bits(masks, {n: x != 0 for n, x in state.items() if n in masks})
    assert set(masks) == {n for n, x in state.items() if x.is_floating_point() and x.ndim >= 2}
    assert packed_bytes(packed) <= packed_bytes(state) + DIGEST_BYTES


@given(values=floats(), density=densities, seed=st.integers(0, 2**31), through=st.booleans())
def test_any_mask_comes_back_with_active_zeros_and_signs_of_zeros_off_it(
    values: Tensor, density: float, seed: int, through: bool
) -> None:
    mask = bernoulli(density, *values.shape, seed=seed)
    off = torch.zeros_like(values).copysign(values)  # as after a product with the mask
    state = {"w": values.where(mask, off), "b": values}
    packed = pack_state(state, {"w": mask})
    unpacked, masks = unpack_state(packed)
    assert_same_bits(unpacked, state)
    assert_same_bits(masks, {"w": mask})
    dense = packed_bytes(state) + DIGEST_BYTES
    # a full mask is free, others cost at most one bit per weight
    assert packed_bytes(packed) <= dense + (0 if mask.all() else math.ceil(mask.numel() / 8))


# 50 x 80 weights, float32: 16,000 bytes, or 4 a value, 16 for the shape, and the places: bits, 500
# bytes, or 4 an index
@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (0, 16),
        (40, 16 + 40 * 4 + 40 * 4),
        (124, 16 + 124 * 4 + 124 * 4),
        (126, 16 + 126 * 4 + 500),
        (3000, 16 + 3000 * 4 + 500),
        (3870, 16 + 3870 * 4 + 500),
        (3872, 16_000),
        (4000, 16_000),
    ],
)
@pytest.mark.parametrize("given_masks", [True, False])
def test_the_smallest_form_is_used(kept: int, expected: int, given_masks: bool) -> None:
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(0))
    mask = (order < kept).view(50, 80)
    state = {"w": torch.ones(50, 80) * mask}
    packed = pack_state(state, {"w": mask} if given_masks else None)
    assert packed_bytes(packed) == expected + DIGEST_BYTES


def test_a_sparse_checkpoint_takes_the_bytes_that_its_density_allows() -> None:
    # at a density of 0.0005, 0.4 % of dense: 4 bytes for a value and 4 for its index
    mask = bernoulli(0.0005, 1000, 1000)
    state = {"w": random(1000, 1000) * mask}
    small = packed_bytes(pack_state(state, {"w": mask}, keep_minus_zeros=False))
    assert small == 8 * int(mask.sum()) + 16 + DIGEST_BYTES
    # signs of zeros take one bit each
    assert packed_bytes(pack_state(state, {"w": mask})) == small + 1_000_000 / 8


def test_minus_zeros_become_zeros_if_they_need_not_be_kept() -> None:
    w = torch.tensor([[-0.0, 2.0, 0.0, 0.0], [0.0, -0.0, -0.0, 3.0]]).repeat(8, 1)
    mask = w != 0
    mask[0, 0] = True  # an active -0.0 is an ordinary value
    state, masks = unpack_state(pack_state({"w": w}, {"w": mask}, keep_minus_zeros=False))
    expected = w.where(mask, 0.0)
    assert not torch.equal(bits(expected), bits(w))
    assert_same_bits(state, {"w": expected})
    assert_same_bits(masks, {"w": mask})


def test_a_packing_goes_through_safetensors_even_with_shared_and_transposed_tensors(
    tmp_path: Path,
) -> None:
    shared = random(6, 4)
    state = {
        "a": shared,
        "b": shared,
        "turned": shared.T,
        "sparse": random(8, 9) * bernoulli(0.1, 8, 9),
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(-0.0),
        "steps": torch.tensor(3),
    }
    save_file(pack_state(state), tmp_path / "packed.safetensors")
    unpacked, _ = unpack_state(load_file(tmp_path / "packed.safetensors"))
    assert_same_bits(unpacked, state)


def test_neither_packing_nor_unpacking_shares_memory() -> None:
    state = {"dense": torch.ones(2, 2), "plain": torch.ones(3), "sparse": torch.eye(64)}
    packed = pack_state(state)
    for x in state.values():
        x.zero_()
    for x in unpack_state(packed)[0].values():
        assert x.any()
        x.zero_()
    assert unpack_state(packed)[0]["dense"].all()  # the digest would tell if it had changed


def damaged() -> Tensors:
    # sparse by index and by bits (with signs), dense with active zeros and without, and no mask
    state = {
        "indices": torch.ones(20, 20) * bernoulli(0.02, 20, 20),
        "bits": random(20, 20) * bernoulli(0.2, 20, 20),
        "full": torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
        "dense": torch.ones(4, 4),
        "plain": torch.ones(3),
    }
    masks = {name: x != 0 for name, x in state.items() if name != "plain"}
    masks["full"] |= True
    return pack_state(state, masks)


def test_every_form_is_among_the_packings_that_are_damaged_here() -> None:
    assert set(damaged()) == {
        "indices::shape",
        "indices::active",
        "indices::values",
        "bits::shape",
        "bits::active",
        "bits::values",
        "bits::minus_zeros",
        "full::dense",
        "full::inactive",
        "dense::dense",
        "plain",
        "::digest",
    }


@pytest.mark.parametrize("key", list(damaged()))
def test_a_packing_without_one_of_its_parts_is_refused(key: str) -> None:
    packed = damaged()
    del packed[key]
    with pytest.raises(SparsityError, match=r"damaged|not a packed state"):
        unpack_state(packed)


@pytest.mark.parametrize("key", [key for key, x in damaged().items() if x.numel()])
@given(data=st.data())
@settings(max_examples=10)
def test_a_packing_with_any_bit_flipped_is_refused(key: str, data: st.DataObject) -> None:
    packed = damaged()
    raw = packed[key].flatten().view(torch.uint8)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    packed[key] = raw.view(packed[key].dtype).view(packed[key].shape)
    with pytest.raises(SparsityError, match="damaged"):
        unpack_state(packed)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: {**p, "indices::active": p["indices::active"] + 400},  # out of range
        lambda p: {**p, "indices::active": p["indices::active"] - 400},
        lambda p: {**p, "indices::active": p["indices::active"][1:]},  # wrong count
        lambda p: {**p, "indices::values": p["indices::values"][1:]},
        lambda p: {**p, "bits::active": p["bits::active"][1:]},
        lambda p: {**p, "bits::shape": torch.tensor([10, 40])},
        lambda p: {**p, "bits::shape": torch.tensor([2**40, 2**20])},
        lambda p: {**p, "plain": p["plain"].half()},
        lambda p: {**p, "plain": p["plain"].view(3, 1)},
        lambda p: {**p, "more": torch.ones(1)},
        lambda p: {("renamed" if key == "plain" else key): x for key, x in p.items()},
        lambda p: {**p, "bits::values": p["bits::active"], "bits::active": p["bits::values"]},
    ],
)
def test_a_packing_with_wrong_parts_is_refused(change: Callable[[Tensors], Tensors]) -> None:
    with pytest.raises(SparsityError, match="damaged"):
        unpack_state(change(damaged()))


def test_a_state_that_was_never_packed_is_refused() -> None:
    with pytest.raises(SparsityError, match="not a packed state"):
        unpack_state({"w": torch.ones(2, 2)})


@pytest.mark.parametrize("name", ["w::values", "::active", "a::b::dense", "::digest"])
def test_names_with_a_meaning_in_packed_states_are_refused(name: str) -> None:
    with pytest.raises(SparsityError, match=f"'{name}' has a meaning in packed states"):
        pack_state({name: torch.ones(2)})


def test_names_that_only_resemble_those_of_packed_states_are_kept() -> None:
    names = ("values", "w.values", ":values", "w::", "::", "w::dense::", "w::Dense", "digest", "")
    state = {name: torch.eye(40) * (1 + i) for i, name in enumerate(names)}
    assert_same_bits(unpack_state(pack_state(state))[0], state)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"v": torch.ones(2, 2).bool()}, "Unknown tensor 'v'"),
        ({"w": torch.ones(2, 3).bool()}, r"bool of shape \(2, 2\), not torch.bool of \(2, 3\)"),
        ({"w": torch.ones(2, 2)}, "must be bool"),
        ({"w": torch.eye(2).bool()}, "w has weights off its mask"),
        ({"nan": torch.tensor([False])}, "nan has weights off its mask"),
        ({"n": torch.tensor(True)}, "n is torch.int64"),
    ],
)
def test_masks_that_do_not_fit_the_state_are_refused(masks: Tensors, message: str) -> None:
    state = {"w": torch.ones(2, 2), "nan": torch.tensor([math.nan]), "n": torch.tensor(1)}
    with pytest.raises(SparsityError, match=message):
        pack_state(state, masks)
