"""Which batch fits into a device's memory: found by trying."""

from __future__ import annotations

import copy
import gc
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from debiasbench.common.errors import OutOfMemory
from debiasbench.common.randomness import generator, seeded
from debiasbench.training.distributed import Alone
from debiasbench.training.running import normalises

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.training.running import Running, Stage

    Run = Callable[..., Running]


def is_short(error: BaseException) -> bool:
    """Say whether an error means that memory was short."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("DefaultCPUAllocator", "ALLOC_FAILED", "out of memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def fitting(stage: Stage, run: Run, device: torch.device, processes: int) -> int:
    """Return how many samples of a batch fit at a time: all, or a half, a quarter and so on.

    Warns where BatchNorm will see less than the batch. Raises `OutOfMemory` if not one fits.
    """
    whole = -(-stage.sampler.largest // processes)
    size = _largest(stage, run, device, whole, whole)
    if not size:
        clear(device)
        raise OutOfMemory(
            f"Not even one sample of stage {stage.name!r} fits into {room(device)}. Try a smaller "
            "network, or another device"
        )
    if size < whole and normalises(stage.objective):
        warnings.warn(
            f"Stage {stage.name!r} computes {size} samples of {whole} at a time, and BatchNorm "
            "normalises each part by its own statistics",
            stacklevel=2,
        )
    return size


def shortage(stage: Stage, run: Run, device: torch.device, processes: int) -> OutOfMemory:
    """Return the error for a stage that ran out of memory, with the batch that would fit."""
    clear(device)
    there, asked = room(device), stage.training.micro_batch
    whole = -(-stage.sampler.largest // processes)
    tried = min(asked, whole) if isinstance(asked, int) else whole
    size = _largest(stage, run, device, tried, tried // 2)
    if not size:
        advice = "Try a smaller network, or another device"
    elif asked is not None:
        advice = f"{size} do: --set train.micro_batch={size} takes no more at a time"
    else:
        advice = f"{size} do: --batch-size {size * processes} takes smaller steps"
        if stage.objective.additive:
            advice += ", --batch-size auto keeps them and computes each in parts"
    return OutOfMemory(
        f"Out of memory in stage {stage.name!r}: {tried} samples at a time do not fit into "
        f"{there}. {advice}"
    )


def _largest(stage: Stage, run: Run, device: torch.device, whole: int, size: int) -> int:
    """Return the first of size, size/2, size/4 ... that fits; 0 if none does."""
    least = 1 + normalises(stage.objective)  # BatchNorm needs two
    while size >= least and not _fits(stage, run, device, whole, size):
        size //= 2
    return size if size >= least else 0


def _fits(stage: Stage, run: Run, device: torch.device, whole: int, size: int) -> bool:
    """Take a step of a copy: `whole` samples, `size` at a time."""
    additive = stage.objective.additive  # else a step of `size`
    try:
        with seeded(0):
            trial = replace(stage, objective=copy.deepcopy(stage.objective), components=())
            running = run(trial, None, team=Alone(), micro_batch=size if additive else None)
            index = stage.sampler.epoch(generator(0, "memory"), device)[0]
            running.at.begin(0, 1, device)
            running.before_step(index[: whole if additive else size])
            running.step()
    except (MemoryError, RuntimeError) as error:
        if not is_short(error):
            raise
        return False
    finally:
        clear(device)
    return True


def clear(device: torch.device) -> None:
    """Give back what nobody uses."""
    gc.collect()
    if device.type != "cpu":
        torch.accelerator.empty_cache()


def room(device: torch.device) -> str:
    """What there is of memory, as far as the device says."""
    ask = getattr(torch.get_device_module(device), "mem_get_info", None)
    if ask is None:
        return "memory"
    free, total = ask(device)
    return f"{total / 1e9:.1f} GB of memory, of which {free / 1e9:.1f} GB are free"
