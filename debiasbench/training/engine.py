"""The one training loop, and the one place that knows devices."""

from __future__ import annotations

import hashlib
import os
import platform
import resource
import sys
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench.common.errors import Interrupted, OptionError, OutOfMemory, TrainingFailed
from debiasbench.common.processes import started_together
from debiasbench.common.progress import Progress, Silent
from debiasbench.common.randomness import derive, generator, seeded
from debiasbench.core.modes import evaluating
from debiasbench.core.objective import CrossEntropy
from debiasbench.core.stage import Checkpoint, StageCost, Trained
from debiasbench.records.metrics import accuracies
from debiasbench.records.selection import Tracker
from debiasbench.sparsity import Flops, NonFiniteGradient, count_flops
from debiasbench.training import batch_size
from debiasbench.training.distributed import Alone
from debiasbench.training.precision import Arithmetic
from debiasbench.training.running import Running, Sampler, Stage, normalises, taking_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from debiasbench.core.component import Component
    from debiasbench.core.objective import Objective
    from debiasbench.core.settings import Training
    from debiasbench.training.distributed import Team
    from debiasbench.training.placed import HeldOut, View
    from debiasbench.training.precision import Compile, Precision
    from debiasbench.training.stage_store import Kept, Stages

V = TypeVar("V")

EVAL_BATCH = 1024  # large enough that evaluation is bound by arithmetic, small enough for memory


class Engine:
    """Trains and evaluates modules on one device; keeps account of what it cost.

    `stages`: where stages are kept while they run and when they are done; None keeps nothing.
    `compile`, `deterministic`: see `Arithmetic`; `precision` is what predictions are made in, a
    stage says its own. `team`: the processes that train together; the first alone keeps stages.
    """

    def __init__(
        self,
        device: str = "auto",
        progress: Progress | None = None,
        stages: Stages | None = None,
        *,
        precision: Precision | Literal["auto"] = "auto",
        compile: Compile = "off",  # noqa: A002 - what torch calls it
        deterministic: bool = False,
        team: Team | None = None,
    ) -> None:
        self.device = resolve_device(device)
        if deterministic and self.device.type == "cuda":  # read when the first product is computed
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self._arithmetic = partial(
            Arithmetic.on, self.device, compile=compile, deterministic=deterministic
        )
        self.arithmetic = self._arithmetic(precision)
        self.team = team or Alone()
        self._at_once = EVAL_BATCH
        self.kept_in = stages
        self._training = self._stopping = False
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.costs: list[StageCost] = []
        self.densities: dict[str, float] = {}  # of the last stage, by parameter of its objective
        self._progress: Progress = progress or Silent()

    def train(
        self,
        objective: Objective,
        view: View,
        training: Training,
        *,
        seed: int,
        name: str,
        steps: int | None = None,
        weights: Tensor | None = None,
        subset: Tensor | None = None,
        extra: Mapping[str, Tensor] | None = None,
        components: Sequence[Component] = (),
        masks: Mapping[str, Tensor] | None = None,
        validation: HeldOut,
        select: bool = True,
    ) -> Trained:
        """Minimise `objective` over `view`; the contract of a stage stands at `Lab.train`.

        A stage that was trained before is taken up as it was then, one that was interrupted goes
        on where it was. Raises `TrainingFailed` once an epoch is over in which the loss was not
        finite, and `Interrupted` after `stop`.
        """
        self._check_parts(objective, training, name)
        how = self._arithmetic(training.precision)
        sampler = Sampler(len(view), training.batch_size, weights, subset)
        self._check_shares(objective, sampler)
        total = steps or training.epochs * len(sampler)
        how.lay_out(objective.to(self.device))
        _train_mode(objective)
        stage = Stage(
            name, objective, view, training, seed, sampler, total,
            {k: v.to(self.device) for k, v in (extra or {}).items()}, components, masks or {},
        )  # fmt: skip
        follow = select or training.schedule == "plateau"
        keeper = _Keeper(self, validation) if follow else None
        with self._kept(stage, how, weights, subset) as kept:
            done = self.team.tell(None if kept is None else kept.finished())
            if done is not None and (done["followed"] or not select):
                return self._taken_up(objective, done, select=select)
            run = partial(Running, device=self.device, how=how, team=self.team)
            with how.applied(), how.compiled(objective):
                cost = self._within_memory(
                    stage, run, lambda: self._train(stage, run, keeper, kept)
                )
            self.costs.append(cost)
            self.densities = _merged(c.densities() for c in components)
            left = keeper.checkpoints(objective) if keeper is not None and select else {}
            trained = Trained(
                objective, left, self.densities, _merged(c.masks() for c in components)
            )
            if kept is not None:
                kept.finish({**_written(trained, cost), "followed": select})
            return trained

    def stop(self) -> None:
        """Let the stage that is being trained end after the step at hand, to go on another time.

        Raises `Interrupted` at once where none is.
        """
        if not self._training:
            raise Interrupted(resumable=self.kept_in is not None)
        self._stopping = True

    def _within_memory(
        self, stage: Stage, run: Callable[..., Running], train: Callable[[], StageCost]
    ) -> StageCost:
        """Train; where memory runs out, say how much of a batch would fit."""
        try:
            return train()
        except (MemoryError, RuntimeError) as error:
            if "deterministic implementation" in str(error):
                raise OptionError(
                    f"--deterministic: {str(error).partition('.')[0]}. Leave it out here"
                ) from error
            if not batch_size.is_short(error):
                raise
        # out here, what the stage held is free
        raise batch_size.shortage(stage, run, self.device, self.team.size)

    def _train(
        self, stage: Stage, run: Callable[..., Running], keeper: _Keeper | None, kept: Kept | None
    ) -> StageCost:
        """Take every step that is not taken yet, and return what all of them cost."""
        objective, components, team = stage.objective, stage.components, self.team
        sampler, name, total = stage.sampler, stage.name, stage.steps
        found = team.tell(None if kept is None else kept.running())
        if found is not None and found["keeper"] is None and keeper is not None:
            found = None  # of one that followed no selection rules
        micro_batch = stage.training.micro_batch
        if micro_batch == "auto" and found is not None:
            micro_batch = found["micro_batch"]
        elif micro_batch == "auto":
            micro_batch = min(team.gather(batch_size.fitting(stage, run, self.device, team.size)))
        running = run(stage, keeper, micro_batch=micro_batch)
        optimizer, at = running.optimizer, running.at
        drawn = ["modules"] if team.rank == 0 else ["modules", team.rank]
        with (
            self._watched(name, total),
            seeded(derive(stage.seed, *drawn)),
            taking_part(stage, optimizer),
        ):
            if found is not None:
                running.load_state_dict(found)
                for _ in range(at.step):
                    self._progress.advance()
            for epoch in range(at.epoch, -(-total // len(sampler))):
                batches = sampler.epoch(generator(stage.seed, "order", epoch), self.device)
                batches = batches[: total - (at.step - at.batch)]
                at.begin(epoch, len(batches), self.device)
                stage.view.expect(batches[at.batch :])
                for index in batches[at.batch :]:
                    try:
                        running.before_step(index)
                        running.step()
                    except NonFiniteGradient as error:
                        loss = at.check_finite(name, at.batch + 1)
                        raise TrainingFailed(name, at.step, loss, "A gradient") from error
                    running.after_step(len(index))
                    self._progress.advance()
                    self._pause(stage, running, kept)
                at.last_loss, at.batch = at.check_finite(name, len(batches)), 0
                for component in components:
                    component.on_epoch_end(epoch)
                if keeper is not None:
                    eligible = all(component.settled() for component in components)
                    running.schedule.after_epoch(keeper.epoch(objective, epoch + 1, eligible))
        if not is_finite(objective):  # the last step's damage shows in no loss
            raise TrainingFailed(name, at.step - 1, at.last_loss, "A weight")

        each = _training_flops(running.flops, at.counted, components)
        whole = -(-sampler.largest // team.size)
        return StageCost(
            name, epoch + 1, at.step, at.samples, running.seconds(), at.samples * each,
            micro_batch=None if micro_batch is None or micro_batch >= whole else micro_batch,
        )  # fmt: skip

    def _pause(self, stage: Stage, running: Running, kept: Kept | None) -> None:
        """Between two steps: write a checkpoint if one is due, and stop if that was asked for."""
        due = kept is not None and kept.is_due()
        stopping, due = self.team.any(running.at.step, self._stopping, due)
        if self.kept_in is not None and (stopping or due):
            last = running.at.check_finite(stage.name, running.at.batch)
            if not is_finite(stage.objective):  # the checkpoint before stays, which is good
                raise TrainingFailed(stage.name, running.at.step - 1, last, "A weight")
            state = running.state_dict()  # of all processes
            if kept is not None:
                kept.checkpoint(state)
        if stopping:
            raise Interrupted(
                f" in stage {stage.name!r} after {running.at.step} of {stage.steps} steps",
                resumable=self.kept_in is not None,
            )

    def _check_parts(self, objective: Objective, training: Training, stage: str) -> None:
        """Refuse to cut the batches of a loss that is no mean over samples."""
        if self.team.size == 1 and training.micro_batch is None:
            return
        what = "train.micro_batch" if self.team.size == 1 else "torchrun"
        if not objective.additive:
            raise OptionError(
                f"{what}: the loss of stage {stage!r} ({type(objective).__name__}) depends on the "
                "batch as a whole, so that it cannot be computed in parts. Leave it out, or try a "
                "smaller --batch-size"
            )
        if training.micro_batch is not None and self.arithmetic.compile == "graphs":
            raise OptionError(
                "--compile graphs writes over the gradients of one part with those of the next. "
                "Use --compile on"
            )

    def _check_shares(self, objective: Objective, sampler: Sampler) -> None:
        """Refuse batches of which a process would have too little for BatchNorm."""
        size = self.team.size
        if size > 1 and sampler.smallest < 2 * size and normalises(objective):
            raise OptionError(
                f"torchrun: the smallest batch of an epoch has {sampler.smallest} samples, and "
                f"BatchNorm needs two for each of {size} processes. Change --batch-size a little"
            )

    @contextmanager
    def _kept(
        self, stage: Stage, how: Arithmetic, weights: Tensor | None, subset: Tensor | None
    ) -> Iterator[Kept | None]:
        """Hold the place where the stage is kept, if there is one and this process writes."""
        if self.kept_in is None or self.team.rank:
            yield None
            return
        objective, components = stage.objective, stage.components
        identities = [getattr(component, "identity", None) for component in components]
        what = {
            "objective": f"{type(objective).__module__}.{type(objective).__qualname__}",
            "modules": repr(objective),
            "state": _hash(objective.state_dict()),
            "labels": _hash(stage.view.labels),
            "training": asdict(stage.training),
            "arithmetic": [asdict(how), asdict(self.arithmetic), self.team.size],
            "seed": stage.seed,
            "steps": stage.steps,
            "drawn": _hash({"weights": weights, "subset": subset}),
            "extra": _hash(stage.extra),
            "masks": _hash(stage.masks),
            "components": [identity or type(c).__qualname__ for identity, c in
                           zip(identities, components, strict=True)],
        }  # fmt: skip
        # what else might decide a stage is known of these alone
        shared = type(objective) is CrossEntropy and None not in identities
        shared &= stage.training.micro_batch != "auto"  # what fits now need not fit then
        hooked = any(m._forward_hooks or m._forward_pre_hooks for m in objective.modules())
        with self.kept_in.open(stage.name, what, shared=shared and not hooked) as kept:
            yield kept

    def _taken_up(self, objective: Objective, done: Mapping[str, Any], *, select: bool) -> Trained:
        """Give the objective what the same stage left it with another time."""
        assert self.kept_in is not None
        objective.load_state_dict(done["objective"])
        self.densities = dict(done["densities"])
        self.costs.append(StageCost(**done["cost"], reused=done["run"] != self.kept_in.run))
        checkpoints = {
            rule: Checkpoint(epoch, value, {n: v.to(self.device) for n, v in state.items()})
            for rule, (epoch, value, state) in (done["checkpoints"] if select else {}).items()
        }
        masks = {name: mask.to(self.device) for name, mask in done["masks"].items()}
        return Trained(objective, checkpoints, self.densities, masks)

    @contextmanager
    def _watched(self, stage: str, steps: int) -> Iterator[None]:
        self._progress.start(stage, steps)
        self._training = True
        try:
            yield
        finally:
            self._training = False
            self._progress.finish()

    @torch.no_grad()
    def predict(self, objective: Objective, view: View) -> Tensor:
        """(N, C) logits over a view, on the device, in evaluation mode and without augmentation."""
        return self._over(objective, view, objective.predict)

    @torch.no_grad()
    def features(self, objective: Objective, head: nn.Linear, view: View) -> Tensor:
        """(N, D) inputs of the network's head over a view, on the device."""
        taken: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda _m, args: taken.append(args[0].flatten(1)))
        try:
            return self._over(objective, view, lambda x: (objective.network(x), taken.pop())[1])
        finally:
            handle.remove()

    def _over(
        self, objective: Objective, view: View, compute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """(N, ...) float32 of `compute` over a view; the processes of a team take turns."""
        self.arithmetic.lay_out(objective.to(self.device))
        while True:
            try:
                return self._over_parts(objective, view, compute)
            except (MemoryError, RuntimeError) as error:
                if not batch_size.is_short(error) or self.team.size > 1:
                    raise
            batch_size.clear(self.device)
            if self._at_once == 1:
                raise OutOfMemory(
                    f"Not even one sample can be predicted within {batch_size.room(self.device)}. "
                    "Try a smaller network, or another device"
                )
            self._at_once //= 2

    def _over_parts(
        self, objective: Objective, view: View, compute: Callable[[Tensor], Tensor]
    ) -> Tensor:
        how, team = self.arithmetic, self.team
        done: list[Tensor] = []
        with evaluating(objective), how.applied(), how.autocast(self.device):
            for turn, part in enumerate(_parts(view, self._at_once)):
                if turn % team.size == team.rank or not done:  # the first tells all the shape
                    found = compute(how.laid_out(view.inputs(part)))
                    # a replayed graph writes over what it returned before
                    values = found.to(torch.float32, copy=how.compile == "graphs")
                    if turn % team.size != team.rank:
                        values = torch.zeros_like(values)
                else:
                    values = done[0].new_zeros(_length(view, part), *done[0].shape[1:])
                done.append(values)
        return team.sum(torch.cat(done))

    def hits(self, logits: Tensor, view: View, groups: int) -> list[int]:
        """(G,) correctly classified samples per group."""
        right = logits.argmax(1) == view.labels["y"]
        return view.labels["group"][right].bincount(minlength=groups).tolist()

    def flops(self, objective: Objective, view: View) -> tuple[float, dict[str, float]]:
        """Forward FLOPs of predicting one sample, in all and by parameter name, dense."""
        with evaluating(objective.to(self.device)), count_flops(objective) as counted:
            objective.predict(view.inputs(slice(1)))  # gradients on: no fused path hides operations
        return counted.total, counted.by_parameter

    def peak_memory(self) -> int:
        """Bytes: the device's peak allocation, on the CPU the process's peak resident size."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

    def hardware(self) -> str:
        """Name of the device."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{_cpu_name()}, {torch.get_num_threads()} threads"

    def deterministic(self) -> bool:
        """Say whether equal runs give equal bits here: on a CPU always, elsewhere if asked to."""
        return self.arithmetic.deterministic or self.device.type == "cpu"


def resolve_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is an accelerator if there is one.

    Raises `OptionError` for one that is not there.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return _own(accelerator or torch.device("cpu"))
    try:
        device = _own(torch.device(name))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise OptionError(
            f"--device {name}: {reason}. --device auto takes what is there"
        ) from error
    return device


def _own(device: torch.device) -> torch.device:
    """Return the device of this process where several were started on a machine."""
    if device.type == "cpu" or device.index is not None or not started_together():
        return device
    own = torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))
    torch.accelerator.set_device_index(own)
    return own


def _parts(view: View, size: int) -> Iterator[slice]:
    """Consecutive pieces of a view: slices are views of memory, indices would copy it."""
    return (slice(at, at + size) for at in range(0, len(view), size))


def _length(view: View, part: slice) -> int:
    return len(range(*part.indices(len(view))))


class _Keeper:
    """Validates after each epoch and keeps the weights that each selection rule chooses."""

    def __init__(self, engine: Engine, validation: HeldOut) -> None:
        self._engine, self._validation = engine, validation
        self._tracker = Tracker()
        self._states: dict[str, dict[str, Tensor]] = {}

    def epoch(self, objective: Objective, epoch: int, eligible: bool) -> float:
        """Look at the validation split once; return its mean cross-entropy.

        An epoch that is not `eligible` is kept by the rule `last` alone.
        """
        view = self._validation.view
        logits = self._engine.predict(objective, view)
        hits = self._engine.hits(logits, view, len(self._validation.totals))
        counts = accuracies(self._validation.counts(hits)) if eligible else {}
        improved = self._tracker.update(epoch, counts)
        if improved != ["last"]:
            self._states |= dict.fromkeys(improved, _copy_state(objective))
        return F.cross_entropy(logits, view.labels["y"]).item()

    def state_dict(self) -> dict[str, object]:
        """Return all that is needed to go on."""
        return {"best": self._tracker.best, "states": self._states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state again."""
        self._tracker.best = dict(state["best"])
        device = self._engine.device
        self._states = {
            rule: {n: v.to(device) for n, v in kept.items()}
            for rule, kept in state["states"].items()
        }

    def checkpoints(self, objective: Objective) -> dict[str, Checkpoint]:
        """Return what every rule keeps; `last` is what the objective holds now."""
        states = self._states | {"last": _copy_state(objective)}
        return {
            rule: Checkpoint(epoch, value, states[rule])
            for rule, (epoch, value) in self._tracker.best.items()
        }


def is_finite(module: nn.Module) -> bool:
    """Say whether no parameter or buffer is NaN or infinite."""
    return all(bool(value.isfinite().all()) for value in module.state_dict().values())


def _train_mode(module: nn.Module) -> None:
    """Training mode, but for what is frozen: BatchNorm there keeps its statistics too."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            part.eval()


def _training_flops(first: Flops, batch: int, components: Sequence[Component]) -> float:
    """FLOPs of training on one sample; `first` counted the forward pass of a batch, dense."""
    layers = {parameter: f / batch for parameter, f in first.by_parameter.items()}
    # forward, input gradient and weight gradient cost alike (Evci et al., 2020, appendix H)
    return 3 * first.total / batch - sum(c.saved_flops(layers) for c in components)


def _merged(parts: Iterable[Mapping[str, V]]) -> dict[str, V]:
    """Join what components say; they never speak of the same weight."""
    return {name: value for part in parts for name, value in part.items()}


def _written(trained: Trained, cost: StageCost) -> dict[str, object]:
    """Put what a stage left as a checkpoint holds it; `Engine` takes it up again."""
    return {
        "objective": trained.objective.state_dict(),
        "checkpoints": {
            rule: (kept.epoch, kept.value, kept.state) for rule, kept in trained.checkpoints.items()
        },
        "densities": dict(trained.densities),
        "masks": dict(trained.masks),
        "cost": {k: v for k, v in asdict(cost).items() if k != "reused"},
    }


def _hash(tensors: Mapping[str, Tensor | None]) -> str:
    """A digest of named tensors; equal tensors, equal digest."""
    sha = hashlib.sha256()
    for name, tensor in tensors.items():
        sha.update(f"{name} {None if tensor is None else (tensor.shape, tensor.dtype)}".encode())
        if tensor is not None and tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _copy_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
