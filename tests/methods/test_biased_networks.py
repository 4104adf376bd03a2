"""DisEnt, LC and DeNetDM compute what their authors' code does.

The numbers were computed with the authors' own functions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from debiasbench import Batch, Model, Shape
from debiasbench.common.errors import OptionError, RecordError
from debiasbench.core.features import FeaturesOf
from debiasbench.methods.denetdm import Branches, DeNetDM, DeNetDMLoss, distillation
from debiasbench.methods.disent import DisEnt, DisEntLoss, TwoEncoders
from debiasbench.methods.lc import LC, LCLoss, Prior, corrected, mixing, partners
from debiasbench.models.cnn import CNN
from debiasbench.models.mlp import MLP
from debiasbench.models.resnet import ResNet18
from debiasbench.models.zoo import Timm
from debiasbench.records.store import read, read_weights
from debiasbench.runs.export import export
from debiasbench.runs.fit import Fitted
from debiasbench.sparsity import RigL, Sparsify
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.testing import toy_task
from debiasbench.testing.methods import TRAINING
from tests.conftest import ACME, ToyPlugin
from tests.methods.test_methods import NoReading
from tests.running import fit_whole, run

TOY = Plugins([(ToyPlugin(), ACME)])
SHORT = replace(TRAINING, epochs=3)


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


def rows(tensor: Tensor) -> list[Any]:
    values: list[list[float]] = tensor.tolist()
    return [close(row) for row in values]


def linear(weight: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    layer.weight.data = torch.tensor(weight)
    return layer


# DisEnt

Z_I, Z_B = [[1.0, 0], [0, 1], [1, 1]], [[0.0, 2], [1, 0], [0, 1]]
DISENT_Y = torch.tensor([0, 1, 0])
ORDER = torch.tensor([1, 2, 0])


def disent(**options: Any) -> DisEntLoss:
    network = TwoEncoders(nn.Identity(), nn.Identity(), linear([[1, -1, 0.5, 0], [-1, 1, 0, 0.5]]))
    biased = linear([[0, 0.5, 1, -1], [0.5, 0, -1, 1]])
    return DisEntLoss(network, biased, DISENT_Y, DisEnt(gce="released", **options))


def disent_batch(progress: float) -> Batch:
    return Batch(torch.zeros(3, 2), DISENT_Y, torch.arange(3), progress=torch.tensor(progress))


def test_disent_has_the_loss_and_gradients_of_the_authors_code() -> None:
    z_i, z_b = (torch.tensor(z, requires_grad=True) for z in (Z_I, Z_B))
    loss = disent().loss(z_i, z_b, disent_batch(0.9), ORDER)
    assert loss.item() == close(5.922812)
    loss.backward()
    assert z_i.grad is not None
    assert z_b.grad is not None
    assert rows(z_i.grad) == [[-0.173931, 0.173931], [0.086095, -0.086095], [-0.289128, 0.289128]]
    assert rows(z_b.grad) == [[-0.471414, 0.471414], [1.868727, -1.868727], [-2.086997, 2.086997]]


def test_disent_weighs_samples_as_the_authors_code() -> None:
    loss = disent()
    u, v = loss.heads(torch.tensor(Z_I), torch.tensor(Z_B))
    own, biased = (nn.functional.cross_entropy(z, DISENT_Y, reduction="none") for z in (u, v))
    weight = loss.weights(biased, own, torch.arange(3))
    assert weight.tolist() == close([0.756659, 0.5, 0.320418])
    assert (weight * own).mean().item() == close(0.216617)
    assert loss.amplified(v, DISENT_Y).item() == close(0.255684)


def test_disent_weighs_the_terms_by_its_options_and_swaps_late() -> None:
    features = torch.tensor(Z_I), torch.tensor(Z_B)

    def value(progress: float, **options: Any) -> float:
        return disent(**options).loss(*features, disent_batch(progress), ORDER).item()

    apart = 0.216617 + 10 * 0.255684
    assert value(0.2) == close(apart)  # authors: t > curr_step
    assert value(0.21) == close(5.922812)
    assert value(0.5, swap_from=0.5) == close(apart)
    assert value(0.9, lambda_swap=0.0) == close(apart)
    assert value(0.9, lambda_dis=0.0, lambda_swap_b=0.0) == close(0.216617 + 0.173310)
    swapped = 0.173310 + 2 * 0.297604
    assert value(0.9, lambda_swap=0.1, lambda_swap_b=2.0) == close(apart + 0.1 * swapped)


def test_disent_predicts_with_the_features_of_both_encoders() -> None:
    network = TwoEncoders(nn.Identity(), nn.Linear(2, 2), linear([[1, -1, 0.5, 0]]))
    x = torch.rand(3, 2)
    expected = network.head(torch.cat([x, network.biased(x)], 1))
    assert network(x).equal(expected)


def test_disent_draws_the_permutation_from_torchs_generator_and_reads_nothing_back() -> None:
    loss, batch = disent(), disent_batch(0.9)
    batch.x = torch.tensor(Z_I)
    with torch.random.fork_rng(), NoReading():
        torch.manual_seed(0)
        values = [loss(batch) for _ in range(8)]
    assert len({value.item() for value in values[1:]}) > 1


# LC

LC_Y = torch.tensor([0, 0, 1, 1])
BIASED = torch.tensor([[2.0, 0], [1, 0], [0, 1], [1.5, 0]])
P = BIASED.softmax(1).gather(1, LC_Y[:, None])[:, 0]
GUESS = torch.tensor([0, 0, 1, 0])


def prior(average: Any, alpha: float = 0.9) -> Prior:
    made = Prior(2, average, alpha)
    with NoReading():
        made.update(LC_Y, GUESS, P, torch.tensor(0))
    return made


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        ("mv", [[0.865823, 0], [0.182426, 0.731059]]),
        ("mv_batch", [[0.080589, 0], [0.018241, 0.073099]]),
        ("batch", [[0.805888, 0], [0.182407, 0.730985]]),
        ("epoch", [[0.805888, 0], [0.182407, 0.730985]]),
    ],
)
def test_the_prior_of_lc_has_the_averages_of_the_authors_code(average: Any, expected: Any) -> None:
    assert P.tolist() == close([0.880797, 0.731059, 0.731059, 0.182426])
    assert rows(prior(average).q) == expected


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        ("mv_batch", [[0.814608, 0.184381], [0, 0.998634]]),
        ("batch", [[0.815350, 0.184549], [0, 0.999863]]),
    ],
)
def test_the_columns_of_the_prior_are_normalised(average: Any, expected: Any) -> None:
    assert rows(prior(average).given(torch.tensor([0, 1]))) == expected


def test_a_guess_that_was_never_made_has_a_finite_prior() -> None:
    empty = Prior(3, "batch", 0.9).given(torch.tensor([2]))
    assert corrected(torch.zeros(1, 3), empty, torch.tensor([0])).isfinite().all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9])
def test_moving_averages_of_samples_are_those_of_one_sample_after_another(alpha: float) -> None:
    rng = torch.Generator().manual_seed(0)
    average, q, seen = Prior(3, "mv", alpha), torch.zeros(3, 3), torch.zeros(3, 3)
    for _ in range(4):
        y, guess = (torch.randint(3, (7,), generator=rng) for _ in range(2))
        p = torch.rand(7, generator=rng)
        average.update(y, guess, p, torch.tensor(0))
        for c, g, value in zip(y.tolist(), guess.tolist(), p.tolist(), strict=True):
            q[c, g] = alpha * q[c, g] + (1 - alpha * seen[c, g]) * value
            seen[c, g] = 1
    assert rows(average.q) == q.tolist()


def test_averages_of_batches_decay_in_cells_without_samples() -> None:
    average = prior("mv_batch")
    before = average.q[0, 0].item()
    average.update(LC_Y[2:], GUESS[2:], P[2:], torch.tensor(0))
    assert average.q[0, 0].item() == close(0.9 * before)


def test_averages_of_an_epoch_begin_again_in_the_next() -> None:
    average, one = prior("epoch"), (LC_Y[:1], GUESS[:1])
    average.update(*one, torch.tensor([0.5]), torch.tensor(0))
    assert average.q[0, 0].item() == close((0.880797 + 0.731059 + 0.5) / 3.0001)
    average.update(*one, torch.tensor([0.5]), torch.tensor(1))
    assert average.q.tolist() == [[close(0.5 / 1.0001), 0], [0, 0]]


def test_corrected_losses_are_those_of_the_authors_code() -> None:
    logits = torch.tensor([[0.5, 0.2], [0.1, 0.3], [0, 0.4], [0.6, 0.1]])
    losses = corrected(logits, prior("batch").given(GUESS), LC_Y)
    assert losses.tolist() == close([0.155078, 0.244179, 0.000067, 2.113977])


def test_mixing_grows_as_in_the_authors_code() -> None:
    progress = torch.tensor([0, 0.25, 0.5, 1])
    assert mixing(progress, 1.0).tolist() == close([0.003369, 0.030027, 0.143252, 0.5])
    assert mixing(progress / 2, 0.5).tolist() == close([0.003369, 0.030027, 0.143252, 0.5])
    assert mixing(progress, 0.25)[1:].tolist() == [0.5, 0.5, 0.5]
    assert mixing(progress, 0.0).tolist() == [0.5] * 4


def test_partners_are_drawn_from_the_minority_of_the_class() -> None:
    y = torch.tensor([0, 0, 1, 0, 1, 2, 0, 2, 2])
    guess = torch.tensor([0, 1, 1, 0, 1, 2, 2, 2, 2])
    with torch.random.fork_rng(), NoReading():
        torch.manual_seed(0)
        drawn = torch.stack([partners(y, guess) for _ in range(400)])
    assert drawn[:, y == 0].unique().tolist() == [1, 6]
    share = (drawn[:, 0] == 1).float().mean().item()
    assert 0.4 < share < 0.6
    assert (drawn[:, 0] != drawn[:, 3]).any()  # each sample draws its own


def test_partners_of_a_class_without_minority_are_a_random_permutation_of_it() -> None:
    y = torch.tensor([2, 0, 2, 1, 2])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [tuple(partners(y, y).tolist()) for _ in range(200)]
    assert all(d[1] == 1 and d[3] == 3 for d in drawn)
    assert len(set(drawn)) == 6
    assert {tuple(sorted((d[0], d[2], d[4]))) for d in drawn} == {(0, 2, 4)}


class Seeing(nn.Module):
    """A network that returns its inputs and remembers them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x)
        return x


def lc_batch(progress: float) -> Batch:
    now = {"progress": torch.tensor(progress), "epoch": torch.tensor(0)}
    return Batch(BIASED, LC_Y, torch.arange(4), **now)


def test_lc_mixes_samples_of_a_class_and_their_priors_alike() -> None:
    network = Seeing()
    loss = LCLoss(network, nn.Identity(), 2, LC(tau=1.0, ramp=0.0, lambda_dis=0.0))
    value = loss(lc_batch(0.0))
    x = network.seen[0]
    # partners: class 0 has no minority; sample 3 is the minority of class 1
    factor = (x[2, 0] - BIASED[3, 0]) / (BIASED[2, 0] - BIASED[3, 0])
    assert 0 <= factor <= 0.5
    assert x[2].tolist() == close(BIASED[3].lerp(BIASED[2], factor).tolist())
    assert x[3].tolist() == close(BIASED[3].tolist())
    c = prior("batch").given(GUESS)
    mixed = torch.stack([c[0], c[1], c[3].lerp(c[2], factor), c[3]])
    assert value.item() == close(corrected(x, mixed, LC_Y).mean().item())


def test_lc_mixes_little_at_the_beginning() -> None:
    network = Seeing()
    loss = LCLoss(network, nn.Identity(), 2, LC(ramp=1.0))
    loss(lc_batch(0.0))
    assert (network.seen[0] - BIASED).abs().max() <= 0.007 * (BIASED.max() - BIASED.min())


def test_lc_adds_gce_of_the_biased_network_and_predicts_without_the_correction() -> None:
    def value(weight: float) -> float:
        loss = LCLoss(Seeing(), nn.Identity(), 2, LC(lambda_dis=weight, q=0.7, gce="paper"))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            value: float = loss(lc_batch(0.5)).item()
        return value

    gce = ((1 - P**0.7) / 0.7).mean().item()
    assert value(3.0) - value(0.0) == close(3 * gce)
    assert LCLoss(nn.Identity(), nn.Identity(), 2, LC()).predict(BIASED).equal(BIASED)


def test_lc_softens_the_biased_predictions_by_tau() -> None:
    loss = LCLoss(nn.Identity(), nn.Identity(), 2, LC(tau=2.0))
    loss(lc_batch(0.0))
    softened = (BIASED / 2).softmax(1).gather(1, LC_Y[:, None])[:, 0]
    assert loss.prior.q[1, 1].item() == close(softened[2].item() / 1.0001)


@pytest.mark.parametrize("average", ["batch", "mv_batch", "mv", "epoch"])
def test_lc_reads_nothing_back_and_keeps_its_prior_at_evaluation(average: Any) -> None:
    loss = LCLoss(nn.Identity(), nn.Identity(), 2, LC(avg_type=average))
    with NoReading():
        loss(lc_batch(0.3))
    q = loss.prior.q.clone()
    assert q.any()
    loss.eval()
    loss(Batch(BIASED[:1], LC_Y[:1], torch.arange(1), progress=torch.tensor(0.3)))
    assert loss.prior.q.equal(q)


def test_the_biased_network_of_lc_learns_more_slowly_and_without_weight_decay() -> None:
    biased = nn.Linear(2, 2)
    (group,) = LCLoss(nn.Linear(2, 2), biased, 2, LC()).parameter_groups()
    assert {id(p) for p in group.parameters} == {id(p) for p in biased.parameters()}
    assert (group.lr, group.weight_decay) == (0.1, 0.0)


# DeNetDM


def test_the_distillation_of_denetdm_is_that_of_the_authors() -> None:
    teacher, student = torch.tensor([[2.0, 0], [0, 1]]), torch.tensor([[1.0, 0], [0, 3]])
    assert distillation(student, teacher, 2.0).item() == close(2.752544)


def test_denetdm_trains_beside_the_deep_branch_and_taught_by_the_shallow_one() -> None:
    x, y = torch.rand(4, 3), torch.tensor([0, 1, 1, 0])
    first = Branches(nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(2, 2)).requires_grad_(False)
    model = MLP(hidden=(2,))
    network = model.build(Shape((3,), 2))
    assert isinstance(network, nn.Sequential)
    *body, classifier = network
    options = DeNetDM(poe_weight=3.0, dist_weight=0.5)
    loss = DeNetDMLoss(network, classifier, first, FeaturesOf(model), options)
    value = loss(Batch(x, y, torch.arange(4)))
    features = nn.Sequential(*body)(x)
    together = nn.functional.cross_entropy(classifier(features + first.deep(x)), y)
    taught = distillation(network(x), first.classifier(first.shallow(x)), 2.0)
    assert value.item() == close((3 * together + 0.5 * taught).item())
    value.backward()
    assert all(p.grad is None for p in first.parameters())
    assert all(p.grad is not None for p in network.parameters())


def test_a_branch_that_is_not_the_shallower_one_is_refused() -> None:
    with pytest.raises(OptionError, match="shallow=4 must be less than deep=4: give a smaller"):
        DeNetDM(shallow=4)


def fitted(method: Any, model: Model, **more: Any) -> Fitted:
    return fit_whole(toy_task(), method, model=model, training=SHORT, **more)


@pytest.mark.parametrize(
    ("model", "shallow", "deep"),
    [
        (MLP(hidden=(8, 8)), MLP(hidden=(8, 8)), MLP(hidden=(8, 8, 8, 8))),
        (CNN(width=4), CNN(width=4, depth=2), CNN(width=4, depth=4)),
        (ResNet18(width=4), ResNet18(width=4, depth=2), ResNet18(width=4)),
    ],
    ids=["mlp", "cnn", "resnet18"],
)
def test_denetdm_has_branches_of_two_depths_and_predicts_with_the_model_of_the_run(
    model: Model, shallow: Model, deep: Model
) -> None:
    def sizes(network: nn.Module) -> list[torch.Size]:
        return [p.shape for p in network.parameters()]

    task = toy_task()
    result = fitted(DeNetDM(stage1_epochs=1), model)
    branches, last = (stage.objective for stage in result.stages)
    assert [cost.epochs for cost in result.costs] == [1, SHORT.epochs]
    assert isinstance(branches.network, Branches)
    for branch, alone in ((branches.network.shallow, shallow), (branches.network.deep, deep)):
        body = sizes(alone.build(task.shape))[:-2]
        assert sizes(branch)[: len(body)] == body
    assert isinstance(last, DeNetDMLoss)
    assert sizes(last.network)[:-2] == sizes(model.build(task.shape))[:-2]
    # frozen whole, also the statistics of BatchNorm
    state = branches.network.state_dict()
    assert all(state[name].equal(value) for name, value in last.first.state_dict().items())


def test_denetdm_brings_branches_to_the_features_of_the_deep_one() -> None:
    result = fitted(DeNetDM(shallow=1, deep=3), MLP(hidden=(6, 5, 4, 7)))
    branches, last = (stage.objective for stage in result.stages)
    assert branches.network.get_submodule("classifier").weight.shape == (2, 4)
    assert isinstance(last, DeNetDMLoss)
    assert [m.weight.shape[0] for m in last.network.modules() if isinstance(m, nn.Linear)] == (
        [6, 5, 4, 7, 4, 2]
    )


def test_the_frozen_branches_of_denetdm_stay_sparse_as_they_were_trained() -> None:
    method, model = DeNetDM(), MLP(hidden=(16, 16))
    result = fitted(method, model, components=lambda: [Sparsify(RigL(density=0.2))])
    branches, last = (stage.objective for stage in result.stages)
    assert isinstance(last, DeNetDMLoss)
    state = branches.network.state_dict()
    assert all(state[name].equal(value) for name, value in last.first.state_dict().items())
    assert all(name.startswith("network.") for name in result.trained.densities)


@pytest.mark.parametrize(
    ("method", "model", "reason"),
    [
        (DeNetDM(), Timm("resnet10t"), "no option 'depth'"),
        (DeNetDM(deep=5), ResNet18(width=4), "depth=5"),
    ],
)
def test_denetdm_names_the_models_that_have_a_depth(
    method: DeNetDM, model: Model, reason: str
) -> None:
    with pytest.raises(OptionError, match="use --model mlp, cnn, resnet18") as caught:
        fitted(method, model)
    assert reason in str(caught.value)


# what the methods leave behind


def test_disent_returns_one_network_of_both_encoders_and_its_weights_as_scores() -> None:
    result = fitted(DisEnt(gce="released"), CNN(width=4))
    network = result.trained.objective.network
    assert isinstance(network, TwoEncoders)
    assert network.head.weight.shape == (2, 2 * 16)
    names = {name.partition(".")[0] for name in network.state_dict()}
    assert names == {"intrinsic", "biased", "head"}
    assert result.inferred is not None
    scores = result.inferred.scores
    assert scores is not None
    assert 0 <= scores.min() < scores.max() <= 1


def test_lc_declares_the_guesses_of_the_biased_network() -> None:
    result = fitted(LC(tau=1.0), MLP(hidden=(16,)))
    task, inferred = toy_task(), result.inferred
    assert inferred is not None
    assert inferred.groups is not None
    assert inferred.conflict is not None
    assert inferred.conflict.equal(inferred.groups % 2 != task.train.y)
    assert (inferred.groups // 2).equal(task.train.y)


def test_lc_refuses_inputs_that_cannot_be_mixed() -> None:
    task = toy_task()
    splits = {name: replace(split, x={"pixels": split.x}) for name, split in task.splits().items()}
    with pytest.raises(OptionError, match="named tensors: pixels"):
        fit_whole(replace(task, **splits), LC(), model=MLP(), training=SHORT)


def kept(method: str, folder: Path) -> Path:
    """Train the method on toy data with a small mlp, and return its record with weights."""
    spec = make_spec(
        TOY,
        dataset="toy",
        method=method,
        model="mlp",
        model_options={"hidden": (8, 8)},
        training={"epochs": 1},
    )
    return run(spec, TOY, results=folder, data_root=folder, keep_weights=True).path


@pytest.mark.parametrize("method", ["denetdm", "lc"])
def test_a_network_with_the_structure_of_its_model_is_exported(method: str, tmp_path: Path) -> None:
    assert export(kept(method, tmp_path), TOY, to="packed").difference == 0


def test_the_two_encoders_of_disent_are_kept_and_their_export_is_an_error(tmp_path: Path) -> None:
    record = kept("disent", tmp_path)
    content = load(read_weights(record, read(record)))
    assert {name.partition(".")[0] for name in content} == {"intrinsic", "biased", "head"}
    with pytest.raises(RecordError, match="do not fit MLP"):
        export(record, TOY, to="packed")
