"""The one step: what `compute` may do, and what changes in place so that it can be replayed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from debiasbench.core.objective import CrossEntropy
from debiasbench.core.settings import Training
from debiasbench.core.stage import Stage, Trained
from debiasbench.sparsity import RigL, Sparsify
from debiasbench.training.optimizers import Schedule, make_optimizer
from debiasbench.training.stage_run import StageRun
from debiasbench.training.step import Step
from tests.training.stages import ON_CPU, Flat, fit_toy, make_stage

SETTINGS = Training(epochs=4, batch_size=16, lr=0.05)
METHODS = ["erm", "upweight", "groupdro", "jtt", "lff", "dfr", "rest"]
SPARSIFIERS = ["static", "set", "rigl", "itop", "snfs", "gmp", "granet", "mest", "srigl"]


class NoWaiting(TorchDispatchMode):
    """Refuses what reads a value back from the device, or has a size that depends on values."""

    READS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "item")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            value is not None and value.dtype == torch.bool
            for value in (args[1] if isinstance(args[1], (list, tuple)) else [])
        )
        waits = name in self.READS or by_mask
        assert not waits, f"compute waits for the device in {name}"
        return func(*args, **(kwargs or {}))


def watch_steps(stage: Stage) -> Trained:
    """Train a stage; in each step without an update, `compute` reads nothing and keeps nothing."""
    run = StageRun(stage, ON_CPU, ON_CPU.numerics(stage.settings.precision))
    compute = Step.compute

    def watched(step: Step) -> None:
        plain = step.counted > 0 and not any(step._follows)
        if not plain:
            compute(step)
            return
        before = dict(vars(step))
        with NoWaiting():
            compute(step)
        changed = [name for name, value in vars(step).items() if value is not before[name]]
        assert changed == []

    with pytest.MonkeyPatch.context() as patch, run.started():
        patch.setattr(Step, "compute", watched)
        assert len(list(run.steps())) == stage.steps
    return run.trained()


class Watching:
    """A trainer that watches every step."""

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        return [watch_steps(stage) for stage in stages]


@pytest.mark.parametrize(
    ("method", "sparse"),
    [(method, None) for method in METHODS] + [("erm", sparse) for sparse in SPARSIFIERS],
)
def test_compute_neither_waits_for_the_device_nor_keeps_python_state(
    method: str, sparse: str | None
) -> None:
    fit_toy(Watching(), ON_CPU, SETTINGS, method, sparse)


def test_masks_are_allocated_once_and_change_in_place() -> None:
    component = Sparsify(RigL(density=0.3, every="3"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 2))
    stage = make_stage(CrossEntropy(network), training=SETTINGS, components=[component])
    run = StageRun(stage, ON_CPU, ON_CPU.numerics())
    with run.started():
        assert component.training is not None
        masks = dict(component.training.masks)
        first = {name: mask.clone() for name, mask in masks.items()}
        for _ in run.steps():
            assert all(component.training.masks[name] is mask for name, mask in masks.items())
    assert component.training.updates > 5
    assert any(not torch.equal(first[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize("warmup", [0.0, 0.4])
@pytest.mark.parametrize("schedule", ["cosine", "step", "plateau", "linear", "constant"])
def test_the_learning_rate_can_live_in_a_tensor_that_schedules_change_in_place(
    schedule: Any, warmup: float
) -> None:
    training = Training(epochs=6, lr=1.0, schedule=schedule, warmup=warmup)

    def rates(tensor: bool) -> list[float]:
        parameter = nn.Parameter(torch.zeros(1))
        optimizer = make_optimizer([parameter], training, tensor_lr=tensor)
        lr = optimizer.param_groups[0]["lr"]
        plan = Schedule(optimizer, training, steps=12, steps_per_epoch=2)
        seen = []
        for step in range(12):
            seen.append(float(optimizer.param_groups[0]["lr"]))
            parameter.grad = torch.ones(1)
            optimizer.step()
            plan.after_step()
            if step % 2:
                plan.after_epoch(val_loss=1.0)
        assert optimizer.param_groups[0]["lr"] is lr or not tensor
        return seen

    assert rates(tensor=True) == pytest.approx(rates(tensor=False))


def test_a_step_moves_weights_as_one_written_by_hand() -> None:
    stage = make_stage(training=Training(batch_size=16, lr=0.1, momentum=0.0), steps=1)
    step = Step(stage, ON_CPU, ON_CPU.numerics())
    index = torch.arange(16)
    step.begin_epoch([index])
    step.load(0, 0)
    step.compute()
    step.settle()
    by_hand = CrossEntropy(Flat())
    batch = stage.view.batch(stage.view.samples.take(index), index, {}, None)
    loss = by_hand(batch)
    loss.backward()
    assert step.loss.item() == loss.item()
    weight = by_hand.network.fc.weight  # type: ignore[union-attr]
    expected = weight - 0.1 * weight.grad  # type: ignore[operator]
    torch.testing.assert_close(stage.objective.network.fc.weight, expected)  # type: ignore[union-attr]


@pytest.mark.parametrize("read", [lambda x: x.item(), bool, lambda x: x[x > 0], torch.nonzero])
def test_the_watch_notices_what_waits_for_the_device(read: Any) -> None:
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        read(torch.ones(1))
