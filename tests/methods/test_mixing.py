"""LISA mixes samples that share a class or a bias value, with the numbers of its authors' code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from debiasbench import Batch
from debiasbench.common.errors import OptionError
from debiasbench.core.model import Shape
from debiasbench.methods.lisa import LISA, LISALoss, PairedBatches, random_box
from debiasbench.models.mlp import MLP
from debiasbench.parts.mixing import check_mixable
from debiasbench.testing import toy_task
from debiasbench.testing.methods import TRAINING
from tests.methods.test_methods import Draws
from tests.running import fit_whole


class Seeing(nn.Module):
    """Returns fixed logits, or its inputs, and remembers the inputs."""

    def __init__(self, z: Tensor | None = None) -> None:
        super().__init__()
        self.z, self.seen = z, torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x if self.z is None else self.z


def batch(x: Tensor, y: list[int]) -> Batch:
    return Batch(x, torch.tensor(y), torch.arange(len(y)))


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


X = torch.tensor([[1.0, 0], [0, 2], [3, 4], [1, 1]])
FACTOR = torch.tensor([0.25, 0.6])


def test_inputs_and_labels_are_mixed_as_by_the_authors() -> None:
    network = Seeing(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    loss = LISALoss(network, 2.0).mixed(batch(X, [0, 0, 1, 1]), FACTOR)
    torch.testing.assert_close(network.seen, torch.tensor([[2.5, 3], [0.4, 1.6]]))
    assert loss.item() == close(0.888262)  # of the labels (.25, .75) and (.6, .4)


def test_each_pair_of_a_batch_has_its_own_factor() -> None:
    x = torch.cat([torch.ones(500, 1), torch.zeros(500, 1)])
    network = Seeing(torch.zeros(500, 2))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LISALoss(network, 2.0)(batch(x, [0] * 1000))
    factors = network.seen[:, 0]
    assert len(factors.unique()) > 490
    assert factors.mean().item() == pytest.approx(0.5, abs=0.05)
    assert factors.var().item() == pytest.approx(0.05, abs=0.01)  # of Beta(2, 2)


def test_cut_mix_exchanges_a_box_in_both_directions_and_weighs_labels_by_its_area() -> None:
    x = torch.stack([torch.zeros(1, 2, 4), torch.ones(1, 2, 4)])
    network = Seeing(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    box = torch.zeros(2, 4, dtype=torch.bool)
    box[0, :2] = True
    loss = LISALoss(network, 2.0, cut_mix=True).cut(batch(x, [0, 1]), box)
    assert network.seen[0].equal(box[None].float())
    assert network.seen[1].equal(1 - box[None].float())
    low, high = 0.313262, 1.313262
    assert loss.item() == close((0.75 * low + 0.25 * high + 0.75 * high + 0.25 * low) / 2)


@pytest.mark.parametrize(("factor", "height", "width"), [(0.75, 4, 8), (1.0, 0, 0)])
def test_a_box_has_its_share_of_the_sides_where_no_border_cuts_it(
    factor: float, height: int, width: int
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        boxes = [random_box(8, 16, torch.tensor(factor)) for _ in range(200)]
    assert max(int(box.any(1).sum()) for box in boxes) == height
    assert max(int(box.any(0).sum()) for box in boxes) == width
    areas = {int(box.sum()) for box in boxes}
    assert all(area == box.any(1).sum() * box.any(0).sum() for box in boxes for area in [box.sum()])
    assert len(areas) > 1 or height == 0


# four groups, in the order (y, bias) = (0, 0), (0, 1), (1, 0), (1, 1)
BINARY = torch.tensor([0] * 40 + [1] * 8 + [2] * 12 + [3] * 50)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs_of(batch: Tensor, group: Tensor) -> set[tuple[int, ...]]:
    first, second = group[batch].chunk(2)
    return {tuple(sorted(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)}


@pytest.mark.parametrize(
    ("ratio", "pairs"), [(1.0, {(0, 1), (2, 3)}), (0.0, {(0, 2), (1, 3)})], ids=["class", "bias"]
)
def test_two_classes_and_two_bias_values_are_paired_as_by_the_authors(
    ratio: float, pairs: set[tuple[int, int]]
) -> None:
    batches = PairedBatches(BINARY, 2, 16, ratio, steps=20)(0, seeded(0))
    assert len(batches) == 20
    for one in batches:
        assert pairs_of(one, BINARY) == pairs
        assert BINARY[one].bincount().tolist() == [4, 4, 4, 4]


def test_half_of_the_steps_mix_within_classes() -> None:
    batches = PairedBatches(BINARY, 2, 16, 0.5, steps=1000)(0, seeded(0))
    within = sum(pairs_of(one, BINARY) == {(0, 1), (2, 3)} for one in batches)
    assert within == pytest.approx(500, abs=60)


def test_every_sample_of_a_group_is_read_once_before_any_is_read_again() -> None:
    batches = PairedBatches(BINARY, 2, 16, 0.5, steps=10)(0, seeded(0))
    read = torch.cat(batches).bincount(minlength=len(BINARY))
    assert read[:40].tolist() == [1] * 40
    assert read[40:48].tolist() == [5] * 8
    assert read[48:60].sum() == 40
    assert read[48:60].max() - read[48:60].min() <= 1


def test_the_batches_of_an_epoch_depend_on_the_generator_only() -> None:
    batches = PairedBatches(BINARY, 2, 16, 0.5, steps=5)
    first, again, other = batches(0, seeded(0)), batches(1, seeded(0)), batches(0, seeded(1))
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not all(a.equal(b) for a, b in zip(first, other, strict=True))


def test_with_more_groups_partners_share_the_class_or_the_bias_value_and_differ_in_the_other() -> (
    None
):
    group = torch.arange(12).repeat(5)  # 3 classes, 4 bias values
    met = set()
    for one in PairedBatches(group, 4, 24, 0.5, steps=200)(0, seeded(0)):
        pairs = pairs_of(one, group)
        met |= pairs
        labels = {a // 4 == b // 4 for a, b in pairs}
        values = {a % 4 == b % 4 for a, b in pairs}
        assert (labels, values) in [({True}, {False}), ({False}, {True})]
        assert len(one) == 24
    # any two of 4 bias values in each of 3 classes; any two of 3 classes with each of 4 values
    assert len(met) == 3 * 6 + 4 * 3


def test_with_an_odd_number_of_groups_each_of_them_is_left_out_equally_often() -> None:
    group = torch.arange(6).repeat(5)  # 2 classes, 3 bias values
    batches = PairedBatches(group, 3, 4, 1.0, steps=900)(0, seeded(0))
    counts = group[torch.cat(batches)].bincount()
    assert (counts - 600).abs().max() < 80


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_group_without_samples_leaves_the_other_pair(ratio: float) -> None:
    group = BINARY[BINARY != 1]
    for one in PairedBatches(group, 2, 16, ratio, steps=5)(0, seeded(0)):
        assert pairs_of(one, group) == ({(2, 3)} if ratio else {(0, 2)})
        assert len(one) == 16


def test_without_groups_that_share_something_samples_are_mixed_within_groups() -> None:
    group = torch.tensor([0] * 5 + [3] * 5)
    for one in PairedBatches(group, 2, 8, 0.5, steps=5)(0, seeded(0)):
        assert pairs_of(one, group) == {(0, 0), (3, 3)}


def test_if_only_one_kind_of_pair_exists_every_step_uses_it() -> None:
    group = torch.tensor([0] * 5 + [1] * 5)  # one class, two bias values
    for one in PairedBatches(group, 2, 8, 0.0, steps=5)(0, seeded(0)):
        assert pairs_of(one, group) == {(0, 1)}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_smallest_batch_is_one_pair(size: int) -> None:
    assert {len(one) for one in PairedBatches(BINARY, 2, size, 0.5, steps=9)(0, seeded(0))} == {2}


def test_mixing_refuses_named_tensors() -> None:
    with pytest.raises(OptionError, match=r"method lisa mixes .* named tensors: ids\. Use another"):
        check_mixable(Shape(input=(), classes=2, inputs={"ids": (8,)}), "lisa")


@pytest.mark.parametrize(
    ("method", "steps"), [(LISA(), 10), (LISA(epoch="smallest"), 3)], ids=["split", "smallest"]
)
def test_an_epoch_reads_as_many_samples_as_the_split_has_or_the_smallest_group_once(
    method: LISA, steps: int
) -> None:
    task = toy_task()
    counts = task.train.group.bincount()
    assert (len(task.train), -(-int(counts.min()) // 4)) == (160, 3)  # 16 a batch, 4 of each group
    trainer = Draws()
    fit_whole(
        task,
        method,
        model=MLP(hidden=(16,)),
        training=TRAINING,
        trainer=trainer,
    )
    (stage,) = trainer.stages
    assert stage.steps == TRAINING.epochs * steps


def test_boxes_need_images() -> None:
    task = toy_task()
    flat = [replace(s, x=s.x.flatten(1).float()) for s in (task.train, task.val, task.test)]  # type: ignore[union-attr]
    tabular = replace(task, train=flat[0], val=flat[1], test=flat[2])
    with pytest.raises(OptionError, match=r"cut_mix needs images .* shape \(192,\)"):
        fit_whole(tabular, LISA(cut_mix=True), model=MLP(hidden=(16,)), training=TRAINING)
    fit_whole(tabular, LISA(), model=MLP(hidden=(16,)), training=replace(TRAINING, epochs=1))
