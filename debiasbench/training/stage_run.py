"""`StageRun`: takes the steps of a stage in order, and has the state that resuming needs."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from debiasbench.common.errors import (
    OptionError,
    PluginError,
    PredictionFailed,
    TrainingFailed,
)
from debiasbench.common.randomness import generator, global_state, set_global_state
from debiasbench.common.seeds import derive
from debiasbench.common.signals import check
from debiasbench.core.batches import Batches
from debiasbench.core.modes import is_finite
from debiasbench.core.stage import StageCost, Trained
from debiasbench.sparsity import NonFiniteGradient, NotAttached
from debiasbench.sparsity.guards import check_reported
from debiasbench.sparsity.names import named_parameters
from debiasbench.training.capture import replays
from debiasbench.training.optimizers import optimizer_state
from debiasbench.training.position import Position
from debiasbench.training.step import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from torch.optim import Optimizer

    from debiasbench.core.component import ComponentLike
    from debiasbench.core.stage import OptimizerState, Stage
    from debiasbench.training.execution import Execution
    from debiasbench.training.graph import Graph, Replays
    from debiasbench.training.precision import Numerics
    from debiasbench.training.rules import FollowedRules


V = TypeVar("V")


class StageRun:
    """Trains a stage step by step; the caller decides how many steps are taken.

    `rules`: the selection rules that are followed after each epoch; None follows no rules.
    `after_epoch`: called with the epoch, from 1, the number of epochs, and the values of the epoch
    that `Trained.curves` collects. `random`: the global generators of this stage.
    """

    def __init__(
        self,
        stage: Stage,
        execution: Execution,
        numerics: Numerics,
        *,
        rules: FollowedRules | None = None,
        micro_batch: int | None = None,
        observe: Callable[[str], None] | None = None,
        after_epoch: Callable[[int, int, Mapping[str, float]], None] | None = None,
    ) -> None:
        self.together = 1  # stages that are trained at once and share the time
        self._begun = time.perf_counter()
        self.stage, self._rules = stage, rules
        self._execution = execution
        self._micro_batch = micro_batch
        observing = {} if observe is None else {"observe": observe}
        self.step = Step(stage, execution, numerics, micro_batch, **observing)
        self.random = self.step.random
        self.at = Position(self.step.losses)
        self.computed_by: Replays | None = None
        self._graphs = numerics.graphs
        self._after_epoch = after_epoch
        self._batches_now = stage.batches  # `each_epoch` may replace them
        self._changed: dict[str, Any] = {}  # what `each_epoch` returned: weights, subset, extra
        self._curves: dict[str, list[float]] = {}  # name -> a value for each epoch

    @property
    def follows(self) -> bool:
        """Whether selection rules are followed."""
        return self._rules is not None

    @contextmanager
    def started(self) -> Iterator[None]:
        """Start the components inside the context."""
        with ExitStack() as stack:
            with self.random.active():
                stack.enter_context(_components(self.stage, self.step.optimizer))
            yield

    def turns(self) -> Iterator[bool]:
        """Take all remaining steps, except that the caller computes them.

        Yields True when a step is loaded, which must then be computed, and False when the step is
        over. Raises `TrainingFailed` at the end of an epoch in which a loss was not finite. If the
        computation raises `NonFiniteGradient`, `not_finite` is the error of the stage.
        """
        stage, at, step = self.stage, self.at, self.step
        self._begun = time.perf_counter()
        epochs = stage.batches.epochs(stage.steps)  # more, if `each_epoch` makes them shorter
        batches = self._batches(at.epoch)
        while True:
            before = at.step - at.batch
            batches = batches[: stage.steps - before]
            step.begin_epoch(batches, at.batch, number=before, epoch=at.epoch)
            while at.batch < len(batches):
                check()  # `StageTraining` holds it, to write a checkpoint first
                with self._on_host():
                    step.load(at.step, at.batch)
                yield True
                try:
                    with self._on_host():
                        step.settle()
                except NonFiniteGradient as error:
                    raise self.not_finite() from error
                at.advance(step.samples)
                yield False
            over = at.step == stage.steps
            if not over and stage.each_epoch is None:
                batches = self._batches(at.epoch + 1)  # while the device is still busy
            with self.random.active():
                self._end_epoch(at.epoch, max(epochs, at.epoch + 1))
            if over:
                return
            at.epoch += 1
            if stage.each_epoch is not None:
                batches = self._batches(at.epoch)

    def steps(self, new_graph: Callable[[], Graph] | None = None) -> Iterator[int]:
        """Take all remaining steps; after each, yield the number of steps taken so far.

        `new_graph`: see `Replays`. Raises errors as `turns` does.
        """
        replays = self.replays(new_graph)
        for loaded in self.turns():
            if not loaded:
                yield self.at.step
                continue
            for error in replays.compute(self.step.shape, eager=self.step.eager).values():
                if isinstance(error, NonFiniteGradient):
                    raise self.not_finite() from error
                raise error

    def replays(self, new_graph: Callable[[], Graph] | None) -> Replays:
        """Return what computes the steps; see `Replays`. It is kept as `computed_by`."""
        self.computed_by = replays([self.step], [self.stage], new_graph if self._graphs else None)
        return self.computed_by

    def not_finite(self) -> TrainingFailed:
        """Return the error of a gradient that is not finite; raises that of a loss before it."""
        at, name = self.at, self.stage.name
        return TrainingFailed(name, at.step, at.check_finite(name, at.batch + 1), "A gradient")

    def _on_host(self) -> AbstractContextManager[None]:
        """Let components that draw random numbers find the generators of this stage.

        With graphs, only those of a step that an update follows do so; it saves time.
        """
        return self.random.active() if not self._graphs or self.step.eager else nullcontext()

    def _batches(self, epoch: int) -> list[Tensor]:
        return self._batches_now.epoch(generator(self.stage.seed, "order", epoch), epoch)

    def _end_epoch(self, epoch: int, epochs: int) -> None:
        """Validate, and read the results of the epoch from the device, all at once."""
        stage, at, rules = self.stage, self.at, self._rules
        losses, measured = at.losses[: at.batch].double(), None
        try:
            for component in stage.components:
                component.on_epoch_end(epoch)
            if rules is not None:
                measured = rules.measure(stage.objective, self.random)
        except Exception:
            at.check_finite(stage.name, at.batch)  # a loss that is not finite comes before
            raise
        host = losses.cpu() if measured is None else torch.cat([losses, measured]).cpu()
        values = {"loss": at.end_epoch(stage.name, host[: len(losses)])}
        if rules is not None:
            eligible = all(component.settled() for component in stage.components)
            try:
                found = host[len(losses) :].tolist()
                values |= rules.follow(stage.objective, epoch + 1, found, eligible=eligible)
            except PredictionFailed as error:
                raise PredictionFailed(stage.name, at.step - 1) from error
            self.step.schedule.after_epoch(values["val_loss"])
        for name, value in values.items():
            self._curves.setdefault(name, []).append(value)
        if self._after_epoch is not None:
            self._after_epoch(epoch + 1, epochs, values)
        if stage.each_epoch is not None:
            change = stage.each_epoch(epoch + 1, stage.objective)
            if change is not None:
                self._change({n: v for n, v in vars(change).items() if v is not None})

    def _change(self, change: Mapping[str, Any]) -> None:
        """Use other weights, another subset or other extra tensors from the next epoch on."""
        extra = {**self._changed.get("extra", {}), **change.get("extra", {})}
        self._changed |= {**change, **({"extra": extra} if extra else {})}
        self.step.replace_extra(extra)
        if not {"weights", "subset"} & self._changed.keys():
            return  # batches of the method's own stay, too
        first = self.stage.batches
        self._batches_now = Batches(
            len(self.stage.view),
            first.batch_size,
            self._changed.get("weights", first.weights),
            self._changed.get("subset", first.subset),
        )

    def check_finite(self) -> None:
        """Raise `TrainingFailed` if a loss of this epoch or a weight is not finite."""
        at, name = self.at, self.stage.name
        last = at.check_finite(name, at.batch) if at.batch else at.last_loss
        if not is_finite(self.stage.objective):  # no loss shows the effect of the last step
            raise TrainingFailed(name, at.step - 1, last, "A weight")

    def trained(self) -> Trained:
        """Return the result of the stage, after its last step."""
        stage = self.stage
        checkpoints = {}
        if self._rules is not None and stage.select:
            checkpoints = self._rules.checkpoints(stage.objective)
        kept = self._kept_masks()
        masks = kept | _merged(component.masks() for component in stage.components)
        densities = {name: int(mask.sum()) / mask.numel() for name, mask in kept.items()}
        densities |= _merged(component.densities() for component in stage.components)
        try:
            check_reported(stage.objective, masks, densities)
        except NotAttached as error:
            raise PluginError(
                f"The density of stage {stage.name!r} is not the one that would be recorded: "
                f"{error}. Weights of a sparse stage may only change by its optimizer"
            ) from error
        return Trained(
            stage.objective,
            checkpoints,
            densities,
            masks,
            cost=self._cost(),
            curves=self._curves,
            optimizer=self._kept_state() if stage.keep_optimizer else None,
        )

    def _kept_state(self) -> OptimizerState:
        stage = self.stage
        return optimizer_state(self.step.optimizer, stage.objective, stage.settings.optimizer)

    def _kept_masks(self) -> dict[str, Tensor]:
        """Return masks of an earlier stage that the weights still keep, as frozen layers do."""
        weights = dict(named_parameters(self.stage.objective))
        return {
            name: mask
            for name, mask in self.stage.masks.items()
            if name in weights and not bool((weights[name].detach() * ~mask).any())
        }

    def _cost(self) -> StageCost:
        stage, at, size = self.stage, self.at, self._execution.team.size
        whole = -(-stage.batches.largest // size)
        parts = self._micro_batch
        return StageCost(
            name=stage.name,
            epochs=at.epoch + 1,
            steps=at.step,
            samples=at.samples,
            seconds=self._seconds(),
            flops=at.samples * self._flops_per_sample(),
            micro_batch=None if parts is None or parts >= whole else parts,
            together=self.together,
            eager="" if self.computed_by is None else self.computed_by.reason,
        )

    def _flops_per_sample(self) -> float:
        """Return the FLOPs of training on one sample, from those of the first forward pass."""
        flops, counted = self.step.flops, self.step.counted
        layers = {parameter: f / counted for parameter, f in flops.by_parameter.items()}
        saved = sum(component.saved_flops(layers) for component in self.stage.components)
        # forward pass, input gradients and weight gradients cost the same (Evci et al., 2020,
        # appendix H); frozen weights have no gradients, nor have inputs that need none
        frozen = sum(
            cost + flops.by_parameter[name] - flops.input_gradients[name]
            for name, cost in flops.frozen.items()
            if cost
        )
        return (3 * flops.total - frozen - self._saved_in_frozen()) / counted - saved

    def _saved_in_frozen(self) -> float:
        """Return what sparsity saves of the FLOPs of frozen layers, in the first forward pass.

        No component masks a layer that is frozen, but its weights have the zeros of an earlier
        stage.
        """
        flops, stage = self.step.flops, self.stage
        if not stage.masks and not any(component.masks() for component in stage.components):
            return 0.0
        weights = dict(named_parameters(stage.objective))
        return sum(
            (1 - int(weights[name].count_nonzero()) / weights[name].numel())
            * (flops.by_parameter[name] + flops.input_gradients[name])
            for name, cost in flops.frozen.items()
            if cost and name in weights
        )

    def _seconds(self) -> float:
        """Return the seconds spent so far, including those before a restart."""
        return self.at.seconds + self.share

    @property
    def curves(self) -> Mapping[str, list[float]]:
        """The values of the epochs so far."""
        return self._curves

    @property
    def share(self) -> float:
        """Seconds since the start or restart, divided among the stages that are trained at once."""
        return (time.perf_counter() - self._begun) / self.together

    def state_dict(self) -> dict[str, object]:
        """Return everything that resuming bit for bit needs, from all processes of the team."""
        with self.random.active():
            return self._state()

    def _state(self) -> dict[str, object]:
        stage = self.stage
        return {
            "objective": stage.objective.state_dict(),
            **self.step.state_dict(),
            "components": [component.state_dict() for component in stage.components],
            "rules": None if self._rules is None else self._rules.state_dict(),
            "random": self._execution.team.gather(_random_state(self._execution.device)),
            "generators": self._execution.team.gather(global_state()),
            "flops": asdict(self.step.flops),
            "curves": self._curves,
            "changed": self._changed,
            "at": {**self.at.state_dict(self._seconds()), "counted": self.step.counted},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state, inside `started`."""
        with self.random.active():
            self._load(state)

    def _load(self, state: Mapping[str, Any]) -> None:
        stage = self.stage
        stage.objective.load_state_dict(state["objective"])
        self.step.load_state_dict(state)
        for component, own in zip(stage.components, state["components"], strict=True):
            component.load_state_dict(own)
        if self._rules is not None:
            self._rules.load_state_dict(state["rules"])
        rank = self._execution.team.rank
        _set_random_state(self._execution.device, state["random"][rank])
        set_global_state(state["generators"][rank])
        vars(self.step.flops).update(state["flops"])
        # a run that follows no rules must not keep validation results of one that does
        names = state["curves"] if self._rules is not None else ["loss"]
        self._curves = {name: list(state["curves"].get(name, [])) for name in names}
        if state["changed"]:
            self._change(state["changed"])
        self.at.load_state_dict(state["at"])
        self.step.counted = self.at.counted


@contextmanager
def _components(stage: Stage, optimizer: Optimizer) -> Iterator[None]:
    """Start the components of a stage, and end them when the context ends, also by an error."""
    started: list[ComponentLike] = []
    try:
        for component in stage.components:
            component.on_start(
                stage.objective,
                optimizer,
                steps=stage.steps,
                steps_per_epoch=len(stage.batches),
                seed=derive(stage.seed, "components"),
                masks=stage.masks,
            )
            started.append(component)
        _check_disjoint(stage.components)
        yield
    finally:
        for component in started:
            component.on_end()


def _check_disjoint(components: Sequence[ComponentLike]) -> None:
    """Raise `OptionError` if two components make the same weights sparse."""
    sparse: set[str] = set()
    for component in components:
        names = component.densities().keys()
        if both := sorted(sparse & names):
            raise OptionError(
                f"Two components make {both[0]} sparse: the method makes networks sparse itself, "
                "so leave out --sparse"
            )
        sparse |= names


def _merged(parts: Iterable[Mapping[str, V]]) -> dict[str, V]:
    """Merge the mappings of components, whose parameter names are disjoint."""
    return {name: value for part in parts for name, value in part.items()}


def _random_state(device: torch.device) -> list[Tensor]:
    """Return the states of torch's global generators, which modules such as dropout use."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device))
    return states


def _set_random_state(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1], device)
