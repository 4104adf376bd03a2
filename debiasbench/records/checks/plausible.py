"""Costs that no machine can have (W01)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from debiasbench.records.record import Cost, Record

FASTEST = 5e15  # FLOP/s of one device; an NVIDIA B200 has 2.25e15 for dense products in bf16
FASTEST_CPU = 2e13  # FLOP/s; 128 cores with 64 products a cycle at 2.5 GHz have 2.05e13
LEAST = 1e-3  # of three forward passes per sample, for a stage that trains only a part of a network
OFF = 0.01  # relative difference; two rates that differ more are not the same


def implausible(record: Record) -> Iterator[str]:
    """Yield each part of the cost of a record that is impossible."""
    cost = record.cost
    if cost is None:
        return
    fastest = FASTEST_CPU if record.provenance.device == "cpu" else FASTEST
    processes = record.provenance.arithmetic.get("processes", 1)
    fastest *= processes if isinstance(processes, int) and processes > 0 else 1
    samples = 0.0
    for stage in cost.stages:
        if not all(isinstance(stage.get(k), int | float) for k in ("seconds", "flops", "samples")):
            return  # an older record
        samples += stage["samples"]
        yield from _stage(stage, cost, fastest, record.provenance.hardware)
    if cost.training_seconds > 0 and samples:
        expected = samples / cost.training_seconds
        if abs(cost.images_per_second - expected) > OFF * expected:
            yield (
                f"images_per_second is {cost.images_per_second:.6g}, but {samples:,.0f} samples in "
                f"{cost.training_seconds:.6g} seconds are {expected:.6g}"
            )


def _stage(stage: dict[str, Any], cost: Cost, fastest: float, hardware: str) -> Iterator[str]:
    name, seconds = stage.get("name"), stage["seconds"]
    flops, samples = stage["flops"], stage["samples"]
    if samples > 0 and seconds <= 0:
        yield f"stage {name!r} used {samples:,} samples in {seconds} seconds"
    elif flops > 0 and seconds <= 0:
        yield f"stage {name!r} computed {flops:.3g} FLOPs in {seconds} seconds"
    elif seconds > 0 and flops > fastest * seconds:
        yield f"stage {name!r} computed {flops / seconds:.3g} FLOP/s, more than {hardware} can"
    if flops < LEAST * 3 * cost.inference_flops * samples:
        yield (
            f"stage {name!r} computed {flops:.3g} FLOPs for {samples:,} samples, but the network "
            f"needs {cost.inference_flops:.3g} for the prediction of one"
        )
