"""DivDis has the losses and the order of queries of its authors' functions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench import Batch, Split
from debiasbench.methods.divdis import (
    DivDis,
    DivDisLoss,
    disagreement,
    divergence,
    mutual_information,
)
from debiasbench.models.cnn import CNN
from debiasbench.models.mlp import MLP
from debiasbench.testing import toy_task
from debiasbench.testing.methods import TRAINING
from tests.running import fit_whole

# logits of three target samples: two heads with two classes
P = torch.tensor([[2.0, 0, -1, 1], [0, 1, 2, 0], [1, 0, 0, 0]]).view(3, 2, 2).softmax(2)


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


def test_mutual_information_and_order_of_disagreement_are_those_of_the_authors() -> None:
    assert mutual_information(P).item() == close(0.052786)
    assert disagreement(P).argsort(descending=True).tolist() == [0, 1, 2]


def test_disagreement_sums_the_l1_distance_over_all_pairs() -> None:
    p = torch.rand(5, 3, 4).softmax(2)
    expected = (p[:, :, None] - p[:, None]).abs().sum((1, 2, 3))
    torch.testing.assert_close(disagreement(p), expected)


def test_mutual_information_is_the_mean_over_pairs_of_different_heads() -> None:
    p = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0)).softmax(2)
    pairs = [mutual_information(p[:, [h, g]]) for h, g in ((0, 1), (0, 2), (1, 2))]
    assert mutual_information(p).item() == close(torch.stack(pairs).mean().item())


def test_mutual_information_of_equal_certain_heads_is_the_entropy_of_their_classes() -> None:
    z = torch.tensor([[500.0, 0], [0, 500]]).repeat(2, 1)[:, None].expand(-1, 2, -1)
    z = z.clone().requires_grad_()
    information = mutual_information(z.softmax(2))
    information.backward()
    assert information.item() == close(math.log(2))
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_mutual_information_of_one_sample_is_0_and_has_a_gradient() -> None:
    z = torch.randn(1, 4, 3).requires_grad_()
    information = mutual_information(z.softmax(2))
    information.backward()
    assert information.item() == close(0)
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_mutual_information_is_not_computed_in_half_precision() -> None:
    p = (torch.randn(64, 4, 2, generator=torch.Generator().manual_seed(0)) / 3).softmax(2)
    with torch.autocast("cpu", torch.bfloat16):
        information = mutual_information(p)
    assert information == mutual_information(p)


def test_divergence_is_that_of_the_mean_predictions_of_each_head_from_those_in_training() -> None:
    source = torch.tensor([[[0.8, 0.2], [0.6, 0.4]], [[0.4, 0.6], [0.2, 0.8]]], requires_grad=True)
    q = torch.tensor([0.5, 0.5])  # over samples and heads
    p = P.mean(0)
    expected = sum(float((p[h] * (p[h] / q).log()).sum()) for h in (0, 1)) / 2
    target = P.clone().requires_grad_()
    value = divergence(target, source)
    assert value.item() == close(expected)
    value.backward()
    assert source.grad is None
    assert target.grad is not None


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def features_of(network: nn.Module, x: Any) -> tuple[Tensor, Tensor]:
    return network(x), x


def make_loss(diversity: float, balance: float) -> DivDisLoss:
    others = nn.Linear(2, 4, bias=False)
    with torch.no_grad():
        others.weight.copy_(torch.tensor([[0.0, 1], [1, 0], [2, 0], [0, -1]]))
    return DivDisLoss(Identity(), others, features_of, diversity, balance)


def batch() -> Batch:
    rng = torch.Generator().manual_seed(0)
    x, u = torch.randn(5, 2, generator=rng), torch.randn(3, 2, generator=rng)
    beside = Batch(u, torch.zeros(3, dtype=torch.long), torch.arange(3))
    return Batch(x, torch.tensor([0, 1, 1, 0, 1]), torch.arange(5), beside=beside)  # type: ignore[arg-type]


def test_the_networks_own_head_is_the_first_and_the_others_follow() -> None:
    x = torch.tensor([[3.0, 5.0]])
    assert make_loss(1, 1).logits(x).tolist() == [[[3, 5], [5, 3], [6, -5]]]
    assert make_loss(1, 1).predict(x).tolist() == [[3, 5]]


def test_the_loss_adds_cross_entropy_diversity_and_balance() -> None:
    given = batch()
    loss = make_loss(10.0, 5.0)
    z, u = loss.logits(given.x), loss.logits(given.beside.x)
    ce = torch.stack([F.cross_entropy(z[:, h], given.y) for h in range(3)]).mean()
    p = u.softmax(2)
    expected = ce + 10 * mutual_information(p) + 5 * divergence(p, z.softmax(2))
    assert loss(given).item() == close(expected.item())


class Labelled:
    """What `DivDis.choose` asks of a lab: two features, and labels of each split."""

    def __init__(self, x: dict[str, Tensor], y: dict[str, list[int]]) -> None:
        self.x, self.y = x, y

    def features(self, loss: DivDisLoss, split: str) -> Tensor:
        return self.x[split]

    def labels(self, split: str) -> Tensor:
        return torch.tensor(self.y[split])

    def head(self, network: nn.Module) -> nn.Linear:
        own = nn.Linear(2, 2, bias=False)
        own.weight = nn.Parameter(torch.eye(2))
        return own

    def generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(0)


def chosen(method: DivDis, lab: Labelled) -> int:
    return method.choose(lab, make_loss(1.0, 1.0))  # type: ignore[arg-type]


# head 0 has the logits (a, b) for the features (a, b), head 1 (b, a), and head 2 (2a, -b)
X = torch.tensor([[3.0, 1.0], [2.0, 0.5], [0.1, 0.2], [-1.0, 1.0]])


def test_without_labels_of_the_target_the_head_is_chosen_by_the_training_loss() -> None:
    lab = Labelled({"train": X}, {"train": [0, 0, 1, 1]})
    assert chosen(DivDis(heads=3), lab) == 0
    lab.y["train"] = [1, 1, 0, 0]
    assert chosen(DivDis(heads=3), lab) == 1
    lab.y["train"] = [0, 0, 0, 1]
    assert chosen(DivDis(heads=3), lab) == 2


def test_with_queries_only_the_labels_of_the_samples_with_most_disagreement_count() -> None:
    method = DivDis(heads=3, select="active", queries=2)
    p = torch.stack([X, X.flip(1), X * torch.tensor([2.0, -1])], 1).softmax(2)
    most = disagreement(p).argsort(descending=True)[:2].tolist()
    for labels_of_others in (0, 1):
        y = [labels_of_others] * 4
        for i in most:
            y[i] = int(X[i, 0] < X[i, 1])  # as head 0 predicts
        assert chosen(method, Labelled({"val": X}, {"val": y})) == 0
        for i in most:
            y[i] = 1 - y[i]
        assert chosen(method, Labelled({"val": X}, {"val": y})) == 1


def test_random_queries_choose_the_head_that_is_right_most_often_and_may_exceed_the_split() -> None:
    method = DivDis(heads=3, select="random", queries=1000)
    assert chosen(method, Labelled({"val": X}, {"val": [1, 1, 0, 0]})) == 1


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_result_is_the_network_with_the_chosen_head(
    name: str, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[Any, DivDisLoss]] = []

    def choose(self: DivDis, lab: Any, loss: DivDisLoss) -> int:
        kept.append((lab, loss))
        return index

    monkeypatch.setattr(DivDis, "choose", choose)
    task = toy_task()
    model = MLP(hidden=(16,)) if name == "mlp" else CNN(width=8)
    fitted = fit_whole(task, DivDis(heads=3), model=model, training=replace(TRAINING, epochs=1))
    ((_, loss),) = kept
    x = task.test.x[:5].float() / 255  # type: ignore[index]
    with torch.no_grad():
        expected = loss.eval().logits(x)[:, index]
        got = fitted.trained.objective.eval().predict(x)
    torch.testing.assert_close(got, expected)


@pytest.mark.slow
def test_one_head_ignores_a_bias_that_training_never_contradicts_and_another_follows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses: list[DivDisLoss] = []
    choose = DivDis.choose

    def watched(self: DivDis, lab: Any, loss: DivDisLoss) -> int:
        losses.append(loss)
        return choose(self, lab, loss)

    monkeypatch.setattr(DivDis, "choose", watched)
    task = toy_task(ratio=0.0)
    aligned = task.train.y == task.train.bias
    x, y, bias = (values[aligned] for values in (task.train.x, task.train.y, task.train.bias))  # type: ignore[index]
    task = replace(task, train=Split(x, y, bias, num_biases=2))
    settings = replace(TRAINING, lr=0.01, epochs=100)
    fitted = fit_whole(
        task, DivDis(heads=2, select="active"), model=MLP(hidden=(16, 16)), training=settings
    )
    x = task.test.x.float() / 255  # type: ignore[union-attr]
    conflict = task.conflict(task.test)
    with torch.no_grad():
        logits = losses[0].eval().logits(x)  # (N, 2, 2)
        chosen = fitted.trained.objective.eval().predict(x)
    correct = (logits.argmax(2) == task.test.y[:, None])[conflict].float().mean(0)
    assert correct.min() < 0.2
    assert correct.max() > 0.9
    assert (chosen.argmax(1) == task.test.y)[conflict].float().mean() == correct.max()
