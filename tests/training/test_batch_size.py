"""Batches in parts: the same gradients, and what happens when memory is short."""

from __future__ import annotations

import gc
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from debiasbench.common.errors import OptionError, OutOfMemory
from debiasbench.common.options import parse
from debiasbench.core.data import Batch
from debiasbench.core.objective import CrossEntropy, Objective
from debiasbench.core.settings import Training
from debiasbench.core.stage import Trainer
from debiasbench.measure.listening import Listening
from debiasbench.records.selection import RULES
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.testing import toy_task
from debiasbench.training import placed
from debiasbench.training.batch_size import Sizing, _hardest, fitting
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor
from debiasbench.training.prefetch import Prefetch
from tests.training.stages import CPU, FAST, ON_CPU, Flat, assert_equal, fit_toy, make_stage, train
from tests.training.test_losses import Normalised


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> None:
    """Let the garbage collector, which is called where memory is short, ignore what is there."""
    gc.collect()
    gc.freeze()


class Small(CrossEntropy):
    """Runs out of memory beyond so many samples at a time."""

    def __init__(self, most: int, network: nn.Module | None = None) -> None:
        super().__init__(network or Flat())
        self.most = most
        self.sizes: list[int] = []

    def forward(self, batch: Batch) -> torch.Tensor:
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        self.sizes.append(len(batch))
        return super().forward(batch)


class Whole(Small):
    """A loss that is no mean over samples."""

    additive = False


def test_parts_of_a_batch_add_up_to_its_gradient() -> None:
    whole = train().objective.state_dict()
    parts = train(training=replace(FAST, micro_batch=5)).objective.state_dict()
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)
    assert any(not torch.equal(whole[name], parts[name]) for name in whole)  # rounded otherwise


def test_a_part_as_large_as_the_batch_changes_no_bit() -> None:
    assert_equal(
        train().objective.state_dict(),
        train(training=replace(FAST, micro_batch=16)).objective.state_dict(),
    )


def found(objective: Objective) -> int | None:
    sizing = Sizing(ON_CPU)
    sizing.train([make_stage(objective)])
    return sizing.micro_batch


@pytest.mark.parametrize("trainer", [Sizing(ON_CPU), Listening()])
def test_what_a_method_asks_of_a_stage_is_there_although_the_stage_is_not_trained(
    trainer: Trainer,
) -> None:
    stage = make_stage(keep_optimizer=True)
    (result,) = trainer.train([stage])
    assert result.optimizer is not None
    assert result.optimizer.kind == stage.settings.optimizer
    assert result.checkpoints.keys() == RULES.keys()
    assert result.checkpoints["val_average"].state.keys() == stage.objective.state_dict().keys()
    fit_toy(trainer, ON_CPU, FAST, "masktune")


def test_of_sequences_the_widest_batch_is_tried_its_longest_sequence_first() -> None:
    lengths = torch.arange(160) % 23
    stage = make_stage(training=Training(batch_size=3))
    width = lambda index: int(lengths[index].max())  # noqa: E731
    samples: Any = SimpleNamespace(width=width)
    trial = replace(stage, view=replace(stage.view, samples=samples))
    index = _hardest(trial)
    assert len(index) == 3
    assert int(lengths[index[0]]) == 22
    usual = _hardest(stage)
    assert len(usual) == 3


def test_sizing_finds_parts_that_fit_and_they_train_as_the_whole_batch_would() -> None:
    small = Small(most=5)
    assert found(small) == 4  # 16, 8, 4
    small = Small(most=5)
    done = train(small, training=replace(FAST, micro_batch=4))
    assert set(small.sizes) == {4}
    whole, parts = train().objective.state_dict(), done.objective.state_dict()
    assert all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)


def test_sizing_leaves_a_batch_that_fits_whole_and_trains_nothing() -> None:
    small = Small(most=16)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    assert found(small) is None
    assert_equal(small.state_dict(), before)


def test_sizing_takes_the_smallest_part_of_all_stages() -> None:
    sizing = Sizing(ON_CPU)
    sizing.train([make_stage(Small(most=most)) for most in (8, 2, 16)])
    assert sizing.micro_batch == 2


def test_sizing_warns_where_batch_norm_will_see_less() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 2))
    with pytest.warns(UserWarning, match="8 of 16 samples at a time, so BatchNorm"):
        found(Small(8, network))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found(Small(16, network))


def test_a_stage_whose_parts_were_not_resolved_is_refused() -> None:
    with pytest.raises(OptionError, match="micro_batch=auto, which must be resolved"):
        train(training=replace(FAST, micro_batch="auto"))


def test_flops_do_not_depend_on_the_parts() -> None:
    whole, parts = train().cost, train(training=replace(FAST, micro_batch=3)).cost
    assert whole is not None
    assert parts is not None
    assert whole.flops == parts.flops


def test_out_of_memory_says_what_fits_and_both_ways_out() -> None:
    with pytest.raises(
        OutOfMemory,
        match=r"'train': 16 samples at a time .* A batch of 4 fits: use --batch-size 4, "
        "or --batch-size auto, which keeps the batch",
    ):
        train(Small(most=7))


def test_out_of_memory_of_a_loss_that_cannot_be_cut_offers_no_parts() -> None:
    with pytest.raises(OutOfMemory, match=r"A batch of 8 fits: use --batch-size 8$"):
        train(Whole(most=8))


def test_a_network_too_large_for_a_single_sample_is_said_so() -> None:
    for go in (train, found):
        with pytest.raises(OutOfMemory, match="Use a smaller network or another device"):
            go(Small(most=0))


def test_memory_that_the_host_refuses_counts_too() -> None:
    class Refused(Objective):
        def forward(self, batch: Batch) -> torch.Tensor:
            torch.empty(1 << 62, dtype=torch.uint8)
            raise AssertionError

    with pytest.raises(OutOfMemory):
        train(Refused(Flat()))


def test_any_other_error_is_not_called_a_shortage() -> None:
    class Broken(Objective):
        def forward(self, batch: Batch) -> torch.Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        train(Broken(Flat()))


@pytest.mark.parametrize(
    ("n", "size", "at_least", "parts"),
    [
        (9, 4, 1, [3, 3, 3]),
        (8, None, 1, [8]),
        (5, 1, 1, [1] * 5),
        (129, 64, 2, [43, 43, 43]),
        (3, 2, 2, [3]),
        (1, 1, 2, [1]),
        (16, 8, 1, [8, 8]),
    ],
)
def test_parts_are_about_equal_and_no_sample_is_left_alone(
    n: int, size: int | None, at_least: int, parts: list[int]
) -> None:
    batch = Batch(torch.arange(n)[:, None], torch.arange(n), torch.arange(n), group=torch.arange(n))
    found = list(batch.parts(size, at_least))
    assert sorted(map(len, found)) == sorted(parts)
    assert torch.cat([part.group for part in found]).tolist() == list(range(n))


def test_batch_norm_is_given_two_samples_at_least() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 2))
    small = Small(16, network)
    train(small, training=replace(FAST, micro_batch=1))
    assert set(small.sizes) == {2}
    with pytest.raises(OutOfMemory, match=r"Even the smallest possible batch of stage .* needs"):
        found(Small(1, network))


def test_prediction_takes_smaller_parts_where_memory_is_short() -> None:
    class Narrow(CrossEntropy):
        most = 9

        def predict(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > self.most:
                raise RuntimeError("CUDA error: out of memory")
            return super().predict(x)

    narrow, predictor = Narrow(Flat()), Predictor(ON_CPU)
    view = PlacedTask(toy_task(), CPU).view("test", "none")
    logits = predictor.predict(narrow, view)
    assert torch.allclose(logits, Predictor(ON_CPU).predict(CrossEntropy(narrow.network), view))
    narrow.most = 0
    with pytest.raises(OutOfMemory, match="Predicting a single sample needs more"):
        predictor.predict(narrow, view)


# --- samples that stay in the host's memory ---------------------------------------------------


def test_streamed_samples_train_and_predict_in_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resident = train(steps=23).objective.state_dict()
    monkeypatch.setattr(placed, "fits", lambda _x, _device: False)
    streamed = train(steps=23).objective.state_dict()
    assert_equal(resident, streamed)


def test_streamed_batches_come_in_any_order_and_again() -> None:
    x = torch.arange(40).view(20, 2)
    ahead = Prefetch(x)
    batches = [torch.tensor([3, 1]), torch.tensor([19]), torch.tensor([0, 0, 5])]
    for order in ([0, 1, 2], [2, 0, 1]):  # as expected, and not
        ahead.expect(batches)
        assert all(torch.equal(ahead.take(batches[i]), x[batches[i]]) for i in order)
    assert torch.equal(ahead.take(torch.tensor([7])), x[[7]])  # never announced
    assert torch.equal(ahead.take(slice(4, 6)), x[4:6])
    ahead.expect([])
    assert torch.equal(ahead.take(batches[0]), x[batches[0]])


def test_a_batch_nobody_announced_is_never_taken_for_one_that_is_gone() -> None:
    x = torch.arange(100)
    ahead = Prefetch(x)
    for _ in range(200):
        ahead.expect([torch.randint(0, 100, (3,)) for _ in range(4)])
        index = torch.randint(0, 100, (5,))  # may well lie where a freed one lay
        assert torch.equal(ahead.take(index), x[index])


def test_training_settings_take_auto_and_refuse_none_at_all() -> None:
    read: list[Any] = [
        parse(Training, {"micro_batch": given}, owner="training").micro_batch
        for given in ("auto", "12", "none")
    ]
    assert read == ["auto", 12, None]
    with pytest.raises(OptionError, match="micro_batch"):
        parse(Training, {"micro_batch": "0"}, owner="training")


def test_a_run_in_parts_is_another_spec(plugins: Plugins) -> None:
    def spec(**training: Any) -> str:
        return make_spec(plugins, method="erm", dataset="toy", training=training).id

    assert len({spec(), spec(micro_batch=8), spec(micro_batch=4)}) == 3
    with pytest.raises(OptionError, match=r"not resolved: train\.micro_batch is auto"):
        spec(micro_batch="auto")


def test_a_batch_of_one_sample_fits_also_with_batchnorm_over_positions() -> None:
    network = Normalised("positions").build(toy_task().shape)
    stage = make_stage(CrossEntropy(network), training=Training(batch_size=1))
    assert fitting(stage, ON_CPU) == 1
