"""Find out by trial how many samples of a batch fit into a device's memory."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from debiasbench.common.errors import OutOfMemory
from debiasbench.common.memory import is_out_of_memory
from debiasbench.common.randomness import generator, seeded
from debiasbench.core.modes import normalises, train_mode
from debiasbench.training.distributed import Alone
from debiasbench.training.memory import clear, describe_memory
from debiasbench.training.step import Step
from debiasbench.training.untrained import untrained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from debiasbench.core.stage import Stage, Trained
    from debiasbench.training.execution import Execution


class Sizing:
    """A trainer that only finds out how many samples of each stage's batches fit into memory.

    `micro_batch`: the smallest number so far; None if all whole batches fit.
    """

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self.micro_batch: int | None = None

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        """Try one step of a copy of each stage; return the objectives untrained.

        Raises `OutOfMemory` if not even one sample fits.
        """
        team = self._execution.team
        for stage in stages:
            with self._execution.numerics(stage.settings.precision).applied():
                size = min(team.gather(fitting(stage, self._execution)))
            if size < _share_of_largest(stage, team.size):
                self.micro_batch = min(size, self.micro_batch or size)
        return [untrained(stage) for stage in stages]


def fitting(stage: Stage, execution: Execution) -> int:
    """Return how many samples of a batch fit at a time: all, a half, a quarter, and so on.

    Warns if BatchNorm will normalise parts of a batch. Raises `OutOfMemory` if no sample fits.
    """
    device = execution.device
    whole = _share_of_largest(stage, execution.team.size)
    train_mode(stage.objective.to(device))
    size = _largest(stage, execution, whole, whole)
    if not size:
        clear(device)
        raise OutOfMemory(
            f"Even the smallest possible batch of stage {stage.name!r} needs more than "
            f"{describe_memory(device)}. Use a smaller network or another device"
        )
    if size < whole and normalises(stage.objective):
        warnings.warn(
            f"Stage {stage.name!r} computes {size} of {whole} samples at a time, so BatchNorm "
            "normalises each part of a batch by its own statistics",
            stacklevel=2,
        )
    return size


def out_of_memory(stage: Stage, execution: Execution) -> OutOfMemory:
    """Return the error for a stage that ran out of memory, with the batch size that would fit."""
    device, processes = execution.device, execution.team.size
    clear(device)
    memory, requested = describe_memory(device), stage.settings.micro_batch
    whole = _share_of_largest(stage, processes)
    tried = min(requested, whole) if isinstance(requested, int) else whole
    size = _largest(stage, execution, tried, tried // 2)
    if not size:
        advice = "Use a smaller network or another device"
    elif requested is not None:
        advice = f"Parts of {size} samples fit: use --set train.micro_batch={size}"
    else:
        advice = f"A batch of {size * processes} fits: use --batch-size {size * processes}"
        if stage.objective.additive:
            advice += (
                ", or --batch-size auto, which keeps the batch size and computes each batch in "
                "parts that fit"
            )
    return OutOfMemory(
        f"Out of memory in stage {stage.name!r}: {tried} samples at a time do not fit into "
        f"{memory}. {advice}"
    )


def _share_of_largest(stage: Stage, processes: int) -> int:
    """Return how many samples of the largest batch one process computes."""
    return -(-stage.batches.largest // processes)


def _largest(stage: Stage, execution: Execution, whole: int, size: int) -> int:
    """Return the first of size, size/2, size/4, ... that fits, or 0."""
    least = min(whole, 1 + normalises(stage.objective))  # BatchNorm needs two samples
    while size >= least and not _fits(stage, execution, whole, size):
        size //= 2
    return size if size >= least else 0


def _hardest(stage: Stage) -> Tensor:
    """Return the largest batch of an epoch.

    Of sequences, return the widest of the largest batches, with its longest sequence first; a batch
    is as wide as its longest sequence.
    """
    width = stage.view.samples.width
    batches = stage.batches.epoch(generator(0, "memory"))
    index = max(batches, key=lambda batch: (len(batch), width(batch)))
    if width(index):
        index = torch.stack(sorted(index, key=lambda one: -width(one[None])))
    return index


def _fits(stage: Stage, execution: Execution, whole: int, size: int) -> bool:
    """Return whether a step on `whole` samples, `size` at a time, fits; tries it on a copy.

    If the loss cannot be computed in parts, the step has `size` samples.
    """
    additive = stage.objective.additive
    device = execution.device
    try:
        with seeded(0):
            trial = replace(stage, objective=copy.deepcopy(stage.objective), components=())
            step = Step(
                trial,
                replace(execution, team=Alone()),
                execution.numerics(stage.settings.precision),
                micro_batch=size if additive else None,
            )
            index = _hardest(stage)
            step.begin_epoch([index[: whole if additive else size]])
            step.load(0, 0)
            step.compute()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        clear(device)
    return True
