"""Stages with batches of their own, a second stream, changes between epochs, and groups of weights.

All of them are replayed with the bits of computed steps, and resume bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench import (
    Batch,
    Beside,
    CrossEntropy,
    EpochChange,
    Objective,
    ParameterGroup,
    Supervision,
    Training,
)
from debiasbench.common.errors import OptionError, PluginError, SupervisionError
from debiasbench.core.stage import Stage, Trained
from debiasbench.runs.fit import fit
from debiasbench.testing import toy_task
from debiasbench.testing.methods import MODEL
from debiasbench.training.checkpoint import dumps, loads
from debiasbench.training.execution import Execution
from debiasbench.training.identity import identity
from debiasbench.training.optimizers import laid_out_as, make_optimizer
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor
from debiasbench.training.stage_run import StageRun
from debiasbench.training.tape import Recomputed, Tape
from debiasbench.training.trainer import Sequential
from tests.core.test_lab import method
from tests.training.stages import CPU, ON_CPU, assert_equal

SETTINGS = Training(epochs=4, batch_size=16, lr=0.05)
SAMPLES = 160


class Seen(CrossEntropy):
    """Keeps what it sees of each batch."""

    capturable: ClassVar[bool | None] = None

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.batches: list[dict[str, Any]] = []

    def forward(self, batch: Batch) -> Tensor:
        names = ("index", "step", "epoch", "progress")
        self.batches.append({name: getattr(batch, name).tolist() for name in names})
        return super().forward(batch)

    def column(self, name: str) -> list[Any]:
        return [batch[name] for batch in self.batches]


class Watching:
    """Trains as `Sequential`, and keeps stages and results."""

    def __init__(self, execution: Execution) -> None:
        self._trainer = Sequential(execution, Predictor(execution))
        self.stages: list[Stage] = []
        self.trained: list[Trained] = []

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        self.stages += stages
        done = self._trainer.train(stages)
        self.trained += done
        return done


def run(
    body: Callable[[Any], Any],
    supervision: Supervision | None = None,
    *,
    execution: Execution = ON_CPU,
    **settings: Any,
) -> Watching:
    """Let a method with this `fit` train on the toy task."""
    trainer = Watching(execution)
    fit(
        PlacedTask(toy_task(samples=SAMPLES), CPU),
        method(body, supervision),
        model=MODEL,
        training=replace(SETTINGS, **settings),
        seed=0,
        trainer=trainer,
        predictor=Predictor(execution),
    )
    return trainer


def pairs(epoch: int, rng: torch.Generator) -> list[Tensor]:
    """Return one batch more in every epoch, of 4 and more samples."""
    order = torch.randperm(SAMPLES, generator=rng)
    return [order[i : i + 4 + i % 2] for i in range(0, 8 * (epoch + 1), 8)]


def test_batches_of_a_method_are_trained_on_as_they_are() -> None:
    made: list[list[int]] = []

    def own(epoch: int, rng: torch.Generator) -> list[Tensor]:
        batches = pairs(epoch, rng)
        if len(made) < 100 and rng.initial_seed():
            made.extend(batch.tolist() for batch in batches)
        return batches

    seen: list[Seen] = []

    def body(lab: Any) -> Any:
        seen.append(Seen(lab.model()))
        return lab.train(seen[0], batches=own, name="train")

    (trained,) = run(body).trained
    assert trained.cost is not None
    assert trained.cost.steps == 1 + 2 + 3 + 4
    assert trained.cost.epochs == 4
    # they were made once to be counted, and once to be used
    assert seen[0].column("index") == made[10:] == made[:10]


@pytest.mark.parametrize("change", [{}, {"extra": {"weight": torch.ones(SAMPLES)}}])
def test_a_change_of_extra_tensors_leaves_the_batches_of_a_method_alone(change: Any) -> None:
    seen: list[Seen] = []

    def body(lab: Any) -> Any:
        seen.append(Seen(lab.model()))
        return lab.train(
            seen[-1],
            batches=pairs,
            extra={"weight": torch.zeros(SAMPLES)},
            each_epoch=(lambda *_: EpochChange(**change)) if len(seen) > 1 else None,
            name="train",
        )

    for _ in range(2):
        run(body)
    assert seen[1].column("index") == seen[0].column("index")


def test_a_loss_knows_step_epoch_and_progress() -> None:
    seen: list[Seen] = []

    def body(lab: Any) -> Any:
        seen.append(Seen(lab.model()))
        return lab.train(seen[0], batches=pairs, epochs=3, name="train")

    run(body)
    assert seen[0].column("step") == [0, 1, 2, 3, 4, 5]
    assert seen[0].column("epoch") == [0, 1, 1, 2, 2, 2]
    assert seen[0].column("progress") == pytest.approx([i / 6 for i in range(6)])


def test_steps_end_a_stage_with_own_batches_within_an_epoch() -> None:
    def body(lab: Any) -> Any:
        return lab.train(lab.model(), batches=pairs, steps=5, name="train")

    (trained,) = run(body).trained
    assert trained.cost is not None
    assert (trained.cost.steps, trained.cost.epochs) == (5, 3)


def test_parts_of_a_batch_know_the_same_moment() -> None:
    batch = Batch(torch.zeros(4, 1), torch.zeros(4), torch.arange(4), progress=torch.tensor(0.5))
    assert batch.part(slice(2)).progress == 0.5
    assert batch.step == 0


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        (lambda e, g: [], "returned none for epoch 0"),
        (lambda e, g: [torch.tensor([1.0])], r"type torch\.float32"),
        (lambda e, g: [torch.tensor([[1]])], r"shape \(1, 1\)"),
        (lambda e, g: [torch.tensor([], dtype=torch.long)], r"shape \(0,\)"),
        (lambda e, g: [torch.tensor([SAMPLES])], r"index 160 .* 0 to 159"),
    ],
)
def test_batches_that_cannot_be_used_are_refused_before_training(own: Any, complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        run(lambda lab: lab.train(lab.model(), batches=own, name="train"))


def test_batches_that_depend_on_more_than_their_arguments_are_refused() -> None:
    sizes = iter(range(1, 100))
    with pytest.raises(OptionError, match="other samples when it was called again for epoch 0"):
        run(
            lambda lab: lab.train(
                lab.model(), batches=lambda e, g: [torch.arange(next(sizes))], name="train"
            )
        )


def test_batches_that_depend_on_what_was_learned_are_refused() -> None:
    def body(lab: Any) -> Any:
        loss = Weighted(lab.model())

        def hardest(epoch: int, rng: torch.Generator) -> list[Tensor]:
            return [torch.arange(16) + int(loss.weight_sum) % 100]

        extra = {"weight": torch.ones(SAMPLES)}
        return lab.train(loss, batches=hardest, extra=extra, name="train")

    with pytest.raises(
        OptionError, match=r"called again for epoch 1.*choose among them in the loss"
    ):
        run(body)


def test_batches_exclude_weights_and_subsets() -> None:
    with pytest.raises(OptionError, match="together with weights or subset"):
        run(lambda lab: lab.train(lab.model(), batches=pairs, subset=torch.arange(3), name="train"))


class Two(Objective):
    """Cross-entropy, and the mean logit of the second stream, with a switch at half of training."""

    capturable: ClassVar[bool | None] = True
    seen: Tensor  # (160,) how often a sample was in the second stream

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.register_buffer("seen", torch.zeros(SAMPLES))

    def forward(self, batch: Batch) -> Tensor:
        other = batch.beside
        if self.training:
            self.seen.index_add_(0, other.index, torch.ones(len(other)))
        weight = torch.where(batch.progress < 0.5, 0.0, 0.1)
        return (
            F.cross_entropy(self.network(batch.x), batch.y)
            + weight * self.network(other.x).square().mean()
        )


def test_the_second_stream_visits_its_samples_in_turn() -> None:
    objectives: list[Two] = []

    def body(lab: Any) -> Any:
        objectives.append(Two(lab.model()))
        beside = Beside(batch_size=7, subset=torch.arange(70))
        return lab.train(objectives[0], beside=beside, name="train", epochs=2)

    run(body)  # 2 epochs of 10 steps, each with one pass over the 70
    assert objectives[0].seen.tolist() == [2.0] * 70 + [0.0] * 90


def test_validation_inputs_can_be_a_second_stream_without_labels() -> None:
    class Reads(Two):
        def forward(self, batch: Batch) -> Tensor:
            assert len(batch.beside) == 16
            return super().forward(batch) + 0 * batch.beside.y.sum()

    def body(lab: Any) -> Any:
        return lab.train(Reads(lab.model()), beside=Beside("val"), name="train")

    with pytest.raises(SupervisionError, match="without declaring it"):
        run(body)
    with pytest.raises(SupervisionError, match="no classes"):
        run(body, Supervision(val="inputs"))
    run(body, Supervision(val="fit"))


def test_a_stage_without_second_stream_says_so() -> None:
    with pytest.raises(PluginError, match="no second stream"):
        run(lambda lab: lab.train(Two(lab.model()), name="train"))


def test_a_second_stream_cannot_be_computed_in_parts() -> None:
    def body(lab: Any) -> Any:
        return lab.train(CrossEntropy(lab.model()), beside=Beside(), name="train")

    with pytest.raises(OptionError, match="second stream"):
        run(body, micro_batch=4)


class Weighted(Objective):
    """Cross-entropy weighted by the extra column `weight`; counts epochs in a buffer."""

    capturable: ClassVar[bool | None] = True
    epochs: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network)
        self.register_buffer("epochs", torch.zeros(()))
        self.register_buffer("weight_sum", torch.zeros(()))

    def forward(self, batch: Batch) -> Tensor:
        if self.training:
            self.weight_sum.add_(batch.weight.sum())
        losses = F.cross_entropy(self.network(batch.x), batch.y, reduction="none")
        return (batch.weight * losses).mean()


def changing(lab: Any, **more: Any) -> Any:
    """Train with other weights, subsets and extra tensors in each epoch."""

    def each_epoch(epoch: int, objective: Any) -> EpochChange | None:
        objective.epochs.add_(1)
        logits = lab.predict(objective, "train")
        hard = (logits.argmax(1) != lab.labels()).double()
        if epoch == 1:
            return EpochChange(weights=1 + hard, extra={"weight": torch.full((SAMPLES,), 2.0)})
        if epoch == 2:
            return EpochChange(subset=torch.arange(80))
        return None

    return lab.train(
        Weighted(lab.model()),
        extra={"weight": torch.ones(SAMPLES)},
        each_epoch=each_epoch,
        name="train",
        **more,
    )


def test_weights_subsets_and_extra_tensors_can_change_between_epochs() -> None:
    (trained,) = run(changing).trained
    objective = trained.objective
    assert isinstance(objective, Weighted)
    assert trained.cost is not None
    # 40 steps: 10 + 10, then epochs of 5 steps
    assert (trained.cost.steps, trained.cost.epochs) == (40, 6)
    assert objective.epochs == 6
    assert objective.weight_sum.item() == SAMPLES + 2 * SAMPLES + 4 * 2 * 80
    assert len(trained.curves["val_unbiased"]) == 6


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"weights": torch.ones(3)}, r"weights must be \(160,\)"),
        ({"subset": torch.arange(161) % 160}, "subset of 161 samples: at most 160"),
        ({"extra": {"other": torch.ones(SAMPLES)}}, "'other' .* began without it"),
        ({"extra": {"weight": torch.ones(SAMPLES, 2)}}, r"'weight' .* began with \(160,\)"),
    ],
)
def test_changes_that_cannot_be_used_are_refused(change: Any, complaint: str) -> None:
    def body(lab: Any) -> Any:
        return lab.train(
            Weighted(lab.model()),
            extra={"weight": torch.ones(SAMPLES)},
            each_epoch=lambda *_: EpochChange(**change),
            name="train",
        )

    with pytest.raises(OptionError, match=complaint):
        run(body)


def test_a_change_of_another_type_is_refused() -> None:
    def body(lab: Any) -> Any:
        return lab.train(lab.model(), each_epoch=lambda *_: torch.ones(160), name="train")

    with pytest.raises(OptionError, match="returned Tensor, must be an EpochChange or None"):
        run(body)


def test_own_batches_cannot_be_changed_between_epochs() -> None:
    def body(lab: Any) -> Any:
        change = EpochChange(weights=torch.ones(SAMPLES))
        return lab.train(lab.model(), batches=pairs, each_epoch=lambda *_: change, name="train")

    with pytest.raises(OptionError, match="has batches of its own"):
        run(body)


def test_a_stage_cannot_be_trained_within_a_stage() -> None:
    def body(lab: Any) -> Any:
        inner = lab.model()
        return lab.train(
            lab.model(), each_epoch=lambda *_: lab.train(inner, name="inner"), name="train"
        )

    with pytest.raises(OptionError, match="while a stage is trained"):
        run(body)


class Grouped(CrossEntropy):
    """Trains its last layer ten times slower and without weight decay."""

    def parameter_groups(self) -> list[ParameterGroup]:
        network: Any = self.network
        return [ParameterGroup(list(network[-1].parameters()), lr=0.1, weight_decay=0.0)]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_groups_have_factors_of_the_settings(optimizer: Any) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].bias.requires_grad_(False)
    training = Training(optimizer=optimizer, lr=0.5, weight_decay=0.2)
    made = make_optimizer(
        network.parameters(), training, groups=Grouped(network).parameter_groups()
    )
    rest, last = made.param_groups
    assert [id(p) for p in rest["params"]] == [id(network[0].weight)]
    assert [id(p) for p in last["params"]] == [id(p) for p in network[1].parameters()]
    assert (rest["lr"], last["lr"]) == (0.5, pytest.approx(0.05))
    assert (rest["weight_decay"], last["weight_decay"]) == (0.2, 0.0)


@pytest.mark.parametrize(
    ("groups", "complaint"),
    [
        (lambda p: [ParameterGroup([p]), ParameterGroup([p])], "twice"),
        (lambda p: [ParameterGroup([nn.Parameter(torch.zeros(1))])], "not in the objective"),
        (lambda p: [ParameterGroup([p], lr=-1.0)], "lr=-1"),
    ],
)
def test_groups_that_make_no_sense_are_refused(groups: Any, complaint: str) -> None:
    p = nn.Parameter(torch.zeros(1))
    with pytest.raises(ValueError, match=complaint):
        make_optimizer([p], Training(), groups=groups(p))


def test_the_whole_state_of_an_optimizer_moves_to_the_device_of_its_parameter() -> None:
    stored = {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 2), "other": None}
    p = nn.Parameter(torch.zeros(2, 2, device="meta"))
    placed = laid_out_as(p, stored)
    assert {n: v.device.type for n, v in placed.items() if v is not None} == {
        "step": "meta",
        "exp_avg": "meta",
    }


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_two_stages_with_one_optimizer_are_one_long_stage(optimizer: Any) -> None:
    def divided(lab: Any) -> Any:
        first = lab.train(lab.model(), batches=early, steps=3, keep_optimizer=True, name="first")
        # a new objective, in which the same parameters have the same names
        return lab.train(
            CrossEntropy(first.objective.network),
            batches=late,
            steps=2,
            optimizer_of=first,
            name="second",
        )

    def early(epoch: int, rng: torch.Generator) -> list[Tensor]:
        return [torch.arange(16 * i, 16 * i + 16) for i in range(3)]

    def late(epoch: int, rng: torch.Generator) -> list[Tensor]:
        return [torch.arange(16 * i, 16 * i + 16) for i in range(3, 5)]

    def whole(lab: Any) -> Any:
        both = [*early(0, torch.Generator()), *late(0, torch.Generator())]
        return lab.train(lab.model(), batches=lambda *_: both, steps=5, name="whole")

    two, one = (run(body, optimizer=optimizer).trained for body in (divided, whole))
    assert_equal(two[-1].objective.state_dict(), one[-1].objective.state_dict())
    assert two[-1].optimizer is None


def test_an_optimizer_that_was_not_kept_or_is_another_cannot_go_on() -> None:
    def forgotten(lab: Any) -> Any:
        first = lab.train(lab.model(), name="first")
        return lab.train(first, optimizer_of=first, name="second")

    def other(lab: Any) -> Any:
        first = lab.train(lab.model(), keep_optimizer=True, name="first")
        return lab.train(first, optimizer_of=first, optimizer="adam", name="second")

    with pytest.raises(OptionError, match="keep_optimizer=True"):
        run(forgotten)
    with pytest.raises(OptionError, match="trained with sgd, this one with adam"):
        run(other)


def own_batches(lab: Any) -> Any:
    return lab.train(lab.model(), batches=pairs, epochs=8, name="train")


def second_stream(lab: Any) -> Any:
    beside = Beside("train", batch_size=8, weights=torch.arange(SAMPLES) + 1.0)
    return lab.train(Two(lab.model()), beside=beside, name="train")


def grouped(lab: Any) -> Any:
    return lab.train(Grouped(lab.model()), name="train")


def carried_over(lab: Any) -> Any:
    first = lab.train(lab.model(), epochs=1, keep_optimizer=True, name="first")
    return lab.train(first, optimizer_of=first, name="second")


KINDS = [own_batches, second_stream, changing, grouped, carried_over]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"optimizer": "adam", "schedule": "step", "milestones": (0.3, 0.6), "warmup": 0.2},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=["sgd", "adam"])
@pytest.mark.parametrize("body", KINDS)
def test_stages_of_all_kinds_are_replayed_with_the_bits_of_computed_steps(
    body: Any, settings: dict[str, Any]
) -> None:
    replayed = run(body, execution=replace(ON_CPU, graph=Tape), **settings).trained
    computed = run(body, execution=replace(ON_CPU, graph=Recomputed), **settings).trained
    for a, b in zip(replayed, computed, strict=True):
        assert_equal(a.objective.state_dict(), b.objective.state_dict())
        assert a.cost is not None
        assert a.cost.eager == ""


@pytest.mark.parametrize("settings", VARIANTS, ids=["sgd", "adam"])
@pytest.mark.parametrize("body", KINDS)
def test_stages_of_all_kinds_resume_bit_for_bit(body: Any, settings: dict[str, Any]) -> None:
    class Stops:
        """Trains the last stage in two halves, with new objects for the second."""

        def __init__(self) -> None:
            self.trained: list[Trained] = []

        def train(self, stages: Sequence[Stage]) -> list[Trained]:
            (stage,) = stages
            again = stage.copied()
            first = StageRun(stage, ON_CPU, ON_CPU.numerics())
            with first.started():
                for number in first.steps():
                    if number == stage.steps * 5 // 8:
                        break
                saved = loads(dumps(first.state_dict()))
            second = StageRun(again, ON_CPU, ON_CPU.numerics())
            with second.started():
                second.load_state_dict(saved)
                for _ in second.steps():
                    pass
            self.trained.append(second.trained())
            return self.trained[-1:]

    resumed = Stops()
    fit(
        PlacedTask(toy_task(samples=SAMPLES), CPU),
        method(body),
        model=MODEL,
        training=replace(SETTINGS, **settings),
        seed=0,
        trainer=resumed,
        predictor=Predictor(ON_CPU),
    )
    for a, b in zip(resumed.trained, run(body, **settings).trained, strict=True):
        assert_equal(a.objective.state_dict(), b.objective.state_dict())


@pytest.mark.parametrize("body", [own_batches, second_stream, changing, grouped])
def test_such_stages_are_not_shared_with_other_runs(body: Any) -> None:
    (stage,) = run(body).stages
    assert not identity(stage).shared


def test_a_stage_that_continues_an_optimizer_differs_from_one_that_does_not() -> None:
    first, second = run(carried_over).stages
    assert identity(first).shared
    assert identity(second).content != identity(replace(second, optimizer=None)).content
