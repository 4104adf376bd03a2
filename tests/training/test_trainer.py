"""The one loop: what it samples, steps, keeps, refuses and leaves alone."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from debiasbench.common.errors import OptionError, TrainingFailed
from debiasbench.core.batches import Batches
from debiasbench.core.component import Component
from debiasbench.core.data import Batch
from debiasbench.core.objective import CrossEntropy
from debiasbench.core.settings import Training
from debiasbench.core.stage import OptimizerState
from debiasbench.sparsity import Sparsify, Static
from debiasbench.testing import toy_task
from debiasbench.training.checkpoint import dumps, loads
from debiasbench.training.device import resolve_device
from debiasbench.training.optimizers import Schedule, carry_over, make_optimizer
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor, hits
from debiasbench.training.rules import group_counts
from debiasbench.training.stage_run import StageRun
from tests.training.stages import CPU, FAST, ON_CPU, Flat, assert_equal, make_stage, train


class Recorder(CrossEntropy):
    """Remembers the batches it saw."""

    def __init__(self) -> None:
        super().__init__(Flat())
        self.seen: list[Batch] = []

    def forward(self, batch: Batch) -> torch.Tensor:
        self.seen.append(batch)
        return super().forward(batch)


def indices(recorder: Recorder) -> list[int]:
    return torch.cat([b.index for b in recorder.seen]).tolist()


def test_an_epoch_without_weights_visits_every_sample_once() -> None:
    recorder = Recorder()
    train(recorder, training=replace(FAST, epochs=1))
    assert sorted(indices(recorder)) == list(range(160))


def test_weights_are_how_often_samples_are_drawn() -> None:
    recorder = Recorder()
    weights = torch.zeros(160, dtype=torch.double)
    weights[3], weights[7] = 1, 3
    train(recorder, weights=weights, training=replace(FAST, epochs=20))
    drawn = torch.tensor(indices(recorder))
    assert set(drawn.tolist()) == {3, 7}
    assert len(drawn) == 20 * 160
    assert (drawn == 7).float().mean().item() == pytest.approx(0.75, abs=0.03)


def test_a_subset_restricts_the_samples() -> None:
    recorder = Recorder()
    train(recorder, subset=torch.tensor([5, 1, 9]), training=replace(FAST, epochs=1))
    assert sorted(indices(recorder)) == [1, 5, 9]


def test_steps_end_a_stage_in_the_middle_of_an_epoch() -> None:
    recorder = Recorder()
    train(recorder, steps=13)
    assert len(recorder.seen) == 13


def test_a_lone_last_sample_is_left_out_since_batchnorm_cannot_train_on_it() -> None:
    sizes = {
        (33, 16): [16, 16],
        (34, 16): [16, 16, 2],
        (3, 1): [1, 1, 1],
        (1, 16): [1],
        (17, 16): [16],
    }
    for (n, batch_size), expected in sizes.items():
        batches = Batches(n, batch_size)
        assert [len(b) for b in batches.epoch(torch.Generator())] == expected
        assert len(batches) == len(expected)


def test_extra_tensors_follow_their_samples() -> None:
    recorder = Recorder()
    train(recorder, extra={"twice": 2 * torch.arange(160)})
    assert all(torch.equal(b.twice, 2 * b.index) for b in recorder.seen)


def test_the_loop_makes_the_steps_of_a_loop_written_by_hand() -> None:
    recorder = Recorder()
    by_hand = CrossEntropy(Flat())
    by_hand.load_state_dict(recorder.state_dict())
    train(recorder, training=replace(FAST, momentum=0.9, weight_decay=0.01))
    optimizer = torch.optim.SGD(by_hand.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
    for batch in recorder.seen:
        optimizer.zero_grad()
        by_hand(batch).backward()
        optimizer.step()
    assert_equal(recorder.state_dict(), by_hand.state_dict())


def test_images_reach_the_network_scaled_and_normalised() -> None:
    recorder = Recorder()
    task = replace(toy_task(), mean=(0.5, 0.0, 0.0), std=(0.25, 1.0, 1.0))
    train(recorder, task=task)
    batch = recorder.seen[0]
    raw = task.train.x[batch.index].double() / 255
    torch.testing.assert_close(batch.x[:, 0].double(), (raw[:, 0] - 0.5) / 0.25, rtol=0, atol=1e-5)
    torch.testing.assert_close(batch.x[:, 1].double(), raw[:, 1], rtol=0, atol=1e-6)


def test_augmentation_acts_in_training_and_never_at_evaluation() -> None:
    # the released REST code augments validation and test images as well
    calls: list[int] = []

    def black(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        calls.append(len(x))
        return torch.zeros_like(x)

    recorder = Recorder()
    task = replace(toy_task(), augment=black)
    trained = train(recorder, task=task)
    assert sum(calls) == 2 * 160
    assert all(not b.x.any() for b in recorder.seen)
    view = PlacedTask(task, CPU).view("test", "none")
    logits = Predictor(ON_CPU).predict(trained.objective, view)
    assert logits.std() > 0
    assert sum(calls) == 2 * 160


class Drift(CrossEntropy):
    """The loss stands still, and a parameter whose gradient is 1 moves by the learning rate."""

    def __init__(self) -> None:
        super().__init__(Flat().requires_grad_(False))
        self.moved = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch) -> torch.Tensor:
        return super().forward(batch) + self.moved - self.moved.detach()


@pytest.mark.parametrize(("schedule", "moved"), [("constant", -90.0), ("plateau", -72.0)])
def test_a_plateau_of_the_validation_loss_lowers_the_learning_rate(
    schedule: Any, moved: float
) -> None:
    # nine epochs of ten steps; the best loss is the first, and six epochs later the rate falls
    drift = Drift()
    settings = replace(FAST, epochs=9, schedule=schedule, lr=1.0, momentum=0.0)
    train(drift, training=settings, select=False)
    assert drift.moved.item() == pytest.approx(moved)


def test_modules_are_put_back_into_their_modes_after_evaluation() -> None:
    frozen = CrossEntropy(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, 2)))
    frozen.train()
    frozen.network[1].eval()  # type: ignore[index]
    Predictor(ON_CPU).predict(frozen, PlacedTask(toy_task(), CPU).view("val", "none"))
    assert frozen.training
    assert not frozen.network[1].training  # type: ignore[index]


def test_dropout_draws_from_the_seed_and_leaves_the_global_generator_alone() -> None:
    start = Flat().state_dict()

    def weights(global_seed: int, seed: int) -> dict[str, torch.Tensor]:
        network = Flat()
        network.load_state_dict(start)
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        train(CrossEntropy(nn.Sequential(nn.Dropout(0.5), network)), seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        return network.state_dict()

    with torch.random.fork_rng():
        assert_equal(weights(global_seed=1, seed=0), weights(global_seed=2, seed=0))
        other = weights(global_seed=1, seed=1)["fc.weight"]
        assert not torch.equal(weights(global_seed=1, seed=0)["fc.weight"], other)


class Explodes(CrossEntropy):
    """Returns NaN from a given step on."""

    def __init__(self, at: int) -> None:
        super().__init__(Flat())
        self.at, self.step = at, 0

    def forward(self, batch: Batch) -> torch.Tensor:
        loss = super().forward(batch)
        self.step += 1
        return loss * float("nan") if self.step > self.at else loss


@pytest.mark.parametrize("at", [0, 3, 10, 14])  # ten steps an epoch
def test_a_loss_that_becomes_nan_names_the_first_bad_step_and_the_last_good_loss(at: int) -> None:
    with pytest.raises(TrainingFailed) as error:
        train(Explodes(at), name="second")
    assert (error.value.stage, error.value.step) == ("second", at)
    assert (error.value.last_loss is None) == (at == 0)
    assert "train.lr" in str(error.value)


class Unlearns(CrossEntropy):
    """After two epochs of ten steps, the loss is maximised."""

    def forward(self, batch: Batch) -> torch.Tensor:
        loss = super().forward(batch)
        return loss if batch.step < 20 else -1000 * loss


def test_every_rule_keeps_the_weights_of_its_epoch() -> None:
    trained = train(Unlearns(Flat()), training=replace(FAST, epochs=4, lr=0.3))
    assert set(trained.checkpoints) == {
        "last",
        "val_average",
        "val_unbiased",
        "val_worst_group",
        "val_conflict",
    }
    assert trained.checkpoints["last"].epoch == 4
    assert_equal(trained.objective.state_dict(), trained.checkpoints["last"].state)
    validation = PlacedTask(toy_task(), CPU).held_out("val")
    kept = trained.checkpoints["val_conflict"]
    assert kept.epoch < 4, "choose a training whose best epoch is not its last"
    trained.objective.load_state_dict(kept.state)
    logits = Predictor(ON_CPU).predict(trained.objective, validation.view)
    counts = group_counts(validation, hits(logits, validation.view, 4))
    assert counts.hits[~counts.aligned].sum() / counts.totals[~counts.aligned].sum() == kept.value


def test_checkpoints_do_not_change_when_training_goes_on() -> None:
    trained = train()
    before = {k: v.clone() for k, v in trained.checkpoints["last"].state.items()}
    train(trained.objective)
    assert_equal(trained.checkpoints["last"].state, before)


def test_a_stage_without_selection_keeps_nothing() -> None:
    assert train(select=False).checkpoints == {}


def test_the_cost_counts_three_forward_passes_of_multiplications_and_additions() -> None:
    cost = train().cost
    assert cost is not None
    assert (cost.epochs, cost.steps, cost.samples) == (2, 20, 320)
    assert cost.flops == 320 * 3 * 2 * 192 * 2


def test_gradients_are_clipped_to_the_norm_asked_for() -> None:
    norms: list[float] = []

    class Watch(Component):
        def constrain_weights(self) -> None:
            grads = [p.grad.flatten() for p in self.module.parameters() if p.grad is not None]
            norms.append(torch.cat(grads).norm().item())

    train(components=[Watch()], training=replace(FAST, clip_norm=0.01))
    assert max(norms) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("settings", "expected"),  # the learning rate of each of 12 steps, 2 steps to an epoch
    [
        ({"schedule": "constant"}, [1.0] * 12),
        ({"schedule": "step"}, [1.0] * 4 + [0.1] * 4 + [0.01] * 4),
        ({"schedule": "step", "decay": 0.5}, [1.0] * 4 + [0.5] * 4 + [0.25] * 4),
        (
            {"schedule": "step", "milestones": (0.25, 0.75), "decay": 0.5},
            [1.0] * 3 + [0.5] * 6 + [0.25] * 3,
        ),
        ({"schedule": "cosine"}, [(1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)]),
        ({"schedule": "linear"}, [1 - step / 12 for step in range(12)]),
        ({"schedule": "plateau"}, [1.0] * 12),
        ({"warmup": 1 / 3}, [0.25, 0.5, 0.75] + [1.0] * 9),
        (
            {"schedule": "linear", "warmup": 1 / 3},
            [min(1, (step + 1) / 4) * (1 - step / 12) for step in range(12)],
        ),
    ],
    ids=str,
)
def test_schedules(settings: dict[str, Any], expected: list[float]) -> None:
    parameter = nn.Parameter(torch.zeros(1))
    training = Training(epochs=6, lr=1.0, **settings)
    optimizer = make_optimizer([parameter], training)
    plan = Schedule(optimizer, training, steps=12, steps_per_epoch=2)
    rates = []
    for step in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        parameter.grad = torch.ones(1)
        optimizer.step()
        plan.after_step()
        if step % 2:
            plan.after_epoch(val_loss=1.0 - step / 100)
    assert rates == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"milestones": (0.5,)}, "no effect with schedule=constant"),
        ({"decay": 0.5, "schedule": "cosine"}, "decay=0.5 has no effect"),
        ({"milestones": (0.5, 0.2), "schedule": "step"}, "must increase"),
    ],
)
def test_settings_of_another_schedule_are_refused(settings: Any, complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        Training(**settings)


def test_plateau_divides_by_ten_after_five_epochs_without_a_lower_loss() -> None:
    training = Training(lr=1.0, schedule="plateau")
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))], training)
    plan = Schedule(optimizer, training, steps=100, steps_per_epoch=1)
    rates = []
    for loss in [1.0, 0.5, *[0.5] * 6]:
        plan.after_epoch(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == [1.0] * 7 + [0.1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)],
)
def test_optimizers_take_their_settings(name: Any, kind: type) -> None:
    training = Training(optimizer=name, lr=0.3, momentum=0.7, weight_decay=0.2)
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))], training)
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert optimizer.param_groups[0]["weight_decay"] == 0.2
    assert optimizer.param_groups[0].get("momentum", 0.7) == 0.7


def test_auto_takes_the_accelerator_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    meta = torch.device("meta")  # stands in for one
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: meta)
    assert resolve_device("auto") == meta
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    assert resolve_device("auto") == CPU


def test_a_device_that_is_not_there_is_refused_with_the_way_out() -> None:
    with pytest.raises(OptionError, match="Use --device auto for an available device"):
        resolve_device("nonsense")
    assert resolve_device("cpu") == CPU


def test_a_network_that_works_in_place_does_not_change_the_data() -> None:
    task = toy_task()
    tables = {
        name: replace(split, x=split.x.float().flatten(1)) for name, split in task.splits().items()
    }
    task = replace(task, **tables)
    before = task.fingerprint()
    network = nn.Sequential(nn.Hardtanh(0.0, 0.5, inplace=True), nn.Linear(192, 2))
    train(CrossEntropy(network), task)
    view = PlacedTask(task, CPU).held_out("test").view
    Predictor(ON_CPU).predict(CrossEntropy(network), view)
    assert task.fingerprint() == before


def test_weights_that_the_last_step_made_infinite_fail_the_stage() -> None:
    class NaNGradient(CrossEntropy):
        """Its loss is finite, its gradient is not: the square root of 0 has no slope."""

        def forward(self, batch: Batch) -> torch.Tensor:
            return super().forward(batch) + (0 * self.network.fc.weight.sum()).sqrt()  # type: ignore[union-attr]

    with pytest.raises(TrainingFailed, match="A weight of stage 'train' became NaN") as error:
        train(NaNGradient(Flat()), steps=1, select=False)
    assert (error.value.step, error.value.last_loss is None) == (0, False)


@pytest.mark.parametrize("given", [False, True])
def test_momentum_of_a_fused_optimizer_begins_at_zero(given: bool) -> None:
    def stepped(*, fused: bool) -> nn.Module:
        torch.manual_seed(0)
        network = nn.Linear(3, 2)
        optimizer = make_optimizer(network.parameters(), Training(lr=0.1), tensor_lr=fused)
        if given:  # from an earlier stage, which had no bias
            state = OptimizerState("sgd", {"weight": {"momentum_buffer": torch.ones(2, 3)}})
            carry_over(state, optimizer, network)
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
        return network

    fused, plain = stepped(fused=True), stepped(fused=False)
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-6)
    network = nn.Linear(3, 2)
    optimizer = make_optimizer(network.parameters(), Training(), tensor_lr=True)
    buffers = [optimizer.state[p]["momentum_buffer"] for p in network.parameters()]
    assert not any(bool(buffer.any()) for buffer in buffers)


def test_frozen_parts_stay_in_evaluation_mode_while_training() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    body.requires_grad_(False)
    network = nn.Sequential(body, nn.Flatten(), nn.Linear(4 * 36, 2))
    before = {k: v.clone() for k, v in body.state_dict().items()}
    train(CrossEntropy(network))
    assert_equal(body.state_dict(), before)
    assert network.training
    assert not body.training


def test_frozen_layers_cost_as_much_as_the_weights_that_an_earlier_stage_has_left() -> None:
    def cost(kept: int, *components: Any) -> float:
        """Return the FLOPs where so many of the 192 inputs of a frozen layer have weights."""
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2)
        )
        hidden: Any = network[1]
        with torch.no_grad():
            hidden.weight[:, kept:] = 0
        hidden.requires_grad_(False)
        trained = train(CrossEntropy(network), components=components)
        assert trained.cost is not None
        return trained.cost.flops / trained.cost.samples

    def sparse() -> Sparsify:
        return Sparsify(Static(density=0.5))

    assert cost(48) == cost(192)  # of a dense stage, zeros are weights like any other
    assert cost(192, sparse()) < cost(192)
    # a multiplication and an addition for each weight, in the forward pass alone
    assert cost(192, sparse()) - cost(48, sparse()) == pytest.approx(2 * 8 * (192 - 48))


def test_a_model_with_nothing_to_make_sparse_trains_like_any_other() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(2, 192))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) @ self.scale.T

    assert train(CrossEntropy(Scale())).densities == {}


class Adapter(nn.Linear):
    """Merges a second weight into the first for evaluation, as low-rank adapters do."""

    def __init__(self) -> None:
        super().__init__(192, 2)
        self.delta = nn.Parameter(torch.zeros(2, 192))
        self.merged = False

    def train(self, mode: bool = True) -> Adapter:
        if mode == self.merged:
            with torch.no_grad():
                self.weight += self.delta if self.merged is False else -self.delta
            self.merged = not mode
        return super().train(mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.merged is not self.training
        weight = self.weight if self.merged else self.weight + self.delta
        return nn.functional.linear(x, weight, self.bias)


def test_a_layer_that_acts_when_modes_change_is_in_training_mode_in_every_epoch() -> None:
    network = nn.Sequential(nn.Flatten(), Adapter())
    trained = train(CrossEntropy(network), training=replace(FAST, epochs=3))
    assert set(trained.checkpoints) >= {"last", "val_average"}
    assert network[1].training
    assert network[1].merged is False


@pytest.mark.parametrize("draw", [np.random.rand, lambda: random.gauss(0, 1)])
def test_a_stage_that_resumes_draws_on_from_the_global_generators(draw: Any) -> None:
    class Noisy(CrossEntropy):
        def forward(self, batch: Any) -> torch.Tensor:
            return super().forward(batch) * (1 + 0.1 * draw())

    def begun() -> StageRun:
        stage = make_stage(Noisy(Flat()))
        return StageRun(stage, ON_CPU, ON_CPU.numerics("fp32"))

    whole, first, second = begun(), begun(), begun()
    with whole.started():
        assert sum(1 for _ in whole.steps()) == 20
    with first.started():
        assert next(islice(first.steps(), 6, None)) == 7
        saved = loads(dumps(first.state_dict()))
    with second.started():
        second.load_state_dict(saved)
        assert sum(1 for _ in second.steps()) == 13
    ends = [run.stage.objective.state_dict() for run in (whole, second)]
    assert_equal(*ends)
