"""IRM, CORAL and MMD compute the penalties of their authors' code, and no NaN.

Numbers were computed with the authors' own functions.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from debiasbench import Batch
from debiasbench.methods.irm import IRMLoss, Penalty
from debiasbench.parts.alignment import AlignedFeatures, coral, mmd
from debiasbench.parts.slopes import slopes

Z = torch.tensor([[2.0, 0], [0, 1], [1, 1], [0, 3]])
Y = torch.tensor([0, 0, 1, 1])
X = torch.tensor([[0.0, 0], [1, 1], [1, 0], [2, 1], [3, 0]])
GROUP = torch.tensor([0, 0, 1, 1, 1])


class Given(nn.Module):
    """A network whose logits are its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


def batch(z: Tensor, y: Tensor, bias: list[int], progress: float = 0.0) -> Batch:
    return Batch(
        z,
        y,
        torch.arange(len(y)),
        bias=torch.tensor(bias),
        progress=torch.tensor(progress),
    )


def penalty_of(kind: Penalty, z: Tensor, y: Tensor = Y, bias: tuple[int, ...] = (0,) * 4) -> Tensor:
    """The penalty alone, which the loss of a weight of 1 adds to the risk."""
    loss = IRMLoss(Given(), max(bias) + 1, 1.0, 0.0, kind)
    return loss._mean(loss._penalties(slopes(z, y), torch.tensor(bias)), batch(z, y, list(bias)))


def test_the_squared_slope_is_that_of_the_authors() -> None:
    assert penalty_of("square", Z).item() == close(0.007673)


def test_the_product_of_two_halves_is_that_of_domainbed_and_so_is_its_gradient() -> None:
    z = Z.clone().requires_grad_()
    value = penalty_of("halves", z)
    assert value.item() == close(-0.035092)
    (gradient,) = torch.autograd.grad(value, z)
    expected = (0.013363, 0.055291, 0.073598, 0.005251)
    assert gradient[:, 0].tolist() == close(expected)
    assert gradient[:, 1].tolist() == close([-g for g in expected])


@pytest.mark.parametrize("kind", ["square", "halves"])
def test_environments_are_penalised_apart_and_absent_ones_do_not_count(kind: Penalty) -> None:
    order = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])  # the two environments take turns
    z, y = torch.cat([Z, 2 * Z])[order], torch.cat([Y, Y])[order]
    both = penalty_of(kind, z, y, bias=(3, 1) * 4)
    one, two = penalty_of(kind, Z), penalty_of(kind, 2 * Z)
    assert both.item() == close(((one + two) / 2).item())


@pytest.mark.parametrize("kind", ["square", "halves"])
def test_an_environment_with_one_sample_has_a_finite_loss_and_gradient(kind: Penalty) -> None:
    z = Z[:3].clone().requires_grad_()
    loss = IRMLoss(Given(), 5, 100.0, 0.0, kind)(batch(z, Y[:3], [0, 0, 4]))
    loss.backward()
    assert loss.isfinite()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    if kind == "halves":  # there is no second half of the environment 4
        assert penalty_of(kind, Z[:1], Y[:1], bias=(4,)) == 0


def test_irm_averages_the_risks_of_the_environments() -> None:
    losses = nn.functional.cross_entropy(Z, Y, reduction="none")
    loss = IRMLoss(Given(), 2, 0.0, 0.0)(batch(Z, Y, [0, 1, 1, 1]))
    assert loss.item() == close(((losses[0] + losses[1:].mean()) / 2).item())


def test_irm_weighs_the_penalty_by_1_before_annealing_and_then_divides_by_its_weight() -> None:
    risk = nn.functional.cross_entropy(Z, Y).item()
    loss = IRMLoss(Given(), 1, 50.0, 0.2)
    before, after = (loss(batch(Z, Y, [0] * 4, p)).item() for p in (0.19, 0.2))
    assert before == close(risk + 0.007673)
    assert after == close((risk + 50 * 0.007673) / 50)


def test_irm_does_not_divide_by_a_weight_below_1() -> None:
    risk = nn.functional.cross_entropy(Z, Y).item()
    assert IRMLoss(Given(), 1, 0.1, 0.0)(batch(Z, Y, [0] * 4)).item() == close(
        risk + 0.1 * 0.007673
    )


@pytest.mark.parametrize(("distance", "value"), [(mmd, 3.451862), (coral, 1.333333)])
def test_the_distance_of_two_groups_is_that_of_the_authors(distance: Any, value: float) -> None:
    assert distance(X, GROUP, 2).item() == close(value)


def pairwise(distance: Any, x: Tensor, group: Tensor, values: list[int]) -> Tensor:
    """The mean of the distances of all pairs of groups, one pair after the other."""
    pairs = [(a, b) for a in values for b in values if a < b]
    each = []
    for a, b in pairs:
        rows = (group == a) | (group == b)
        each.append(distance(x[rows], (group[rows] == b).long(), 2))
    return torch.stack(each).mean()


def seeded_features(n: int) -> Tensor:
    return torch.randn(n, 7, generator=torch.Generator().manual_seed(0)) + 5


@pytest.mark.parametrize("distance", [mmd, coral])
def test_the_distance_of_several_groups_is_the_mean_over_their_pairs(distance: Any) -> None:
    x, group = seeded_features(24), torch.tensor([0, 1, 1, 3, 3, 3] * 4)
    expected = pairwise(distance, x, group, [0, 1, 3])
    assert distance(x, group, 5).item() == pytest.approx(expected.item(), rel=1e-4)


def test_coral_is_the_squared_difference_of_means_and_of_covariances() -> None:
    x, group = seeded_features(20), torch.tensor([0, 1] * 10)
    one, two = x[::2], x[1::2]
    means = (one.mean(0) - two.mean(0)).square().mean()
    covariances = (one.T.cov() - two.T.cov()).square().mean()
    assert coral(x, group, 2).item() == pytest.approx((means + covariances).item(), rel=1e-4)


def test_coral_leaves_out_a_group_of_one_sample() -> None:
    x, group = seeded_features(9), torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 2])
    assert coral(x, group, 3).item() == close(coral(x[:8], group[:8], 2).item())


@pytest.mark.parametrize("distance", [mmd, coral])
@pytest.mark.parametrize("group", [[0], [1, 1, 1], [0, 1], [2, 0, 0, 0]])
def test_too_few_samples_give_no_nan(distance: Any, group: list[int]) -> None:
    x = seeded_features(len(group)).requires_grad_()
    value = distance(x, torch.tensor(group), 3)
    value.backward()
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    if distance is coral or len(set(group)) == 1:
        assert value == 0


@pytest.mark.parametrize("distance", [mmd, coral])
def test_equal_features_have_distance_0_and_no_gradient(distance: Any) -> None:
    x = torch.ones(6, 4, requires_grad=True)
    value = distance(x, torch.tensor([0, 1] * 3), 2)
    value.backward()
    assert value.item() == close(0)
    assert x.grad is not None
    assert x.grad.abs().max() == 0


def test_the_distance_is_not_computed_in_half_precision() -> None:
    def halved(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        return network(x), x.bfloat16()

    with torch.autocast("cpu", torch.bfloat16):
        loss = AlignedFeatures(Given(), halved, coral, 2, 1.0)
        value = loss(Batch(X, GROUP, torch.arange(5), bias=GROUP))
    cross_entropy = nn.functional.cross_entropy(X, GROUP)
    assert value.item() == close(cross_entropy.item() + 1.333333)


def test_gamma_weighs_the_distance_which_the_network_can_lower() -> None:
    network = nn.Linear(2, 2)

    def features_of(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        z = network(x)
        return z, z

    inputs = Batch(X, GROUP, torch.arange(5), bias=GROUP)
    z = network(X)
    expected = nn.functional.cross_entropy(z, GROUP) + 3 * mmd(z, GROUP, 2)
    loss = AlignedFeatures(network, features_of, mmd, 2, 3.0)(inputs)
    assert loss.item() == close(expected.item())
    loss.backward()
    assert network.weight.grad is not None
    assert network.weight.grad.abs().sum() > 0
