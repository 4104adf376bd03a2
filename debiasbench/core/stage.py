"""What a training stage is and what it leaves: `Stage`, `Trained`, and who makes one of the other.

A `Stage` is complete: whoever holds it can train it, hash it or time it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from debiasbench.core.batches import Batches
    from debiasbench.core.component import Component
    from debiasbench.core.objective import Objective
    from debiasbench.core.settings import Training
    from debiasbench.core.view import HeldOut, View


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """A training stage, before anything is trained.

    `objective`: trained in place, from its present weights. `steps`: optimizer steps, in total.
    `extra`: (N, ...) tensors over the split that batches carry by name. `masks`: what an earlier
    stage left, by parameter name. `select`: whether the selection rules are followed.
    `validation`: the split that they, and the plateau schedule, read after each epoch.
    """

    name: str
    objective: Objective
    view: View
    batches: Batches
    settings: Training
    steps: int
    seed: int
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    components: Sequence[Component] = ()
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    select: bool = True
    validation: HeldOut | None = None

    @property
    def follows(self) -> bool:
        """Whether validation is read after each epoch."""
        return self.select or self.settings.schedule == "plateau"

    def copied(self) -> Stage:
        """Return the same stage with a copy of everything that training changes."""
        objective, components = copy.deepcopy((self.objective, self.components))
        return replace(self, objective=objective, components=components)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights a selection rule keeps."""

    epoch: int  # passes over the data when it was taken, from 1
    value: float  # the rule's validation metric at that epoch; NaN for `last`
    state: dict[str, Tensor]


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
    micro_batch: int | None = None  # samples computed at a time; None: the whole batch


@dataclass(frozen=True, eq=False)
class Trained:
    """Everything a stage leaves: the objective with its last weights, and what every rule keeps.

    `densities`: fraction of active weights by parameter name of the objective, where below 1.
    `masks`: which weights were active after the last step, for a stage that continues. `cost`:
    None for an objective that no stage trained.
    """

    objective: Objective
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    densities: Mapping[str, float] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    cost: StageCost | None = None


class Trainer(Protocol):
    """Whoever turns stages into what they leave; see `debiasbench.training.trainer`."""

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        """Train stages that do not depend on each other; return what each left, in order."""
