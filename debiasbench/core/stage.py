"""A training stage and its result: `Stage`, `Trained`, and `Trainer`, which trains stages.

A `Stage` is complete: it can be trained, hashed or timed without any other information.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from torch import Tensor

    from debiasbench.core.batches import Batches
    from debiasbench.core.component import ComponentLike
    from debiasbench.core.objective import Objective
    from debiasbench.core.settings import Training
    from debiasbench.core.view import HeldOut, View

    EachEpoch = Callable[[int, Objective], "EpochChange | None"]


@dataclass(frozen=True, eq=False)
class Beside:
    """A second stream of batches of a stage: each batch has one of them as `batch.beside`.

    `data`: "train", or "val", which `Supervision(val="inputs")` allows without labels and
    `Supervision(val="fit")` with labels. `batch_size`: samples in each batch; None: as in the
    stage. `weights`, `subset`: as of `Lab.train`. All batches have the same size; the samples are
    shuffled again as often as the stage needs.
    """

    data: Literal["train", "val"] = "train"
    batch_size: int | None = None
    weights: Tensor | None = None
    subset: Tensor | None = None


@dataclass(frozen=True, eq=False)
class EpochChange:
    """What the next epochs of a stage use instead; None leaves it as it is.

    `weights`, `subset`, `extra`: as of `Lab.train`. `extra` may only have names that the stage
    began with. The number of steps of the stage stays the same.
    """

    weights: Tensor | None = None
    subset: Tensor | None = None
    extra: Mapping[str, Tensor] | None = None


@dataclass(frozen=True, eq=False)
class Stream:
    """The samples and batches of a stage's second stream."""

    view: View
    batches: Batches

    def drawn(self, count: int, rng: torch.Generator) -> list[Tensor]:
        """Return `count` batches of equal size, from as many passes as that takes."""
        import torch

        size = self.batches.largest
        passes: list[Tensor] = []
        while sum(len(one) for one in passes) < count * size:
            passes.append(torch.cat(self.batches.epoch(rng, len(passes))))
        return list(torch.split(torch.cat(passes)[: count * size], size))


@dataclass(frozen=True, eq=False)
class OptimizerState:
    """The state that an optimizer of kind `kind` has for each parameter, by its name."""

    kind: str
    values: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """A training stage, before it is trained.

    `objective`: trained in place, from its current weights. `steps`: total number of optimizer
    steps. `extra`: (N, ...) tensors of the split; batches have them as attributes by name.
    `masks`: the masks that an earlier stage left, by parameter name. `select`: whether selection
    rules are followed. `validation`: the split that selection rules and the plateau schedule read
    after each epoch. `beside`: the second stream of batches. `each_epoch`: called after each epoch,
    with the number of epochs so far and the objective; what it returns replaces weights, subset or
    extra tensors. `optimizer`: the optimizer's state to begin with. `keep_optimizer`: whether the
    result has the optimizer's last state.
    """

    name: str
    objective: Objective
    view: View
    batches: Batches
    settings: Training
    steps: int
    seed: int
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    components: Sequence[ComponentLike] = ()
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    select: bool = True
    validation: HeldOut | None = None
    beside: Stream | None = None
    each_epoch: EachEpoch | None = None
    optimizer: OptimizerState | None = None
    keep_optimizer: bool = False

    @property
    def follows(self) -> bool:
        """Whether validation is read after each epoch."""
        return self.select or self.settings.schedule == "plateau"

    def copied(self) -> Stage:
        """Return this stage with copies of everything that training changes."""
        objective, components = copy.deepcopy((self.objective, self.components))
        return replace(self, objective=objective, components=components)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The weights that a selection rule keeps."""

    epoch: int  # after this many epochs, from 1
    value: float  # the rule's validation metric at that epoch; NaN for `last`
    state: dict[str, Tensor]


@dataclass(frozen=True)
class StageCost:
    """What the training of a stage cost."""

    name: str
    epochs: int
    steps: int
    samples: int
    seconds: float
    flops: float  # of training, without validation
    reused: bool = False  # trained by another run; then `seconds` are those of that run
    micro_batch: int | None = None  # samples computed at a time; None: the whole batch
    together: int = 1  # stages of different runs that were trained at once; `seconds` is a share
    eager: str = ""  # why steps were not replayed as a graph; empty if they were, or without graphs


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a stage: the objective with its last weights, and the checkpoints.

    `checkpoints`: the weights that each selection rule keeps, by name of the rule; empty in what
    `lab.train` returns to a method that does not declare to read labels of validation data.
    `densities`: fraction of active weights by parameter name of the objective, where it is below 1.
    `masks`: the active weights after the last step, for a stage that continues. `cost`: None for an
    objective that no stage trained. `curves`: the mean training loss of each epoch as "loss"; if
    validation was read, also "val_loss" and the accuracies as "val_unbiased" and so on. What
    `Lab.train` returns has no curves, since a method must not see validation metrics.
    `optimizer`: the optimizer's last state, if the stage was to keep it.
    """

    objective: Objective
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    densities: Mapping[str, float] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    cost: StageCost | None = None
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    optimizer: OptimizerState | None = None


class Trainer(Protocol):
    """Trains stages; the default is `debiasbench.training.trainer.Sequential`."""

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        """Train stages that do not depend on each other; return their results in order."""
