"""Pack a sparse state dict into few bytes, and unpack it again bit for bit.

A packed state holds plain tensors, so that safetensors can store it and nothing is ever unpickled.
A tensor `w` of a state becomes one of

    w                                           unchanged, without a mask
    w::shape, w::active, w::values              the active values and their places
    w::shape, ..., w::minus_zeros               also the places of inactive values that are -0.0
    w::dense                                    all values; those that are not 0 are active
    w::dense, w::inactive                       all values, and the places of the inactive ones

Places in the flattened tensor are stored as bits (uint8, eight per byte; see `masks.pack`) or as
indices (int32 or int64), in the form that takes fewer bytes. `::digest` is the SHA-256 of all
other tensors.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from typing import TYPE_CHECKING

import torch

from debiasbench.sparsity.errors import SparsityError, unknown
from debiasbench.sparsity.guards import check_mask
from debiasbench.sparsity.masks import pack, unpack
from debiasbench.sparsity.names import without_wrappers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    Parts = dict[str, Tensor]

PACKABLE = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
PARTS = ("shape", "active", "values", "minus_zeros", "dense", "inactive")
DIGEST = "::digest"
VERSION = b"sparse state, packed, version 1\n"  # digests of another version differ


def pack_state(
    state: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    *,
    keep_minus_zeros: bool = True,
) -> dict[str, Tensor]:
    """Return the state in fewer bytes, on the CPU; it shares no memory with the state.

    `masks`: bool, by the name of a floating-point tensor, whose values must be 0 outside its mask;
    tensors without a mask are stored unchanged. Names may be without the prefix that a wrapper such
    as `torch.compile` adds to the names in the state. None: every floating-point tensor of two or
    more dimensions has a mask, and values that are not 0 are active.
    `keep_minus_zeros`: whether a -0.0 outside a mask is restored as -0.0, or as 0.0. Multiplying
    weights by a mask makes many of them; storing their signs takes up to one bit per weight.

    If all active values are non-zero, no tensor takes more bytes than dense; else a mask may add
    one bit per weight. The digest takes 32 bytes.

    Raises `SparsityError` for masks that do not fit the state, for values outside a mask that are
    not 0, and for tensor names that have a meaning in packed states.
    """
    for name in state:
        if name == DIGEST or _part(name):
            raise SparsityError(
                f"The tensor name {name!r} has a meaning in packed states: rename this tensor"
            )
    if masks is None:
        masks = {
            name: values != 0
            for name, values in state.items()
            if values.dtype in PACKABLE and values.ndim >= 2
        }
    in_state = without_wrappers(state)  # masks have no prefixes such as `module.`
    for name in masks:
        if name not in state and name not in in_state:
            raise unknown("tensor", name, state)
    masks = {name if name in state else in_state[name]: mask for name, mask in masks.items()}
    packed: dict[str, Tensor] = {}
    for name, values in state.items():
        tensor = values.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        if name in masks:
            if tensor.dtype not in PACKABLE:
                raise SparsityError(
                    f"{name} is {tensor.dtype}, but only floating-point tensors can have a mask: "
                    "remove its mask"
                )
            check_mask(name, tensor, masks[name])
            parts = _packed(tensor, masks[name].cpu(), keep_minus_zeros)
            packed |= {f"{name}::{part}": stored for part, stored in parts.items()}
        else:
            packed[name] = tensor
    packed[DIGEST] = _digest(packed)
    return packed


def unpack_state(packed: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Undo `pack_state`: return copies of the state and its masks, on the CPU.

    Raises `SparsityError` unless `packed` is exactly what `pack_state` returned: the digest detects
    missing and additional parts, and every changed bit.
    """
    if DIGEST not in packed:
        raise SparsityError(
            f"This is not a packed state, or it is incomplete: it has no {DIGEST!r}. Pass the "
            "complete result of pack_state"
        )
    if not torch.equal(packed[DIGEST].cpu(), _digest(packed)):
        raise SparsityError(
            f"This packed state of {len(packed)} tensors is damaged: they do not match its digest. "
            "Load all of its tensors again from the original file, or pack the state again"
        )
    state: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    packings: dict[str, Parts] = defaultdict(dict)
    for key, tensor in packed.items():
        part = _part(key)
        if part:
            packings[key.removesuffix(f"::{part}")][part] = tensor.cpu()
        elif key != DIGEST:
            state[key] = tensor.to("cpu", copy=True)
    for name, parts in packings.items():
        state[name], masks[name] = _unpacked(parts)
    return state, masks


def packed_bytes(packed: Mapping[str, Tensor]) -> int:
    """Return the bytes of all tensors; a safetensors file adds about 100 bytes per tensor."""
    return sum(tensor.nbytes for tensor in packed.values())


def _part(key: str) -> str:
    """Return the part of a packed tensor that `key` names, "" if it names none."""
    _, _, part = key.rpartition("::")
    return part if part in PARTS and key.endswith(f"::{part}") else ""


def _packed(values: Tensor, mask: Tensor, keep_minus_zeros: bool) -> Parts:
    flat, active = values.flatten(), mask.flatten()
    sparse = {
        "shape": torch.tensor(values.shape, dtype=torch.int64),
        "active": _places(active),
        "values": flat[active],
    }
    minus_zeros = ~active & torch.signbit(flat)
    if keep_minus_zeros and minus_zeros.any():
        sparse["minus_zeros"] = _places(minus_zeros)
    dense = {"dense": values}
    if not torch.equal(active, flat != 0):
        dense["inactive"] = _places(~active)
    return min(dense, sparse, key=packed_bytes)


def _unpacked(parts: Parts) -> tuple[Tensor, Tensor]:
    """Undo `_packed`; the parts are valid, because the digest matched."""
    if "dense" in parts:
        values = parts["dense"].clone()
        if "inactive" not in parts:
            return values, values != 0
        return values, ~_mask(parts["inactive"], values.numel()).view(values.shape)
    shape = parts["shape"].tolist()
    size = math.prod(shape)
    active = _mask(parts["active"], size)
    flat = torch.zeros(size, dtype=parts["values"].dtype)
    flat[active] = parts["values"]
    if "minus_zeros" in parts:
        flat[_mask(parts["minus_zeros"], size)] = -0.0
    return flat.view(shape), active.view(shape)


def _places(mask: Tensor) -> Tensor:
    """Bool (N,) -> its bits or the indices of True values, in the form that takes fewer bytes."""
    bits = pack(mask)
    index = torch.int32 if len(mask) <= torch.iinfo(torch.int32).max else torch.int64
    if int(mask.sum()) * index.itemsize >= bits.nbytes:
        return bits
    return mask.nonzero()[:, 0].to(index)


def _mask(places: Tensor, size: int) -> Tensor:
    """Undo `_places` for a mask of `size` values."""
    if places.dtype == torch.uint8:
        return unpack(places, (size,))
    mask = torch.zeros(size, dtype=torch.bool)
    mask[places.long()] = True
    return mask


def _digest(packed: Mapping[str, Tensor]) -> Tensor:
    """Return 32 bytes, uint8, that differ if names, types, shapes or bits differ."""
    sha = hashlib.sha256(VERSION)
    for key in sorted(packed):
        if key != DIGEST:
            tensor = packed[key].detach().cpu().contiguous()
            sha.update(f"{key!r} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            sha.update(tensor.flatten().view(torch.uint8).numpy().data)
    return torch.tensor(list(sha.digest()), dtype=torch.uint8)
