"""Export the network of a record in a smaller form: compacted, packed, or for sparse kernels."""

from __future__ import annotations

import io
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from debiasbench.common.errors import RecordError
from debiasbench.common.randomness import generator, seeded
from debiasbench.core.inputs import is_mapping, mapped, tensors
from debiasbench.core.model import Shape
from debiasbench.records.store import read, read_weights, write_bytes
from debiasbench.sparsity import (
    SparsityError,
    compact,
    maskable,
    pack_state,
    to_csr,
    to_semi_structured,
    unpack_state,
)
from debiasbench.specs.resolve import instance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from debiasbench.core.inputs import Inputs
    from debiasbench.core.model import Model
    from debiasbench.records.record import Record
    from debiasbench.specs.plugins import Plugins

Kind = Literal["compact", "packed", "csr", "2:4"]
ENDINGS: dict[Kind, str] = {
    "compact": ".pt2",
    "packed": ".packed.safetensors",
    "csr": ".csr.safetensors",
    "2:4": ".2to4.safetensors",
}
BATCH = 64  # images of a timed forward pass
ROUNDS = 9
TOLERANCE = 1e-4  # largest difference of an output, relative to the largest output
HALF_TOLERANCE = 16 * torch.finfo(torch.float16).eps  # the same in half precision


@dataclass(frozen=True)
class Exported:
    """The file that was written, and what it saves; pairs are (before, after)."""

    path: Path
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    milliseconds: tuple[float, float]  # of a forward pass of `BATCH` samples, medians
    difference: float  # largest difference of a logit, relative to the largest logit
    layers: tuple[str, ...] = ()  # with "csr" and "2:4": those that are faster as sparse matrices


def export(record_path: Path, plugins: Plugins, *, to: Kind, out: Path | None = None) -> Exported:
    """Write the network of a record in a smaller form, after checking its outputs.

    `to`: "compact": without the channels that sparsity made useless, as a program that
    `torch.export.load(...).module()` runs without debiasbench. "packed": only the weights that are
    not 0 and their positions, for `debiasbench.sparsity.unpack_state`. "csr": the same file; it is
    timed with sparse matrices in the layers where they are faster on this machine. To use them,
    call `debiasbench.sparsity.to_csr` with the unpacked network. "2:4": the same file; it is timed
    in half precision on this machine's GPU, dense and with 2:4 kernels in the linear layers where
    they are faster. To use them, call `debiasbench.sparsity.to_semi_structured`.
    `out`: the file to write; by default, a file beside the record.

    Raises `RecordError` if the record has no weights, if the network cannot be made smaller in this
    way, or if outputs would differ.
    """
    record = read(record_path)
    network, shape, content = load_network(record_path, record, plugins)
    model: Model = instance(plugins.models, record.spec.model)
    x = model.example(shape, BATCH, generator(0, "export"))
    masks = {name: p.detach() != 0 for name, p in maskable(network).items()}
    path = out or record_path.with_name(record.spec.stem + ENDINGS[to])
    before, timed, layers = network, x, tuple[str, ...]()
    try:
        if to == "compact":
            compacted = compact(network, masks, mapped(_first, x))
            small, parameters = compacted.model, compacted.parameters
            written = _program(small, x)
        else:
            written = save(pack_state(network.state_dict(), masks, keep_minus_zeros=False))
            small, *_ = load_network(record_path, record, plugins)
            small.load_state_dict(unpack_state(load(written))[0])
            parameters = sum(int((p != 0).sum()) for p in network.parameters())
        if to == "csr":
            converted = to_csr(small, masks, x)
            small = converted.model
            layers = tuple(choice.name for choice in converted.layers if choice.chosen)
        elif to == "2:4":
            before, small, timed, layers = _semi_structured(small, masks, x)
    except SparsityError as error:
        raise RecordError(
            f"{record_path} was not exported: {error}. --to packed does not need this"
        ) from error
    difference = _difference(network, small, x, timed)
    if to == "compact":  # what was written computes the same as `small`
        loaded = torch.export.load(io.BytesIO(written)).module()
        difference = max(difference, _difference(network, loaded, x, x))
    if not difference < (HALF_TOLERANCE if to == "2:4" else TOLERANCE):
        raise RecordError(
            f"{record_path} was not exported: its outputs would differ by {difference:.2g}, "
            "relative to the largest output"
        )
    device = next(iter(tensors(timed).values())).device
    times = _alternating(lambda: before(timed), lambda: small(timed), device)
    write_bytes(path, written)
    total = sum(p.numel() for p in network.parameters())
    sizes = len(content), len(written)
    return Exported(path, (total, parameters), sizes, times, difference, layers)


def _semi_structured(
    network: nn.Module, masks: Mapping[str, Tensor], x: Inputs
) -> tuple[nn.Module, nn.Module, Inputs, tuple[str, ...]]:
    """Return a network in half precision, dense and with 2:4 kernels, an input, and its layers."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    placed = network.to(device or "cpu")
    there = mapped(lambda v: v.to(device or "cpu"), x)
    converted = to_semi_structured(placed, masks, there, dtype=torch.float16)
    layers = tuple(choice.name for choice in converted.layers if choice.chosen)
    half = mapped(lambda v: v.half() if v.is_floating_point() else v, there)
    return placed.half(), converted.model, half, layers


def load_network(
    record_path: Path, record: Record, plugins: Plugins
) -> tuple[nn.Module, Shape, bytes]:
    """Return the network of a record, the shape that it fits, and the content of its file.

    The network is on the CPU and in evaluation mode. Raises `RecordError`.
    """
    content = read_weights(record_path, record)
    model: Model = instance(plugins.models, record.spec.model)
    try:
        facts = json.loads(_metadata(content)["shape"])
        inputs = {name: tuple(one) for name, one in facts.get("inputs", {}).items()}
        shape = Shape(tuple(facts["input"]), facts["classes"], inputs)
        with seeded(0):  # initial values are overwritten
            network = model.skeleton(shape)
        state = load(content)
        _add_bias(model, network, state)
        _check_structure(network, state, record.spec.method.name)
        network.load_state_dict(state)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise RecordError(
            f"The weights beside {record_path} do not fit {model}: {reason}"
        ) from error
    return network.eval(), shape, content


def _check_structure(network: nn.Module, state: Mapping[str, Tensor], method: str) -> None:
    """Raise `ValueError` if a method has returned a network of another structure."""
    if other := sorted(state.keys() ^ network.state_dict().keys()):
        raise ValueError(
            f"method {method} predicts with a network of its own structure, whose weights differ "
            f"({other[0]}{' and more' if len(other) > 1 else ''}). It cannot be exported"
        )


def _add_bias(model: Model, network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a head without bias the bias that a method has added to it, as `dfr` does."""
    if state.keys() <= network.state_dict().keys():
        return
    head = model.head(network)
    name = next((name for name, module in network.named_modules() if module is head), "")
    if head.bias is None and f"{name}.bias".lstrip(".") in state:
        head.bias = nn.Parameter(head.weight.new_zeros(len(head.weight)))


def _metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file: 8 bytes of length, then JSON."""
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return metadata


def _first(x: Tensor) -> Tensor:
    return x[:2].clone()  # an exported file contains the whole storage of its example


def _program(network: nn.Module, x: Inputs) -> bytes:
    """Serialise a network as a program that needs only torch, for batches of any size."""
    with torch.no_grad():
        network(x)  # fills caches, whose tensors are constants of the program
    batch = {0: torch.export.Dim.DYNAMIC}
    sizes = dict.fromkeys(tensors(x), batch) if is_mapping(x) else batch
    program = torch.export.export(network, (mapped(_first, x),), dynamic_shapes=(sizes,))
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


@torch.no_grad()
def _difference(one: nn.Module, two: nn.Module, x: Inputs, for_two: Inputs) -> float:
    """Return the largest difference of an output, relative to the largest; `for_two`: `x` there."""
    expected = one(x)
    actual = two(for_two).to(expected.device, expected.dtype)
    if actual.shape != expected.shape:
        return math.inf
    return float((expected - actual).abs().max() / expected.abs().max().clamp(min=1e-12))


@torch.no_grad()
def _alternating(
    before: Callable[[], object], after: Callable[[], object], device: torch.device
) -> tuple[float, float]:
    """Return the median milliseconds of two functions that are called alternately."""
    times: list[tuple[float, float]] = []
    for _ in range(ROUNDS + 1):
        pair = []
        for call in (before, after):
            begun = time.perf_counter()
            call()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            pair.append(1000 * (time.perf_counter() - begun))
        times.append((pair[0], pair[1]))
    return median(a for a, _ in times[1:]), median(b for _, b in times[1:])
