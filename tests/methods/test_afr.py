"""AFR weighs samples and refits the last layer as its authors' code does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from debiasbench import Supervision
from debiasbench.common.errors import OptionError
from debiasbench.common.options import parse
from debiasbench.methods.afr import AFR, loss, refit, sample_weights
from debiasbench.methods.erm import ERM
from debiasbench.models.mlp import MLP
from debiasbench.testing import toy_task
from debiasbench.testing.methods import TRAINING
from tests.running import fit

Z = torch.tensor([[2.0, 0], [0, 1], [1, 0], [3, 0]])
Y = torch.tensor([0, 1, 1, 0])
HEAD = torch.eye(2)  # logits are the features
MU = (0.066098, 0.120312, 0.763989, 0.049602)


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


def p(y: torch.Tensor) -> torch.Tensor:
    return Z.softmax(1).gather(1, y[:, None])[:, 0]


def test_weights_are_those_of_the_authors_code() -> None:
    assert p(Y).tolist() == close([0.880797, 0.731059, 0.268941, 0.952574])
    assert (-4 * p(Y)).exp().tolist() == close([0.029505, 0.053706, 0.341037, 0.022142])
    assert sample_weights(p(Y), Y, 4.0).tolist() == close(MU)


def test_weights_of_a_rare_class_grow_by_its_frequency() -> None:
    y = torch.tensor([0, 0, 0, 1])
    expected = [0.010154, 0.117362, 0.018482, 0.854003]
    assert sample_weights(p(y), y, 4.0).tolist() == close(expected)
    assert sample_weights(p(y), 2 * y, 4.0).tolist() == close(expected)  # an empty class between


def test_the_loss_is_that_of_the_authors_code_and_the_penalty_counts_from_the_start() -> None:
    mu = torch.tensor([MU])
    assert loss(HEAD[None], HEAD, Z, Y, mu, torch.tensor([0.3])).item() == close(1.051807)
    moved = HEAD + torch.tensor([[0.5, 0.5], [0.5, 0.5]])  # has the same logits up to a constant
    assert loss(moved[None], HEAD, Z, Y, mu, torch.tensor([0.3])).item() == close(1.051807 + 0.3)


def test_one_step_follows_the_gradient_that_is_scaled_down_to_a_norm() -> None:
    mu, reg = torch.tensor([MU]), torch.zeros(1)
    gradient = (torch.tensor(MU)[:, None] * (Z.softmax(1) - torch.eye(2)[Y])).T @ Z
    plain, _ = refit(HEAD, Z, Y, mu, reg, steps=1, lr=0.1)
    assert plain[0].flatten().tolist() == close((HEAD - 0.1 * gradient).flatten().tolist())
    clipped, _ = refit(HEAD, Z, Y, mu, reg, steps=1, lr=0.1, grad_norm=0.01)
    assert (clipped[0] - HEAD).norm().item() == close(0.1 * 0.01)
    loose, _ = refit(HEAD, Z, Y, mu, reg, steps=1, lr=0.1, grad_norm=100.0)
    assert loose.equal(plain)


def test_heads_that_are_fitted_at_once_are_those_fitted_alone() -> None:
    mu = torch.stack([sample_weights(p(Y), Y, g) for g in (0.0, 4.0)])
    reg = torch.tensor([0.1, 0.0])
    settings: Any = {"steps": 50, "lr": 0.5, "grad_norm": 0.2}
    both, _ = refit(HEAD, Z, Y, mu, reg, **settings)
    for i in range(2):
        alone, _ = refit(HEAD, Z, Y, mu[i : i + 1], reg[i : i + 1], **settings)
        assert both[i].allclose(alone[0], atol=1e-6)


def test_a_strong_penalty_keeps_the_head_near_its_start() -> None:
    mu = torch.tensor([MU, MU])
    heads, _ = refit(HEAD, Z, Y, mu, torch.tensor([0.0, 5.0]), steps=200, lr=0.05)
    far, near = (heads - HEAD).flatten(1).norm(dim=1).tolist()
    assert near < 0.2 < far


def test_the_best_step_is_returned_and_the_second_number_decides_between_equal_ones() -> None:
    mu, reg = torch.tensor([MU]), torch.zeros(1)
    seen: list[torch.Tensor] = []
    scores = iter([(0.5, 0.1), (0.7, 0.2), (0.7, 0.3), (0.7, 0.3), (0.6, 0.9)])

    def score(w: torch.Tensor) -> torch.Tensor:
        seen.append(w)
        return torch.tensor([next(scores)])

    settings: Any = {"steps": 5, "lr": 0.1, "score": score}
    best, value = refit(HEAD, Z, Y, mu, reg, early_stopping=True, **settings)
    assert best.equal(seen[2])
    assert value.tolist() == [close([0.7, 0.3])]
    scores, count = iter([(0.2, 0.2)]), len(seen)
    last, value = refit(HEAD, Z, Y, mu, reg, **settings)
    assert len(seen) == count + 1
    assert last.equal(seen[-1])


@pytest.mark.parametrize(
    ("method", "val"),
    [
        (AFR(), "select"),
        (AFR(gamma=(4.0,), reg_coeff=(0.0,)), "select"),
        (AFR(gamma=(4.0,), reg_coeff=(0.0,), early_stopping=False), "none"),
        (AFR(gamma=(4.0, 5.0), reg_coeff=(0.0,), early_stopping=False), "select"),
    ],
)
def test_afr_reads_validation_groups_only_if_it_chooses_by_them(method: AFR, val: Any) -> None:
    assert method.supervision == Supervision(val=val)


@pytest.mark.parametrize("options", [{"gamma": "[]"}, {"reg_coeff": "[]"}, {"gamma": "[-1]"}])
def test_afr_refuses_candidates_that_cannot_be_used(options: dict[str, str]) -> None:
    with pytest.raises(OptionError, match=r"gamma|reg_coeff"):
        parse(AFR, options, owner="method afr")


def test_afr_changes_nothing_but_the_last_layer_and_trains_on_the_first_part_only() -> None:
    def run(method: Any, **more: Any) -> dict[str, torch.Tensor]:
        trained = fit(toy_task(), method, model=MLP(hidden=(16,)), training=TRAINING, **more)
        state: dict[str, torch.Tensor] = trained.objective.network.state_dict()
        return state

    one, other = run(AFR(lr=1.0, early_stopping=False)), run(AFR(gamma=(0.0,), steps=3))
    differing = [n for n in one if not torch.equal(one[n], other[n])]
    assert differing == ["3.weight", "3.bias"]
    assert not torch.equal(run(ERM())["1.weight"], one["1.weight"])
