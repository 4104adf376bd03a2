"""Contrastive methods compute the losses, sets and gates of their papers and authors' code.

The numbers of losses were computed with the authors' own functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from debiasbench import Batch, Method
from debiasbench.common.errors import DataError
from debiasbench.core.objective import ParameterGroup
from debiasbench.methods.cnc import (
    CnC,
    CnCLoss,
    ContrastiveSets,
    Sizes,
    clusters,
    named_by_class,
)
from debiasbench.methods.dcwp import DCWP, GatedContrast, Mining, sampled_gate
from debiasbench.models.mlp import MLP
from debiasbench.parts.contrast import anchor_contrast, batch_contrast
from debiasbench.runs.fit import Fitted
from debiasbench.sparsity import count_flops
from debiasbench.testing import toy_task
from debiasbench.testing.methods import TRAINING
from debiasbench.training.placed import PlacedTask
from tests.running import fit_whole
from tests.training.stages import CPU


def close(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(x: Tensor, y: list[int], **columns: Tensor) -> Batch:
    return Batch(x, torch.tensor(y), torch.arange(len(y)), **columns)


# --- contrast -------------------------------------------------------------------------------------

ANCHOR = torch.tensor([1.0, 0])
POSITIVES = torch.tensor([[0.8, 0.6], [0, 1]])
NEGATIVES = torch.tensor([[0.6, 0.8], [-1, 0]])


def test_the_contrast_of_an_anchor_is_that_of_the_authors() -> None:
    assert anchor_contrast(ANCHOR, POSITIVES, NEGATIVES, 0.1).item() == close(4.127223)


def test_the_contrast_of_an_anchor_depends_on_directions_and_takes_many_anchors() -> None:
    values = anchor_contrast(
        torch.stack([ANCHOR, 3 * ANCHOR]),
        torch.stack([POSITIVES, 0.5 * POSITIVES]),
        torch.stack([NEGATIVES, 7 * NEGATIVES]),
        0.1,
    )
    assert values.tolist() == close([4.127223, 4.127223])


FEATURES = torch.tensor([[1.0, 0], [0.8, 0.6], [0, 1], [-1, 0.2], [0.3, -1]])
CLASSES = torch.tensor([0, 0, 0, 1, 1])
MINED = torch.tensor([0, 1, 0, 1, 0]).bool()


def test_the_contrast_of_a_batch_is_that_of_the_authors() -> None:
    assert batch_contrast(FEATURES, CLASSES, MINED, 0.07).item() == close(3.605947)


@pytest.mark.parametrize("samples", [5, 1])
def test_the_contrast_of_a_batch_without_positives_is_0_and_has_no_nan(samples: int) -> None:
    features = FEATURES[:samples].clone().requires_grad_()
    none = torch.zeros(samples, dtype=torch.bool)
    loss = batch_contrast(features, CLASSES[:samples], none, 0.07)
    loss.backward()
    assert loss.item() == 0
    assert features.grad is not None
    assert features.grad.eq(0).all()


def test_the_contrast_of_a_batch_is_not_computed_in_half_precision() -> None:
    features = torch.randn(16, 32, generator=seeded(0))
    mined, y = torch.ones(16, dtype=torch.bool), torch.arange(16) % 2
    with torch.autocast("cpu", torch.bfloat16):
        contrast = batch_contrast(features, y, mined, 0.05)
    assert contrast == batch_contrast(features, y, mined, 0.05)


def test_a_mined_sample_is_no_positive_of_itself_nor_of_another_class() -> None:
    only = torch.tensor([1, 0, 0, 0, 0]).bool()
    unit = F.normalize(FEATURES, dim=1)
    similar = unit @ unit.T / 0.07
    expected = [
        -similar[i, 0] + similar[i][torch.arange(5) != i].logsumexp(0) for i in (1, 2)
    ]  # samples 1 and 2 have positive 0, and 0 has none
    value = batch_contrast(FEATURES, CLASSES, only, 0.07)
    assert value.item() == close(torch.stack(expected).mean().item())


# --- cnc ------------------------------------------------------------------------------------------

Y = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1])
PREDICTED = np.array([0, 0, 0, 1, 1, 1, 1, 0, 0])  # wrong: 3 (in slice 1), 7 and 8 (in slice 0)


def sets_of(*slices: np.ndarray[Any, Any], sizes: Sizes, **options: Any) -> ContrastiveSets:
    return ContrastiveSets(Y, slices, sizes, **{"ratio": 1.0, "factor": 2, **options})


def parts_of(sets: ContrastiveSets, epoch: list[Tensor]) -> list[list[list[int]]]:
    whole = torch.cat(epoch).view(-1, sum(sets.sizes))
    return [[part.tolist() for part in row.split(list(sets.sizes))] for row in whole]


def test_a_set_has_anchors_positives_negatives_and_easy_negatives_of_the_right_slices() -> None:
    sets = sets_of(PREDICTED, sizes=Sizes(1, 1, 1, 2))
    for anchors, positives, negatives, easy in parts_of(sets, sets(0, seeded(0))):
        if Y[anchors[0]] == 0:
            assert set(anchors) <= {0, 1, 2}
            assert positives == [3]
            assert set(negatives) <= {7, 8}
            assert set(easy) <= {4, 5, 6}
        else:
            assert set(anchors) <= {4, 5, 6}
            assert set(positives) <= {7, 8}
            assert negatives == [3]
            assert set(easy) <= {0, 1, 2}


def test_sizes_are_cut_to_the_rarest_positives_and_negatives_but_easy_ones_are_not() -> None:
    sets = sets_of(PREDICTED, sizes=Sizes(8, 8, 8, 8))
    assert sets.sizes == (1, 1, 1, 8)
    easy = parts_of(sets, sets(0, seeded(0)))[0][3]
    assert len(easy) == 8  # there are three, so they are drawn with replacement


def test_every_anchor_begins_a_set_once_in_an_epoch_and_slices_take_turns() -> None:
    sets = sets_of(PREDICTED, sizes=Sizes(1, 1, 1, 1))
    firsts = [anchors[0] for anchors, *_ in parts_of(sets, sets(0, seeded(0)))]
    assert sorted(firsts) == [0, 1, 2, 4, 5, 6]
    assert Y[firsts].tolist() == [0, 1, 0, 1, 0, 1]


def test_the_longer_slice_is_cut_to_the_shorter() -> None:
    predicted = PREDICTED.copy()
    predicted[[4, 5]] = 0  # a single anchor is left in slice 1
    sets = sets_of(predicted, sizes=Sizes(1, 1, 1, 1))
    assert len(parts_of(sets, sets(0, seeded(0)))) == 2


def test_a_ratio_takes_a_part_of_the_anchors_and_at_least_one() -> None:
    half = sets_of(PREDICTED, sizes=Sizes(1, 1, 1, 1), ratio=0.67)
    assert len(parts_of(half, half(0, seeded(0)))) == 4
    few = sets_of(PREDICTED, sizes=Sizes(1, 1, 1, 1), ratio=0.01)
    assert len(parts_of(few, few(0, seeded(0)))) == 2


def test_batches_hold_whole_sets_and_are_the_same_for_the_same_generator_state() -> None:
    sets = sets_of(PREDICTED, sizes=Sizes(1, 1, 1, 2), factor=4)
    first, again, other = (sets(0, seeded(s)) for s in (0, 0, 1))
    assert [len(part) for part in first] == [4 * 5, 2 * 5]
    assert torch.cat(first).equal(torch.cat(again))
    assert not torch.cat(first).equal(torch.cat(other))


def test_without_wrong_samples_positives_are_of_the_class_and_negatives_of_other_classes() -> None:
    sets = sets_of(Y, sizes=Sizes(2, 2, 2, 2))
    for anchors, positives, negatives, easy in parts_of(sets, sets(0, seeded(0))):
        c = Y[anchors[0]]
        assert (Y[[*anchors, *positives]] == c).all()
        # in the released code, easy ones would have the class of the positive
        assert (Y[[*negatives, *easy]] != c).all()


def test_a_slice_without_anchors_begins_no_set_and_gives_no_easy_negatives() -> None:
    predicted = np.where(Y == 1, 0, 1)
    predicted[:3] = 0  # all of class 1 is in slice 0; slice 1 has only sample 3
    sets = sets_of(predicted, sizes=Sizes(1, 1, 1, 3))
    for anchors, positives, negatives, easy in parts_of(sets, sets(0, seeded(0))):
        assert set(anchors) <= {0, 1, 2}
        assert positives == [3]
        assert set(negatives) | set(easy) <= {4, 5, 6, 7, 8}


def test_a_first_network_that_is_wrong_on_everything_is_an_error_that_says_so() -> None:
    with pytest.raises(DataError, match=r"wrong on all training samples.*max_epoch_s"):
        sets_of(1 - Y, sizes=Sizes(1, 1, 1, 1))


def test_wrong_samples_of_two_slicings_are_joined() -> None:
    other = PREDICTED.copy()
    other[4] = 0  # anchor of slice 1 by the first slicing, wrong by the second
    sets = sets_of(PREDICTED, other, sizes=Sizes(1, 3, 3, 0))
    assert sorted(sets.negatives[0].tolist()) == [4, 7, 8]
    assert sorted(sets.positives[1][:, 0].tolist()) == [4, 7, 8]
    assert 4 in sets.anchors[1]


def test_clusters_are_named_by_the_classes_with_which_most_samples_agree() -> None:
    cluster = np.array([2, 2, 2, 0, 0, 1, 1, 0])
    y = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    assert named_by_class(cluster, y, 3).tolist() == [0, 0, 0, 1, 1, 2, 2, 1]


@pytest.mark.parametrize("method", ["gmm", "kmeans"])
def test_features_in_two_heaps_are_two_clusters(method: Any) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)) + 10 * np.repeat([0, 1], 30)[:, None]
    found = clusters(features, 2, method, seed=2**40)
    assert len(set(found[:30])) == len(set(found[30:])) == 1
    assert found[0] != found[-1]


class Plane(nn.Module):
    """Features (B, 2) are the inputs times a factor; logits are the features."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


def features_of(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    out: Tensor = network(x)
    return out, out


SET = torch.cat([ANCHOR[None], POSITIVES, NEGATIVES, torch.tensor([[-0.6, 0.8]])])  # sizes 1 2 2 1


def test_the_loss_of_sets_is_contrast_in_both_directions_and_cross_entropy_of_equal_parts() -> None:
    loss = CnCLoss(Plane(), features_of, Sizes(1, 2, 2, 1), temperature=0.1, weight=0.75)
    y = [0, 0, 0, 1, 1, 1]
    back = anchor_contrast(POSITIVES[0], ANCHOR[None], SET[5:], 0.1).item()
    # the first of each part
    cross_entropy = F.cross_entropy(SET[[0, 1, 3, 5]], torch.tensor([0, 0, 1, 1])).item()
    expected = 0.75 * (4.127223 + back) + 0.25 * cross_entropy
    assert loss(batch(SET, y)).item() == close(expected)
    both = loss(batch(torch.cat([SET, SET]), [*y, *y]))
    assert both.item() == close(expected)


def test_without_easy_negatives_there_is_contrast_in_one_direction() -> None:
    loss = CnCLoss(Plane(), features_of, Sizes(1, 2, 2, 0), temperature=0.1, weight=1.0)
    assert loss(batch(SET[:5], [0, 0, 0, 1, 1])).item() == close(4.127223)


def test_trained_statistics_of_batchnorm_stay_and_untrained_layers_normalise_by_the_batch() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2), nn.Dropout())
    for module in network:
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.fill_(0.5)  # type: ignore[union-attr]
            break
    loss = CnCLoss(network, features_of, Sizes(1, 2, 2, 1), temperature=0.1, weight=0.5)
    loss.train()
    assert [m.training for m in network] == [False, True, False]
    loss.eval()
    assert not any(m.training for m in network)


def test_the_classifier_has_its_own_weight_decay() -> None:
    network = Plane()
    group = ParameterGroup([network.factor], weight_decay=0.5)
    loss = CnCLoss(
        network, features_of, Sizes(1, 1, 1, 1), temperature=1, weight=0.5, classifier=group
    )
    assert list(loss.parameter_groups()) == [group]


# --- dcwp -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pi", "probability"), [(1.5, 0.6937), (0.0, 0.6225), (-1.5, 0.5455)])
def test_a_gate_is_open_as_often_as_that_of_the_authors(pi: float, probability: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        gates = sampled_gate(torch.full((1_000_000,), pi))
    assert torch.tensor(pi).sigmoid().sigmoid().item() == pytest.approx(probability, abs=5e-5)
    assert gates.mean().item() == pytest.approx(probability, abs=2e-3)
    assert set(gates.unique().tolist()) == {0, 1}


def test_the_gradient_of_a_gate_is_that_of_the_smooth_gate() -> None:
    pi = torch.linspace(-2, 2, 7).requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sampled_gate(pi).sum().backward()
        torch.manual_seed(0)
        noise = torch.rand(7).logit()
    other = pi.detach().clone().requires_grad_()
    (other.sigmoid() + noise).sigmoid().sum().backward()
    assert pi.grad is not None
    assert other.grad is not None
    assert pi.grad.allclose(other.grad)


def network_of(features: int = 6) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.Flatten(),
        nn.Linear(12, features),
        nn.Linear(6, 2),
    )


def two_features_of(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    seen: list[Tensor] = []
    hook = network[-1].register_forward_pre_hook(  # type: ignore[index]
        lambda _module, args: seen.append(args[0])
    )
    logits = network(x)
    hook.remove()
    return logits, seen[0]


def gated(**options: Any) -> GatedContrast:
    settings: dict[str, Any] = {"lambda_sparse": 0.0, "lambda_con": 0.05, "temperature": 0.07}
    return GatedContrast(network_of(), two_features_of, **{**settings, **options})


def images(n: int = 8) -> Batch:
    x = torch.randn(n, 1, 4, 4, generator=seeded(1))
    return batch(x, [i % 2 for i in range(n)], mined=torch.arange(n) % 3 == 0)


def test_every_weight_has_a_gate_and_only_gates_have_gradients() -> None:
    loss = gated()
    assert loss.names == ["0.weight", "3.weight", "4.weight"]
    assert [pi.shape for pi in loss.pi] == [
        loss.network.get_parameter(name).shape for name in loss.names
    ]
    loss(images()).backward()
    assert all(p.grad is None for p in loss.network.parameters())
    assert all(pi.grad is not None and pi.grad.abs().sum() > 0 for pi in loss.pi)


def test_statistics_of_batchnorm_follow_the_gated_network() -> None:
    loss = gated()
    before = loss.network[1].running_mean.clone()  # type: ignore[index]
    loss(images())
    assert not loss.network[1].running_mean.equal(before)  # type: ignore[index]


def test_the_sparsity_term_is_the_sum_of_all_parameters_of_gates() -> None:
    plain, sparse = gated(), gated(lambda_sparse=0.25)
    values = []
    for loss in (plain, sparse):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            values.append(loss(images()).item())
    gates = sum(pi.numel() for pi in plain.pi)
    assert values[1] - values[0] == pytest.approx(0.25 * 1.5 * gates, rel=1e-5)


def test_the_fixed_mask_keeps_weights_whose_parameter_is_not_negative() -> None:
    loss = gated()
    with torch.no_grad():
        loss.pi[2].copy_(torch.arange(-6.0, 6).view(2, 6))
    mask = loss.masks()["4.weight"]
    assert mask.equal(torch.arange(-6, 6).view(2, 6) >= 0)
    loss.eval()
    masked = network_of()
    masked.eval()
    with torch.no_grad():
        masked[4].weight.mul_(mask)  # type: ignore[operator, union-attr]
        assert loss.predict(images().x).allclose(masked(images().x))


def test_a_layer_whose_gates_are_all_closed_keeps_the_largest() -> None:
    loss = gated()
    with torch.no_grad():
        loss.pi[0].fill_(-2)
        loss.pi[0].view(-1)[3] = -1
    assert loss.masks()["0.weight"].flatten().nonzero().flatten().tolist() == [3]


def test_flops_of_the_gated_network_are_counted_for_each_weight() -> None:
    loss, plain = gated(), network_of()
    with count_flops(loss) as counted:
        loss(images())
    with count_flops(plain) as expected:
        plain(images().x)
    for name in loss.names:
        assert counted.by_parameter[f"network.{name}"] == expected.by_parameter[name]


def test_the_biased_network_of_an_ensemble_learns_from_samples_that_it_is_sure_of() -> None:
    z = torch.tensor([[4.0, 0], [0, 4.0], [1.0, 0]])  # p of class 0: .982, .018, .731
    loss = Mining(Plane(), Plane(), 3, q=0.7, eta=0.05)
    value = loss.amplified(z, torch.tensor([0, 0, 0]))
    assert value.item() == close(F.cross_entropy(z[[0, 2]], torch.tensor([0, 0])).item())


def test_the_biased_network_of_an_ensemble_learns_from_all_if_it_is_sure_of_none() -> None:
    z = torch.zeros(4, 100).requires_grad_()  # p = .01 at the start, with 100 classes
    value = Mining(Plane(), Plane(), 4, q=0.7, eta=0.05).amplified(z, torch.arange(4))
    value.backward()
    assert value.item() == close(np.log(100))
    assert z.grad is not None
    assert z.grad.abs().sum() > 0


def test_mining_trains_both_networks_and_does_not_mix_their_gradients() -> None:
    x = torch.tensor([[2.0, 0], [0, 1.0]])
    loss = Mining(Plane(), Plane(), 2, q=0.7, eta=None)
    loss(batch(x, [0, 1])).backward()
    alone = Plane()
    F.cross_entropy(alone(x), torch.tensor([0, 1])).backward()
    assert loss.network.factor.grad.equal(alone.factor.grad)  # type: ignore[union-attr, operator]
    biased = loss.biased.factor.grad  # type: ignore[union-attr]
    assert biased is not None
    assert biased != loss.network.factor.grad  # type: ignore[union-attr]


# --- whole runs -----------------------------------------------------------------------------------


def fitted(method: Method) -> Fitted:
    return fit_whole(toy_task(), method, model=MLP(hidden=(8,)), training=TRAINING)


def mask_of(stages: Fitted) -> dict[str, Tensor]:
    gates = stages.stages[1].objective
    assert isinstance(gates, GatedContrast)
    return {f"network.{name}": mask for name, mask in gates.masks().items()}


def test_dcwp_learns_gates_of_trained_weights_and_trains_those_that_are_left() -> None:
    run = fitted(DCWP(pruning_iter=40, lr_prune=0.1, retrain_iter=1, lr_main=1e-9))
    mined, gates, last = (stage.objective.network.state_dict() for stage in run.stages)
    masks = mask_of(run)
    assert any(not mask.all() for mask in masks.values())
    for name, mask in masks.items():
        weight = name.removeprefix("network.")
        assert gates[weight].equal(mined[weight])
        assert last[weight].allclose(mined[weight] * mask, atol=1e-6)
    densities = {name: mask.double().mean().item() for name, mask in masks.items()}
    assert run.trained.densities == pytest.approx(densities)
    steps = [(cost.name, cost.steps) for cost in run.costs]
    assert steps == [("mine", 60), ("prune", 40), ("train", 1)]
    assert run.costs[2].flops / run.costs[2].samples < run.costs[1].flops / run.costs[1].samples


def test_dcwp_can_begin_again_from_the_initial_weights() -> None:
    options = {"pruning_iter": 40, "lr_prune": 0.1, "retrain_iter": 1, "lr_main": 1e-9}
    run = fitted(DCWP(reinitialize=True, **options))  # type: ignore[arg-type]
    mined, _, last = (stage.objective.network.state_dict() for stage in run.stages)
    for name, mask in mask_of(run).items():
        weight = name.removeprefix("network.")
        assert not last[weight].allclose(mined[weight] * mask, atol=1e-3)


@pytest.mark.parametrize("mining", ["wrong", "ensemble"])
def test_dcwp_infers_the_conflicting_samples_and_scores_in_0_to_1(mining: Any) -> None:
    task = toy_task()
    run = fitted(DCWP(mining=mining, tau=0.5, pruning_iter=1, retrain_iter=1))
    assert run.inferred is not None
    assert run.inferred.conflict is not None
    assert run.inferred.scores is not None
    assert run.inferred.scores.min() >= 0
    assert run.inferred.scores.max() <= 1
    if mining == "ensemble":
        assert run.inferred.conflict.equal(run.inferred.scores > 0.5)
        true = task.conflict(task.train)
        scores = run.inferred.scores
        assert scores[true].mean() > scores[~true].mean()


def test_cnc_infers_the_samples_that_are_in_the_slice_of_another_class() -> None:
    run = fitted(CnC(max_epoch_s=2, max_epoch=1, num_negative_easy=4))
    assert run.inferred is not None
    assert run.inferred.conflict is not None
    first = run.stages[0].objective
    predicted = first.predict(PlacedTask(toy_task(), CPU).view("train", "none").inputs(slice(None)))
    assert run.inferred.conflict.equal(predicted.argmax(1) != toy_task().train.y)
    assert [(cost.name, cost.epochs) for cost in run.costs] == [("identify", 2), ("train", 1)]
