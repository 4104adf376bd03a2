"""Balancing methods compute the weights, subsets and losses of their papers and authors' code.

The numbers of losses and weights were computed with the authors' own functions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from debiasbench import (
    Batch,
    Method,
    Model,
    Objective,
    Shape,
    Stage,
    Trained,
    equal_groups,
    equal_subset,
)
from debiasbench.common.errors import OptionError
from debiasbench.methods.balanced_softmax import BalancedSoftmaxLoss
from debiasbench.methods.crt import CRT
from debiasbench.methods.cvar import CVaRLoss, soft_weights
from debiasbench.methods.focal import FocalLoss
from debiasbench.methods.ldam import LDAM, CosineHead, LDAMLoss
from debiasbench.methods.mixup import MixupLoss
from debiasbench.methods.reweight import WeightedCrossEntropy
from debiasbench.models.cnn import CNN
from debiasbench.models.mlp import MLP
from debiasbench.parts.balancing import group_weights
from debiasbench.testing import toy_task
from debiasbench.testing.methods import TRAINING
from debiasbench.training.predict import Predictor
from debiasbench.training.trainer import Sequential
from tests.running import fit_whole
from tests.training.stages import ON_CPU

Z = torch.tensor([[2.0, 0, 0], [0, 1, 0]])
Y = torch.tensor([0, 2])
COUNTS = torch.tensor([1000, 100, 10])


class Given(nn.Module):
    """A network whose logits are its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def batch(z: Tensor = Z, y: Tensor = Y) -> Batch:
    return Batch(z, y, torch.arange(len(y)))


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("gamma", "value"), [(1.0, 0.636828), (2.0, 0.487186), (0.0, 0.895495)])
def test_the_focal_loss_is_that_of_the_authors(gamma: float, value: float) -> None:
    assert FocalLoss(Given(), gamma)(batch()).item() == close(value)


def test_the_focal_loss_has_a_finite_gradient_where_a_sample_is_certain() -> None:
    z = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    FocalLoss(Given(), 0.5)(batch(z, torch.tensor([0]))).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_balanced_softmax_is_that_of_the_authors_and_predicts_without_the_shift() -> None:
    loss = BalancedSoftmaxLoss(Given(), COUNTS)
    assert loss(batch()).item() == close(2.434117)
    assert loss.predict(Z).equal(Z)


def test_balanced_softmax_leaves_out_a_class_without_samples() -> None:
    z = Z.clone().requires_grad_()
    loss = BalancedSoftmaxLoss(Given(), torch.tensor([5, 0, 5]))(batch(z))
    loss.backward()
    two = nn.functional.cross_entropy(Z[:, [0, 2]], torch.tensor([0, 1]))
    assert loss.item() == close(two.item())
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad[:, 1].eq(0).all()


@pytest.mark.parametrize(
    ("scheme", "weights"),
    [
        ("effective", (0.129178, 1.285986, 2.571329, 0.013507)),
        ("inverse", (0.128617, 1.286174, 2.572347, 0.012862)),
        ("sqrt", (0.446895, 1.413207, 1.998577, 0.141321)),
    ],
)
def test_weights_of_groups_are_those_of_the_authors(scheme: Any, weights: tuple[float]) -> None:
    counts = torch.tensor([100, 10, 5, 1000])
    assert group_weights(counts, scheme).tolist() == close(weights)


@pytest.mark.parametrize("scheme", ["effective", "inverse", "sqrt"])
def test_a_group_without_samples_has_no_weight_and_a_huge_one_keeps_its_own(scheme: Any) -> None:
    weights = group_weights(torch.tensor([10, 0, 10_000_000]), scheme)
    assert weights[1] == 0
    assert weights[2] > 0  # 1 - beta^n is exactly 1 in floating point
    assert weights.sum().item() == close(2)


def test_effective_numbers_are_exact_for_beta_near_1() -> None:
    # 1 - beta^n is about n (1 - beta), so the weights are those of the inverse
    weights = group_weights(torch.tensor([100, 10]), "effective", beta=1 - 1e-10)
    assert weights.tolist() == close(group_weights(torch.tensor([100, 10]), "inverse").tolist())


def test_a_weighted_loss_is_divided_by_the_number_of_samples() -> None:
    loss = WeightedCrossEntropy(Given(), torch.tensor([2.0, 0.5]))
    assert loss(batch()).item() == close((2 * 0.239545 + 0.5 * 1.551445) / 2)


def test_mixup_weighs_the_two_labels_of_a_mixed_input_by_its_factor() -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    loss = MixupLoss(Given(), 0.2)
    mixed = loss.mixed(batch(z, torch.tensor([0, 1])), torch.tensor(0.3), torch.tensor([1, 0]))
    own = 0.3 * 0.313262 + 0.7 * 1.313262
    assert own == close(1.013262)
    other = 0.3 * 1.313262 + 0.7 * 0.313262
    assert mixed.item() == close((own + other) / 2)


def test_mixup_mixes_inputs_as_it_mixes_labels() -> None:
    seen: list[Tensor] = []

    class Seeing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    loss = MixupLoss(Seeing(), 0.2)
    loss.mixed(batch(), torch.tensor(0.25), torch.tensor([1, 0]))
    mixed = torch.stack([0.25 * Z[0] + 0.75 * Z[1], 0.25 * Z[1] + 0.75 * Z[0]])
    assert seen[0].allclose(mixed)


def test_mixup_draws_a_new_factor_from_torchs_generator_for_each_batch() -> None:
    loss = MixupLoss(Given(), 1.0)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        first = [loss(batch()).item() for _ in range(3)]
        torch.manual_seed(3)
        again = [loss(batch()).item() for _ in range(3)]
    assert first == again
    assert len(set(first)) == 3


def test_a_subset_has_all_of_the_smallest_group_and_as_many_of_the_others() -> None:
    group = torch.tensor([0] * 50 + [1] * 7 + [3] * 20)[torch.randperm(77, generator=seeded(1))]
    subset = equal_subset(group, seeded(0))
    assert group[subset].bincount().tolist() == [7, 7, 0, 7]
    assert subset.tolist() == sorted(set(subset.tolist()))
    assert not subset.equal(equal_subset(group, seeded(2)))
    assert subset.equal(equal_subset(group, seeded(0)))


def test_every_sample_of_a_large_group_is_drawn_equally_often() -> None:
    group = torch.tensor([0] * 10 + [1] * 5)
    rng = seeded(0)
    drawn = torch.cat([equal_subset(group, rng) for _ in range(400)]).bincount(minlength=15)
    assert drawn[10:].tolist() == [400] * 5
    assert drawn[:10].sum() == 2000
    assert (drawn[:10] - 200).abs().max() < 50  # five standard deviations


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_losses_that_are_means_over_samples_can_be_computed_in_parts() -> None:
    losses: list[Objective] = [
        FocalLoss(Given(), 2.0),
        BalancedSoftmaxLoss(Given(), COUNTS),
        WeightedCrossEntropy(Given(), torch.tensor([2.0, 0.5])),
    ]
    for loss in losses:
        assert loss.additive
        parts = [loss(batch().part(slice(i, i + 1))) for i in range(2)]
        assert loss(batch()).item() == close(torch.stack(parts).mean().item())
    assert not MixupLoss(Given(), 0.2).additive


def at(progress: float, z: Tensor = Z, y: Tensor = Y) -> Batch:
    return Batch(z, y, torch.arange(len(y)), progress=torch.tensor(progress))


def test_ldam_has_the_margins_and_the_loss_of_the_authors() -> None:
    loss = LDAMLoss(Given(), COUNTS)
    assert loss.margins.tolist() == close([0.158114, 0.281171, 0.5])
    assert loss(at(0.0, 30 * Z)).item() == close(22.5)
    assert loss.predict(Z).equal(Z)


def test_ldam_weighs_classes_by_their_effective_numbers_only_at_the_end() -> None:
    z, y = torch.tensor([[0.1, 0.0, 0.2], [0.3, 0.0, 0.2]]), torch.tensor([0, 2])
    loss = LDAMLoss(Given(), COUNTS, defer=0.8)
    margin = torch.tensor([[0.158114, 0, 0], [0, 0, 0.5]])
    each = nn.functional.cross_entropy(30 * (z - margin), y, reduction="none")
    w = group_weights(COUNTS, "effective")[y].float()
    assert loss(at(0.79, 30 * z, y)).item() == close(each.mean().item())
    weighted = (w * each).sum() / w.sum()
    assert loss(at(0.8, 30 * z, y)).item() == pytest.approx(weighted.item(), rel=1e-5)


def test_ldam_without_a_deferred_part_never_weighs() -> None:
    loss = LDAMLoss(Given(), COUNTS, defer=1.0)
    assert loss(at(0.999, 30 * Z)).item() == close(22.5)


def test_ldam_gives_a_class_without_samples_no_margin_and_no_weight() -> None:
    loss = LDAMLoss(Given(), torch.tensor([1000, 0, 10]))
    assert loss.margins.tolist() == close([0.158114, 0, 0.5])
    assert loss(at(0.9)).isfinite()


def test_the_head_of_ldam_returns_scaled_cosines() -> None:
    head = CosineHead(4, 3, 30.0)
    x = torch.randn(5, 4)
    cosines = nn.functional.cosine_similarity(x[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(x), 30 * cosines)
    torch.testing.assert_close(head(7 * x), 30 * cosines)


def test_the_head_of_ldam_has_a_moderate_gradient_where_a_mask_empties_a_row() -> None:
    head = CosineHead(4, 3, 30.0)
    with torch.no_grad():
        head.weight[1] = 0
    nn.functional.cross_entropy(head(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
    assert head.weight.grad is not None
    assert head.weight.grad.abs().max() < 1e5


# four losses: 4, 3, 2, 1
@pytest.mark.parametrize(
    ("alpha", "value"),
    [(1.0, 2.5), (0.5, 3.5), (0.25, 4.0), (0.375, 3.666667), (0.01, 4.0)],
)
def test_cvar_is_the_mean_of_the_worst_fraction(alpha: float, value: float) -> None:
    assert CVaRLoss(Given(), alpha)(losing(1.0, 2.0, 3.0, 4.0)).item() == close(value)


def losing(*losses: float) -> Batch:
    """Logits with these cross-entropies for class 0."""
    p = torch.exp(-torch.tensor(losses))
    return batch(torch.stack([p, 1 - p], 1).log(), torch.zeros(len(losses), dtype=torch.long))


def by_bisection(v: Tensor, alpha: float, reg: float) -> Tensor:
    """The weights of CVaR with a KL penalty, found as the authors find them."""
    low, high = v.min() - 50, v.max() + 50
    for _ in range(100):
        eta = (low + high) / 2
        p = ((v - eta) / reg).exp().clamp(max=1 / alpha) / len(v)
        low, high = (eta, high) if p.sum() > 1 else (low, eta)
    return p


@pytest.mark.parametrize("reg", [0.05, 0.5, 5.0, 100.0])
@pytest.mark.parametrize("alpha", [0.25, 0.375, 0.6, 1.0])
def test_cvar_with_a_penalty_has_the_weights_that_bisection_finds(alpha: float, reg: float) -> None:
    v = torch.tensor([4.0, 3, 2, 1, 0.5, 0.5, 0.1], dtype=torch.double)
    weights = soft_weights(v, alpha, reg)
    assert weights.tolist() == close(by_bisection(v, alpha, reg).tolist())
    assert weights.sum().item() == close(1)


def test_cvar_subtracts_the_divergence_of_its_weights_and_does_not_differentiate_them() -> None:
    inputs = losing(1.0, 2.0, 3.0, 4.0)
    z = inputs.x.clone().requires_grad_()  # type: ignore[union-attr,operator]
    value = CVaRLoss(Given(), 0.5, reg=1.0)(batch(z, inputs.y))
    v = torch.tensor([4.0, 3, 2, 1], dtype=torch.double)
    p = by_bisection(v, 0.5, 1.0)
    assert value.item() == close(((p * v).sum() - (p * (4 * p).log()).sum()).item())
    value.backward()
    same = z.detach().requires_grad_()
    losses = nn.functional.cross_entropy(same, inputs.y, reduction="none")
    (p.flip(0).float() * losses).sum().backward()
    torch.testing.assert_close(z.grad, same.grad)


@pytest.mark.parametrize("reg", [0.0, 0.5])
def test_cvar_of_one_sample_is_its_loss(reg: float) -> None:
    assert CVaRLoss(Given(), 0.1, reg)(losing(3.0)).item() == close(3)


class Kept(Sequential):
    """Trains as usual, and keeps each stage with the weights that it began from."""

    def __init__(self) -> None:
        super().__init__(ON_CPU, Predictor(ON_CPU))
        self.stages: list[tuple[Stage, dict[str, Tensor], Trained]] = []

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        (stage,) = stages
        start = copy.deepcopy(stage.objective.network.state_dict())
        (trained,) = super().train(stages)
        self.stages.append((stage, start, trained))
        return [trained]


def kept(method: Method, network: Model) -> list[tuple[Stage, dict[str, Tensor], Trained]]:
    trainer = Kept()
    fit_whole(
        toy_task(),
        method,
        model=network,
        training=TRAINING,
        trainer=trainer,
    )
    return trainer.stages


def test_crt_trains_a_new_last_layer_on_balanced_groups_and_nothing_else() -> None:
    (_, _, first), (stage, start, second) = kept(CRT(retrain_epochs=2), CNN())
    before, after = (t.objective.network.state_dict() for t in (first, second))
    assert any("running_mean" in name for name in before)  # BatchNorm must keep its statistics
    changed = {name for name, value in before.items() if not value.equal(after[name])}
    head = [name for name in before if start[name].shape[:1] == (2,)]
    assert changed == {name for name in start if not start[name].equal(before[name])} == set(head)
    assert not start[head[0]].equal(after[head[0]])
    assert stage.settings.epochs == 2
    group = toy_task().train.group
    assert stage.batches.weights is not None
    assert stage.batches.weights.tolist() == equal_groups(group).tolist()


def test_crt_by_class_draws_classes_equally_often_for_as_many_epochs_as_before() -> None:
    (_, _, _), (stage, _, _) = kept(CRT(by="class"), MLP(hidden=(8,)))
    assert stage.settings.epochs == TRAINING.epochs
    assert stage.batches.weights is not None
    assert stage.batches.weights.tolist() == equal_groups(toy_task().train.y).tolist()


def test_ldam_begins_from_unit_vectors_that_depend_on_the_seed() -> None:
    ((stage, start, _),) = kept(LDAM(), MLP(hidden=(8,)))
    head = stage.objective.network[-1]  # type: ignore[index]
    assert isinstance(head, CosineHead)
    (weight,) = (value for value in start.values() if value.shape == (2, 8))
    assert weight.norm(dim=1).tolist() == close([1, 1])


def test_ldam_refuses_a_last_layer_that_it_cannot_replace() -> None:
    class Convolutional(Model):
        """Classifies by a 1x1 convolution."""

        def build(self, shape: Shape) -> nn.Module:
            return nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    with pytest.raises(OptionError, match=r"method ldam .* this is an? Conv2d\. Use another"):
        kept(LDAM(), Convolutional())
