"""SSA spreads bias labels with balanced thresholds, and applies group DRO to the guesses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench import Batch
from debiasbench.common.errors import DataError
from debiasbench.methods.ssa import SSA, AttributeLoss, accuracies, balanced_thresholds
from debiasbench.models.mlp import MLP
from debiasbench.testing import toy_task
from debiasbench.testing.methods import TRAINING
from tests.methods.test_methods import Draws
from tests.running import fit_whole

GROUP = torch.tensor([0, 0, 0, 0, 1, 1, 1, 3, 3])
CONFIDENCE = torch.tensor([0.9, 0.99, 0.7, 0.8, 0.96, 0.97, 0.6, 0.99, 0.9])


def used(labelled: list[int], tau: float = 0.95) -> list[int]:
    thresholds = balanced_thresholds(torch.tensor(labelled), GROUP, CONFIDENCE, tau)
    return (thresholds[GROUP] <= CONFIDENCE).nonzero()[:, 0].tolist()


def test_the_smallest_group_passes_by_the_given_threshold_and_others_up_to_its_size() -> None:
    # group 1 is the smallest: 2 + 2 confident ones are the limit of 4
    # group 0 may add 1, its most confident; group 2 has no guesses; group 3 may add none
    assert used([3, 2, 3, 4]) == [1, 4, 5]


def test_a_group_with_few_guesses_passes_whole() -> None:
    assert used([3, 2, 3, 2]) == [1, 4, 5, 7, 8]


def test_a_group_without_labelled_samples_is_not_the_smallest() -> None:
    assert used([3, 2, 0, 0]) == [1, 4, 5, 7, 8]


def test_if_the_smallest_group_has_no_confident_guess_larger_groups_pass_none() -> None:
    assert used([3, 2, 3, 3], tau=0.98) == []


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def features_of(network: nn.Module, x: Any) -> tuple[Tensor, Tensor]:
    return torch.zeros(len(x), 2), network(x)


def make_loss() -> AttributeLoss:
    attribute = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        attribute.weight.copy_(torch.eye(2))
    return AttributeLoss(Identity(), attribute, features_of, 0.8, groups=4, samples=3)


U = torch.tensor([[3.0, 0.0], [0.0, 0.5], [0.0, 2.0]])
V = torch.tensor([[1.0, 0.0], [0.0, 0.0]])


def batch() -> Batch:
    beside = Batch(V, torch.tensor([0, 1]), torch.arange(2), bias=torch.tensor([0, 1]))
    return Batch(U, torch.tensor([0, 1, 1]), torch.arange(3), beside=beside)  # type: ignore[arg-type]


def test_labelled_samples_and_confident_guesses_have_a_mean_each() -> None:
    supervised = F.cross_entropy(V, torch.tensor([0, 1]))
    confident = F.cross_entropy(U[[0, 2]], torch.tensor([0, 1]))  # .62 is below .8
    assert make_loss()(batch()).item() == pytest.approx((supervised + confident).item(), abs=1e-5)


def test_the_threshold_is_that_of_the_group_of_class_and_guess() -> None:
    loss = make_loss()
    loss.thresholds.copy_(torch.tensor([0.0, 2.0, 2.0, 2.0]))  # only class 0 with guess 0
    expected = F.cross_entropy(V, torch.tensor([0, 1])) + F.cross_entropy(U[:1], torch.tensor([0]))
    assert loss(batch()).item() == pytest.approx(expected.item(), abs=1e-5)


def test_without_confident_guesses_the_loss_is_that_of_labelled_samples() -> None:
    loss = make_loss()
    loss.thresholds.fill_(2.0)
    expected = F.cross_entropy(V, torch.tensor([0, 1]))
    assert loss(batch()).item() == pytest.approx(expected.item(), abs=1e-5)


def test_accuracies_are_those_of_the_worst_group_with_samples_and_of_all() -> None:
    correct = torch.tensor([True, True, True, False, True])
    assert accuracies(correct, torch.tensor([0, 0, 0, 2, 2])) == (0.5, 0.8)


def fitted(method: SSA, task: Any = None, **settings: Any) -> list[Any]:
    trainer = Draws()
    fit_whole(
        task or toy_task(),
        method,
        model=MLP(hidden=(16,)),
        training=replace(TRAINING, **settings),
        trainer=trainer,
    )
    return trainer.stages


def test_the_bias_of_a_sample_is_predicted_by_a_network_that_did_not_train_on_it() -> None:
    task = toy_task()
    *attributes, last = fitted(SSA(num_splits=4, attribute_epochs=9), task)
    assert [stage.name for stage in (*attributes, last)] == [
        *(f"attribute {k}" for k in (1, 2, 3, 4)),
        "train",
    ]
    pools = torch.stack([s.batches.pool.bincount(minlength=len(task.train)) for s in attributes])
    assert pools.sum(0).eq(3).all()
    # each sample has the guess of the network without it
    guesses = torch.stack([stage.objective.guess for stage in attributes])
    by_own = guesses[pools.argmin(0), torch.arange(len(task.train))]
    assert last.extra["pseudo"].tolist() == (task.train.y * 2 + by_own).tolist()
    assert (by_own == task.train.bias).float().mean() > 0.95
    assert all(s.settings.epochs == 9 for s in attributes)
    assert last.settings.epochs == TRAINING.epochs


def test_one_half_of_the_labelled_samples_trains_and_the_other_chooses_the_epoch() -> None:
    task = toy_task()
    first, second, *_ = fitted(SSA(labeled_valset_size=0.25), task)
    learn = first.beside.batches.pool
    assert len(learn.unique()) == len(learn) == len(task.val) * 3 // 4
    assert learn.equal(second.beside.batches.pool)
    assert 0 <= first.objective.score[0] <= first.objective.score[1] <= 1


def test_a_schedule_that_follows_the_class_labels_is_not_used_for_the_bias() -> None:
    *attributes, last = fitted(SSA(), schedule="plateau")
    assert {stage.settings.schedule for stage in attributes} == {"constant"}
    assert last.settings.schedule == "plateau"


def test_a_single_labelled_sample_is_refused() -> None:
    task = toy_task()
    one = replace(task.val, x=task.val.x[:1], y=task.val.y[:1], bias=task.val.bias[:1])  # type: ignore[index]
    with pytest.raises(DataError, match=r"needs 2 or more samples .* it has 1\. Use another"):
        fitted(SSA(), replace(task, val=one))
