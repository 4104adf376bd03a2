"""A sparse state dict in as few bytes as its zeros allow, and back again bit for bit.

A packing holds plain tensors, so that safetensors can store it and nothing is ever unpickled. The
tensor `w` of a state becomes one of

    w                                           as it is, without a mask
    w::shape, w::active, w::values              the active values and where they are
    w::shape, ..., w::minus_zeros               the same, and which other values are -0.0
    w::dense                                    all values; active is what is not 0
    w::dense, w::inactive                       all values; active is what is not listed

Places, in the order of a flattened tensor, are bits (uint8, eight a byte; see `masks.pack`) or
indices (int32 or int64), whichever are fewer bytes. `::digest` is the SHA-256 of all the rest.
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
    """Return a state in fewer tensors' bytes, on the CPU; it shares no memory with the state.

    `masks`: bool, by the name of a floating-point tensor, which must be 0 off its mask; tensors
    without one stay as they are. None: all floating-point tensors of two or more dimensions have
    one, and are active where they are not 0.
    `keep_minus_zeros`: whether a -0.0 off a mask comes back as it was, or may come back as 0.0.
    Multiplying weights by a mask makes many, and to tell them from 0.0 costs up to a bit a weight.

    With masks of what is not 0, no tensor takes more bytes than it does dense; a mask under which
    active weights are 0 too may cost a bit a weight on top. The digest is 32 bytes.

    Raises `SparsityError` for masks that do not fit the state, for values off a mask that are not
    0, and for names in the state that a packing uses itself.
    """
    for name in state:
        if name == DIGEST or _part(name):
            raise SparsityError(
                f"A packing gives {name!r} a meaning of its own: rename that tensor of the state"
            )
    if masks is None:
        masks = {
            name: values != 0
            for name, values in state.items()
            if values.dtype in PACKABLE and values.ndim >= 2
        }
    for name in masks:
        if name not in state:
            raise unknown("tensor", name, state)
    packed: dict[str, Tensor] = {}
    for name, values in state.items():
        own = values.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        if name in masks:
            if own.dtype not in PACKABLE:
                raise SparsityError(f"{name} is {own.dtype}, and only floating-point has masks")
            check_mask(name, own, masks[name])
            parts = _packed(own, masks[name].cpu(), keep_minus_zeros)
            packed |= {f"{name}::{part}": tensor for part, tensor in parts.items()}
        else:
            packed[name] = own
    packed[DIGEST] = _digest(packed)
    return packed


def unpack_state(packed: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Undo `pack_state`: return the state and its masks, on the CPU, in memory of their own.

    Raises `SparsityError` unless `packed` is just what `pack_state` returned: a part that is
    missing, added or changed in a single bit is found by the digest.
    """
    if DIGEST not in packed:
        raise SparsityError(f"This is no packed state, or not all of one: it has no {DIGEST!r}")
    if not torch.equal(packed[DIGEST].cpu(), _digest(packed)):
        raise SparsityError(
            f"This packed state of {len(packed)} tensors is damaged: they are not those that its "
            "digest was made of. Read all of it from where it was stored, or pack the state again"
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
    """Return the bytes of all tensors; a safetensors file adds about 100 a tensor for names."""
    return sum(tensor.nbytes for tensor in packed.values())


def _part(key: str) -> str:
    """Return which part of a packed tensor `key` names, "" if none."""
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
    """Undo `_packed`; the digest has vouched for the parts."""
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
    """Bool (N,) -> its bits or the indices of what is True, whichever are fewer bytes."""
    bits = pack(mask)
    index = torch.int32 if len(mask) <= torch.iinfo(torch.int32).max else torch.int64
    if int(mask.sum()) * index.itemsize >= bits.nbytes:
        return bits
    return mask.nonzero()[:, 0].to(index)


def _mask(places: Tensor, size: int) -> Tensor:
    """Undo `_places` for a mask of `size`."""
    if places.dtype == torch.uint8:
        return unpack(places, (size,))
    mask = torch.zeros(size, dtype=torch.bool)
    mask[places.long()] = True
    return mask


def _digest(packed: Mapping[str, Tensor]) -> Tensor:
    """Return 32 bytes, uint8, that differ where names, types, shapes or bits do."""
    found = hashlib.sha256(VERSION)
    for key in sorted(packed):
        if key != DIGEST:
            tensor = packed[key].detach().cpu().contiguous()
            found.update(f"{key!r} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            found.update(tensor.flatten().view(torch.uint8).numpy().data)
    return torch.tensor(list(found.digest()), dtype=torch.uint8)
