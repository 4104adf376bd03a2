"""SPARE, EIIL and GEORGE infer the groups, and draw with the weights, of the authors' functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench import Batch, Method, Task
from debiasbench.core.stage import Stage, Trained
from debiasbench.methods.eiil import EIIL, environments
from debiasbench.methods.george import GEORGE, hardness
from debiasbench.methods.spare import SPARE, cluster_weights
from debiasbench.models.mlp import MLP
from debiasbench.parts.clusters import cluster, overclustered, search, silhouette, silhouettes
from debiasbench.parts.groups import GroupDROLoss
from debiasbench.parts.slopes import slopes
from debiasbench.testing import toy_task
from debiasbench.testing.methods import TRAINING
from debiasbench.training.predict import Predictor
from debiasbench.training.trainer import Sequential
from tests.running import fit_whole
from tests.training.stages import ON_CPU


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


# --- slopes -------------------------------------------------------------------------------------


def test_the_slope_is_the_derivative_of_the_loss_by_a_factor_of_the_logits() -> None:
    z = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    y = torch.tensor([0, 1, 2, 0, 1, 2, 0])

    def losses(scale: Tensor) -> Tensor:
        return F.cross_entropy(scale[:, None] * z, y, reduction="none")

    scale = torch.ones(7, dtype=torch.double, requires_grad=True)
    (expected,) = torch.autograd.grad(losses(scale).sum(), scale)
    assert slopes(z, y).tolist() == pytest.approx(expected.tolist())


BINARY = torch.tensor([2.0, 1.5, -1.0, 0.5, -2.0, 1.0], dtype=torch.double)
BINARY_Y = torch.tensor([1, 1, 1, 0, 0, 0])
SLOPES = (-0.238406, -0.273638, 0.731059, 0.311230, -0.238406, 0.731059)


def binary_slopes() -> Tensor:
    return slopes(torch.stack([torch.zeros(6).double(), BINARY], 1), BINARY_Y)


def test_slopes_of_binary_logits_are_those_of_the_authors() -> None:
    assert binary_slopes().tolist() == close(SLOPES)


# --- EIIL ---------------------------------------------------------------------------------------

START = torch.tensor([0.5, -0.3, 0.2, 0.1, -0.4, 0.6], dtype=torch.double)


def test_environments_are_those_of_the_authors() -> None:
    found = environments(binary_slopes(), START, lr=0.01, steps=200)
    assert found.tolist() == [1, 1, 0, 0, 1, 0]


def test_environments_begin_at_the_authors_objective_and_climb_by_its_gradient() -> None:
    d, w = binary_slopes(), START.clone().requires_grad_()

    def terms() -> tuple[Tensor, Tensor]:
        soft = w.sigmoid()
        return (soft * d).mean() ** 2, ((1 - soft) * d).mean() ** 2

    first, second = terms()
    assert first.item() == close(0.01272536)
    assert second.item() == close(0.00332653)
    objective = -(first + second) / 2
    assert objective.item() == close(-0.00802594)

    # an independent computation by autograd leads to the same environments
    adam = torch.optim.Adam([w], lr=0.01)
    for _ in range(200):
        adam.zero_grad()
        (-sum(terms()) / 2).backward()  # type: ignore[union-attr]
        adam.step()
    ours = environments(d, START, lr=0.01, steps=200)
    assert ours.tolist() == (w.sigmoid() <= 0.5).long().tolist()


def test_inferring_environments_leaves_its_start_alone() -> None:
    start = START.clone()
    environments(binary_slopes(), start, lr=0.01, steps=3)
    assert start.equal(START)


# --- SPARE --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("power", "large", "small", "shares"),
    [(1.0, 0.00555556, 0.05, (0.5, 0.5)), (2.0, 0.00111111, 0.09, (0.1, 0.9))],
)
def test_weights_of_clusters_are_those_of_the_authors(
    power: float, large: float, small: float, shares: tuple[float, float]
) -> None:
    clusters = torch.tensor([0] * 90 + [1] * 10)
    weights = cluster_weights(clusters, power)
    assert weights[0].item() == pytest.approx(large, abs=1e-7)
    assert weights[-1].item() == pytest.approx(small, abs=1e-7)
    assert weights[:90].sum().item() == close(shares[0])
    assert weights[90:].sum().item() == close(shares[1])


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_equal_clusters_have_equal_weights(power: float) -> None:
    weights = cluster_weights(torch.tensor([0] * 50 + [1] * 50), power)
    assert weights.tolist() == close([0.01] * 100)


class Draws(Sequential):
    """Trains as usual, and notes the stages."""

    def __init__(self) -> None:
        super().__init__(ON_CPU, Predictor(ON_CPU))
        self.stages: list[Stage] = []

    def train(self, stages: Any) -> list[Trained]:
        self.stages += stages
        return super().train(stages)


def stages_of(method: Method, task: Task | None = None) -> list[Stage]:
    trainer = Draws()
    fit_whole(
        task or toy_task(),
        method,
        model=MLP(hidden=(16,)),
        training=replace(TRAINING, epochs=2),
        trainer=trainer,
    )
    return trainer.stages


@pytest.mark.parametrize("clusters", [None, 2, 1])
def test_spare_draws_all_classes_equally_often(clusters: int | None) -> None:
    task = toy_task()
    _, train = stages_of(SPARE(num_clusters=clusters, max_clusters=4), task)
    weights = train.batches.weights
    assert weights is not None
    for c in range(2):
        assert weights[task.train.y == c].sum().item() == pytest.approx(1)
    if clusters is not None:
        assert len(weights[task.train.y == 0].unique()) <= clusters


def test_spare_uses_the_power_in_classes_that_are_not_clearly_separated_only() -> None:
    task = toy_task()

    def spread(threshold: float) -> float:
        _, train = stages_of(SPARE(num_clusters=2, silhouette_threshold=threshold), task)
        assert train.batches.weights is not None
        of_class = train.batches.weights[task.train.y == 0]
        return (of_class.max() / of_class.min()).item()

    assert spread(1.0) == pytest.approx(spread(-1.0) ** 2)
    assert spread(1.0) > 1


def test_spare_clusters_an_untrained_network_after_0_epochs() -> None:
    stages = stages_of(SPARE(infer_num_epochs=0))
    assert [stage.name for stage in stages] == ["train"]


# --- clusters -----------------------------------------------------------------------------------


def blobs(rng: np.random.Generator, *sizes: int) -> Any:
    means, deviations = ((0.0, 0.0), (5.0, 0.0), (5.0, 1.8)), (0.3, 0.3, 0.15)
    return np.concatenate(
        [rng.normal(m, s, (n, 2)) for m, s, n in zip(means, deviations, sizes, strict=True)]
    )


def georges_data() -> tuple[Any, Any, Any]:
    """Training samples, their losses, and validation samples of the vector of GEORGE."""
    rng = np.random.default_rng(0)
    train = blobs(rng, 200, 150, 40)
    return train, np.repeat([0.1, 0.2, 2.0], [200, 150, 40]), blobs(rng, 100, 80, 30)


def searched(x: Any, **more: Any) -> Any:
    given = {"kind": "kmeans", "mean": "clusters", "restarts": 3, "seed": 0} | more
    return search(x, range(2, 6), **given)


def split(x: Any, losses: Any, val: Any, min_val: int = 25, **more: Any) -> Any:
    base, _ = searched(x)
    return overclustered(
        x, base, losses, val, kind="kmeans", factor=5, restarts=3, min_val=min_val, seed=0, **more
    )


def test_the_search_for_clusters_finds_the_number_and_silhouette_of_the_authors() -> None:
    x, _, _ = georges_data()
    found, score = searched(x, last_of_equal=True)
    assert len(found) == 2
    assert score == pytest.approx(0.8551, abs=5e-5)


def test_overclustering_finds_the_clusters_of_the_authors() -> None:
    found = split(*georges_data())
    assert sorted(np.bincount(found).tolist()) == [40, 150, 200]
    for part in np.split(found, [200, 350]):
        assert len(set(part.tolist())) == 1


def test_overclustering_keeps_no_part_that_is_easy() -> None:
    x, losses, val = georges_data()
    losses[350:] = 0.1
    assert sorted(np.bincount(split(x, losses, val)).tolist()) == [190, 200]


def test_overclustering_keeps_no_part_that_validation_lacks() -> None:
    x, losses, val = georges_data()
    assert sorted(np.bincount(split(x, losses, val[:-10])).tolist()) == [190, 200]
    assert sorted(np.bincount(split(x, losses, val[:0])).tolist()) == [190, 200]
    assert sorted(np.bincount(split(x, losses, val[:0], min_val=0)).tolist()) == [40, 150, 200]


def test_overclustering_keeps_no_part_of_few_samples() -> None:
    x, losses, val = georges_data()
    assert sorted(np.bincount(split(x[:-16], losses[:-16], val)).tolist()) == [174, 200]


def test_a_mean_over_clusters_counts_a_small_cluster_as_much_as_a_large_one() -> None:
    x = np.array([[0.0], [0.1], [0.2], [5.0], [7.0]])
    clusters = np.array([0, 0, 0, 1, 1])
    values = silhouettes(x, clusters, seed=0)
    assert silhouette(x, clusters, mean="samples", seed=0) == close(values.mean())
    expected = (values[:3].mean() + values[3:].mean()) / 2
    assert silhouette(x, clusters, mean="clusters", seed=0) == close(expected)
    assert abs(expected - values.mean()) > 0.01


def test_silhouettes_of_many_samples_are_those_of_a_seeded_part() -> None:
    x = georges_data()[0]
    clusters = np.repeat([0, 1], [200, 190])
    some = silhouettes(x, clusters, seed=0, limit=100)
    assert (~np.isnan(some)).sum() == 100
    np.testing.assert_equal(some, silhouettes(x, clusters, seed=0, limit=100))
    other = silhouettes(x, 1 - clusters, seed=0, limit=100)
    assert (np.isnan(some) == np.isnan(other)).all()
    assert (np.isnan(some) != np.isnan(silhouettes(x, clusters, seed=1, limit=100))).any()
    whole = silhouette(x, clusters, mean="clusters", seed=0)
    assert silhouette(x, clusters, mean="clusters", seed=0, limit=100) == pytest.approx(
        whole, abs=0.02
    )


@pytest.mark.parametrize("kind", ["kmeans", "gmm"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_few_or_equal_samples_give_fewer_clusters(kind: Any, dtype: Any) -> None:
    for x in (np.ones((30, 3)), np.zeros((1, 3)), np.eye(3), np.repeat(np.eye(3), 9, 0)):
        found, score = searched(x.astype(dtype), kind=kind)
        assert 1 <= len(found) <= 3
        assert sorted(set(found.of.tolist())) == list(range(len(found)))
        assert -1 <= score <= 1
        assert set(found.assign(x).tolist()) <= set(range(len(found)))
        assert found.assign(x[:0]).tolist() == []


@pytest.mark.parametrize("kind", ["kmeans", "gmm"])
def test_other_samples_get_the_cluster_they_lie_in(kind: Any) -> None:
    x = georges_data()[0]
    found = cluster(x, 3, kind=kind, restarts=3, seed=0)
    assert found.assign(x).tolist() == found.of.tolist()
    assert found.assign(x[[0, 200, 389]] + 0.01).tolist() == found.of[[0, 200, 389]].tolist()


def test_the_first_of_equally_good_numbers_of_clusters_is_taken_or_the_last() -> None:
    x = np.zeros((10, 1))  # all numbers give one cluster with the silhouette 0
    x[0] = 1.0  # every number gives these two
    assert len(searched(x)[0]) == len(searched(x, last_of_equal=True)[0]) == 2


def test_a_search_without_candidates_is_refused() -> None:
    with pytest.raises(ValueError, match="ks is empty"):
        search(np.eye(3), [], kind="kmeans", mean="samples", restarts=1, seed=0)


# --- GEORGE -------------------------------------------------------------------------------------


class Given(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_group_dro_over_pseudo_groups_moves_q_as_the_authors_softmax_of_log_weights() -> None:
    losses = torch.tensor([0.2, 1.0, 2.0, 0.5])
    p = (-losses).exp()
    z = torch.stack([p, 1 - p], 1).log()
    loss = GroupDROLoss(Given(), torch.tensor([100, 25, 4, 64]), 0.01, 0.0, by="pseudo")
    y, index = torch.zeros(4, dtype=torch.long), torch.arange(4)
    value = loss(Batch(z, y, index, pseudo=torch.arange(4)))
    assert loss.q.tolist() == close([0.248188, 0.250182, 0.252696, 0.248934])
    assert loss.q.tolist() == close((0.01 * losses).softmax(0).tolist())
    assert value.item() == close(0.929679)


def test_hardness_of_two_classes_is_the_normalised_difference_of_their_weights() -> None:
    head = torch.tensor([[1.0, 2.0], [4.0, 6.0]])
    assert hardness(head, 1).tolist() == close([0.6, 0.8])
    assert hardness(head, 0).tolist() == close([-0.6, -0.8])


def test_hardness_of_more_classes_opposes_a_class_to_the_mean_of_the_others() -> None:
    head = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    assert hardness(head, 0).tolist() == close([1.0, 0.0])
    assert hardness(torch.ones(3, 2), 0).tolist() == [0.0, 0.0]
    assert hardness(torch.tensor([[0.0, 2.0]]), 0).tolist() == [0.0, 1.0]


GEORGES = [
    GEORGE(max_k=3),
    GEORGE(reduction="pca", k=2),
    GEORGE(reduction="none", clustering="kmeans", max_k=3, center=True, sampling="uniform"),
    GEORGE(reduction="none", clustering="kmeans", max_k=3, overcluster=True, min_val=0),
]


@pytest.mark.parametrize("method", [*GEORGES, EIIL(inference_steps=50)])
@pytest.mark.parametrize("absent", [None, (1, 0)])
def test_all_samples_are_in_one_pseudo_group_by_which_they_are_drawn(
    method: Any, absent: tuple[int, int] | None
) -> None:
    task = toy_task(absent=absent)
    train = stages_of(method, task)[-1]
    pseudo = train.extra["pseudo"]
    assert pseudo.shape == task.train.y.shape
    assert isinstance(train.objective, GroupDROLoss)
    assert int(pseudo.max()) < len(train.objective.q)
    counts = pseudo.bincount()
    if getattr(method, "sampling", "balanced") == "uniform":
        assert train.batches.weights is None
    else:
        assert train.batches.weights is not None
        drawn = torch.zeros(len(counts)).double().index_add(0, pseudo, train.batches.weights)
        assert drawn[counts > 0].tolist() == pytest.approx([1.0] * int((counts > 0).sum()))
    if isinstance(method, GEORGE):
        assert counts.min() > 0
        for g in range(len(counts)):
            assert len(task.train.y[pseudo == g].unique()) == 1  # a class of its own


def test_eiil_crosses_environments_with_classes_when_asked() -> None:
    plain = stages_of(EIIL(inference_steps=50))[-1].extra["pseudo"]
    crossed = stages_of(EIIL(inference_steps=50, groups="class-environment"))[-1].extra["pseudo"]
    assert set(plain.tolist()) == {0, 1}
    assert crossed.equal(2 * toy_task().train.y + plain)


@pytest.mark.parametrize("method", [*GEORGES, SPARE(), EIIL(inference_steps=5)])
def test_a_class_with_one_training_sample_is_a_group(method: Any) -> None:
    task = toy_task()
    keep = task.train.y == 0
    keep[2] = True  # of class 1
    train = replace(
        task.train, x=task.train.x[keep], y=task.train.y[keep], bias=task.train.bias[keep]
    )
    last = stages_of(method, replace(task, train=train))[-1]
    lonely = int((train.y == 1).nonzero())
    if isinstance(method, GEORGE):
        assert (last.extra["pseudo"] == last.extra["pseudo"][lonely]).sum() == 1
    if isinstance(method, SPARE):
        assert last.batches.weights is not None
        assert last.batches.weights[lonely] == 1
