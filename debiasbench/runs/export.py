"""From a record whose weights were kept to a smaller model: compacted, packed, or CSR."""

from __future__ import annotations

import copy
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from debiasbench.common.errors import RecordError
from debiasbench.common.randomness import generator, seeded
from debiasbench.core.model import Shape
from debiasbench.records.store import read, read_weights, write_bytes
from debiasbench.sparsity import compact, maskable, pack_state, to_csr, unpack_state
from debiasbench.specs.resolve import instance

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from debiasbench.core.model import Model
    from debiasbench.records.record import Record
    from debiasbench.specs.plugins import Plugins

Kind = Literal["compact", "packed", "csr"]
ENDINGS: dict[Kind, str] = {
    "compact": ".pt2",
    "packed": ".packed.safetensors",
    "csr": ".csr.safetensors",
}
BATCH = 64  # images of a timed forward pass
ROUNDS = 9


@dataclass(frozen=True)
class Exported:
    """What was written, and what it saves; pairs are (before, after)."""

    path: Path
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    milliseconds: tuple[float, float]  # of a forward pass of `BATCH` samples, medians
    difference: float  # largest of any logit, relative to the largest logit
    layers: tuple[str, ...] = ()  # with "csr": those that are faster so


def export(place: Path, plugins: Plugins, *, to: Kind, out: Path | None = None) -> Exported:
    """Write the network of the record at `place` in a smaller form, checked before it is written.

    "compact": without the channels that its sparsity made useless, as a program that
    `torch.export.load(...).module()` runs without debiasbench. "packed": weights that are not 0
    and where they are, for `debiasbench.sparsity.unpack_state`. "csr": the same, and timed with
    the layers that are faster here as sparse matrices, which `debiasbench.sparsity.to_csr` makes
    of the unpacked network where it is to run. `out`: instead of a name beside the record.

    Raises `RecordError` if weights were not kept, or the outputs would differ.
    """
    record = read(place)
    network, shape, content = load_network(place, record, plugins)
    x = torch.rand(BATCH, *shape.input, generator=generator(0, "export"))
    masks = {name: p.detach() != 0 for name, p in maskable(network).items()}
    path = out or place.with_name(record.spec.stem + ENDINGS[to])
    if to == "compact":
        compacted = compact(network, masks, x[:2])
        small, parameters = compacted.model, compacted.parameters
        written = _program(small, x)
    else:
        written = save(pack_state(network.state_dict(), masks, keep_minus_zeros=False))
        small = copy.deepcopy(network)
        small.load_state_dict(unpack_state(load(written))[0])
        parameters = sum(int((p != 0).sum()) for p in network.parameters())
    layers: tuple[str, ...] = ()
    if to == "csr":
        converted = to_csr(small, masks, x)
        small = converted.model
        layers = tuple(choice.name for choice in converted.layers if choice.chosen)
    difference = _difference(network, small, x)
    if not difference < 1e-4:
        raise RecordError(f"{place} was not exported: outputs would differ by {difference:.2g}")
    times = _alternating(lambda: network(x), lambda: small(x))
    write_bytes(path, written)
    before = sum(p.numel() for p in network.parameters())
    sizes = len(content), len(written)
    return Exported(path, (before, parameters), sizes, times, difference, layers)


def load_network(place: Path, record: Record, plugins: Plugins) -> tuple[nn.Module, Shape, bytes]:
    """Return the network whose weights were kept beside a record, what it fits, and the file.

    On the CPU and in evaluation mode. Raises `RecordError`.
    """
    content = read_weights(place, record)
    model: Model = instance(plugins.models, record.spec.model)
    try:
        facts = json.loads(_metadata(content)["shape"])
        shape = Shape(tuple(facts["input"]), facts["classes"])
        with seeded(0):  # initial values are overwritten
            network = model.build(shape)
        network.load_state_dict(load(content))
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise RecordError(f"The weights beside {place} do not fit {model}: {reason}") from error
    return network.eval(), shape, content


def _metadata(content: bytes) -> dict[str, str]:
    """Read the header of a safetensors file: 8 bytes of its length, then JSON."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return found


def _program(network: nn.Module, x: Tensor) -> bytes:
    """Serialise a network as a program of torch alone, for batches of any size."""
    batch = {0: torch.export.Dim.DYNAMIC}
    few = x[:2].clone()  # the file holds the memory that its example lies in
    program = torch.export.export(network, (few,), dynamic_shapes=(batch,))
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


@torch.no_grad()
def _difference(one: nn.Module, two: nn.Module, x: Tensor) -> float:
    expected = one(x)
    return float((expected - two(x)).abs().max() / expected.abs().max().clamp(min=1e-12))


@torch.no_grad()
def _alternating(before: Callable[[], object], after: Callable[[], object]) -> tuple[float, float]:
    """Median milliseconds of two calls that take turns."""
    taken: list[tuple[float, float]] = []
    for _ in range(ROUNDS + 1):
        pair = []
        for call in (before, after):
            begun = time.perf_counter()
            call()
            pair.append(1000 * (time.perf_counter() - begun))
        taken.append((pair[0], pair[1]))
    return median(a for a, _ in taken[1:]), median(b for _, b in taken[1:])
