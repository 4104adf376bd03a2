"""What a training stage leaves: weights, what each selection rule keeps of them, and the cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from debiasbench.core.objective import Objective


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights a selection rule keeps."""

    epoch: int  # passes over the data when it was taken, from 1
    value: float  # the rule's validation metric then; NaN for `last`
    state: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Trained:
    """What a stage leaves: the objective with its last weights, and what every rule keeps."""

    objective: Objective
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    densities: Mapping[str, float] = field(default_factory=dict)  # by parameter of the objective
    masks: Mapping[str, Tensor] = field(default_factory=dict)  # the last, for a stage that goes on


@dataclass(frozen=True)
class StageCost:
    """What a stage took."""

    name: str
    epochs: int
    steps: int
    samples: int
    seconds: float
    flops: float  # of training, validation not counted
    reused: bool = False  # trained by another run, whose seconds these are
    micro_batch: int | None = None  # samples computed at a time, where it is not the whole batch
