"""PDE begins with balanced groups, and adds every other sample once, in random order."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from debiasbench.methods.pde import PDE, expansion_order
from debiasbench.models.mlp import MLP
from debiasbench.testing import toy_task
from debiasbench.testing.methods import TRAINING
from tests.methods.test_methods import Draws
from tests.running import fit_whole

GROUP = torch.tensor([0] * 50 + [1] * 7 + [3] * 20)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shuffled(seed: int = 1) -> torch.Tensor:
    return GROUP[torch.randperm(len(GROUP), generator=seeded(seed))]


def test_the_first_samples_are_as_many_of_each_group_as_the_smallest_has() -> None:
    group = shuffled()
    order, first = expansion_order(group, 0, seeded(0))
    assert group[order[:first]].bincount().tolist() == [7, 7, 0, 7]
    assert sorted(order.tolist()) == list(range(len(group)))


def test_a_cap_above_the_smallest_group_leaves_this_group_whole() -> None:
    group = shuffled()
    order, first = expansion_order(group, 10, seeded(0))
    assert group[order[:first]].bincount().tolist() == [10, 7, 0, 10]
    order, first = expansion_order(group, 5, seeded(0))
    assert group[order[:first]].bincount().tolist() == [7, 7, 0, 7]


def test_a_cap_above_all_groups_uses_all_samples_at_once() -> None:
    order, first = expansion_order(GROUP, 100, seeded(0))
    assert first == len(order) == len(GROUP)


def test_added_samples_are_random_and_follow_the_seed() -> None:
    group = shuffled()
    order, first = expansion_order(group, 0, seeded(0))
    again, _ = expansion_order(group, 0, seeded(0))
    other, _ = expansion_order(group, 0, seeded(2))
    assert torch.equal(order, again)
    assert not torch.equal(order[first:], other[first:])
    assert order[first:].tolist() != sorted(order[first:].tolist())


def test_samples_are_added_at_the_end_of_the_warm_up_and_then_in_intervals() -> None:
    method = PDE(warmup_epochs=3, expansion_size=4, expansion_interval=2)
    assert [method.added(epoch) for epoch in range(9)] == [0, 0, 0, 4, 4, 8, 8, 12, 12]


def stage_of(method: PDE, **settings: Any) -> Any:
    trainer = Draws()
    fit_whole(
        toy_task(),
        method,
        model=MLP(hidden=(16,)),
        training=replace(TRAINING, **settings),
        trainer=trainer,
    )
    (stage,) = trainer.stages
    return stage


def test_every_epoch_reads_all_samples_in_use_once_and_never_loses_one() -> None:
    method = PDE(warmup_epochs=2, expansion_size=20, expansion_interval=2)
    stage = stage_of(method)
    groups = toy_task().train.group
    smallest = int(groups.bincount().min())
    used: list[set[int]] = []
    for epoch in range(6):
        drawn = torch.cat(stage.batches.epoch(seeded(epoch), epoch)).tolist()
        assert len(drawn) == len(set(drawn))
        used.append(set(drawn))
    assert [len(u) for u in used] == [4 * smallest + n for n in (0, 0, 20, 20, 40, 40)]
    assert all(before <= after for before, after in pairwise(used))
    assert groups[list(used[0])].bincount().tolist() == [smallest] * 4


def test_all_samples_are_used_once_nothing_is_left_to_add() -> None:
    stage = stage_of(PDE(warmup_epochs=1, expansion_size=1000))
    sizes = [len(torch.cat(stage.batches.epoch(seeded(0), epoch))) for epoch in (1, 5)]
    assert sizes == [len(toy_task().train)] * 2


def test_the_learning_rate_falls_by_gamma_at_the_end_of_the_warm_up() -> None:
    stage = stage_of(PDE(warmup_epochs=2, expansion_interval=2, expansion_size=40, gamma=0.25))
    epochs = [len(stage.batches.epoch(seeded(0), epoch)) for epoch in range(6)]
    assert stage.settings.schedule == "step"
    assert stage.settings.decay == 0.25
    assert stage.settings.milestones == (sum(epochs[:2]) / sum(epochs),)
    assert stage.steps == sum(epochs)


@pytest.mark.parametrize("method", [PDE(warmup_epochs=2), PDE(warmup_epochs=6, gamma=0.5)])
def test_the_schedule_of_the_run_stays_without_gamma_or_without_an_end_of_the_warm_up(
    method: PDE,
) -> None:
    assert stage_of(method, schedule="cosine").settings.schedule == "cosine"
