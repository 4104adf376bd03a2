"""Every builtin method passes the checks of methods, and computes what its paper says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from debiasbench import Batch, Supervision, Task
from debiasbench.common.errors import DataError, OptionError
from debiasbench.common.options import parse
from debiasbench.core.model import Shape
from debiasbench.core.stage import Stage, Trained
from debiasbench.core.weights import published_weight
from debiasbench.methods import dfr
from debiasbench.methods.afr import AFR
from debiasbench.methods.balanced_softmax import BalancedSoftmax
from debiasbench.methods.bpa import BPA
from debiasbench.methods.cnc import CnC
from debiasbench.methods.coral import CORAL
from debiasbench.methods.crt import CRT
from debiasbench.methods.cvar import CVaRDRO
from debiasbench.methods.dcwp import DCWP
from debiasbench.methods.denetdm import DeNetDM
from debiasbench.methods.dfr import DFR
from debiasbench.methods.disent import DisEnt
from debiasbench.methods.divdis import DivDis
from debiasbench.methods.eiil import EIIL
from debiasbench.methods.erm import ERM
from debiasbench.methods.focal import Focal
from debiasbench.methods.george import GEORGE
from debiasbench.methods.groupdro import GroupDRO
from debiasbench.methods.irm import IRM
from debiasbench.methods.jtt import JTT, RunningMistakes
from debiasbench.methods.lc import LC
from debiasbench.methods.ldam import LDAM
from debiasbench.methods.lff import LfF, LfFLoss
from debiasbench.methods.lisa import LISA
from debiasbench.methods.masktune import MaskTune
from debiasbench.methods.mixup import Mixup
from debiasbench.methods.mmd import MMD
from debiasbench.methods.pde import PDE
from debiasbench.methods.rest import REST
from debiasbench.methods.reweight import Reweight
from debiasbench.methods.rwg import RWG
from debiasbench.methods.rwy import RWY
from debiasbench.methods.spare import SPARE
from debiasbench.methods.ssa import SSA
from debiasbench.methods.subg import SUBG
from debiasbench.methods.suby import SUBY
from debiasbench.methods.upweight import Upweight
from debiasbench.models.cnn import CNN
from debiasbench.models.mlp import MLP
from debiasbench.parts.groups import GroupDROLoss
from debiasbench.parts.losses import gce
from debiasbench.runs.fit import Fitted
from debiasbench.sparsity import maskable
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.words import arguments, option_names
from debiasbench.testing import check_method, toy_task
from debiasbench.testing.methods import TRAINING
from debiasbench.training.predict import Predictor
from debiasbench.training.trainer import Sequential
from tests.running import fit_whole
from tests.training.stages import ON_CPU

FEW = {"num_anchor": 2, "num_positive": 2, "num_negative": 2, "num_negative_easy": 2}

VARIANTS = {
    "erm": ERM(),
    "upweight": Upweight(),
    "upweight by group": Upweight(by="group"),
    "groupdro": GroupDRO(),
    "groupdro uniform": GroupDRO(sampling="uniform", adjustment=1.0),
    "jtt": JTT(),
    "lff": LfF(),
    "dfr": DFR(retrains=2),
    "subg": SUBG(),
    "suby": SUBY(),
    "rwg": RWG(),
    "rwy": RWY(),
    "reweight": Reweight(),
    "reweight by class": Reweight(by="class", scheme="effective"),
    "focal": Focal(),
    "balanced-softmax": BalancedSoftmax(),
    "mixup": Mixup(),
    "ldam": LDAM(),
    "crt": CRT(),
    "crt by class": CRT(by="class", retrain_epochs=2),
    "cvar": CVaRDRO(alpha=0.5),
    "cvar with a penalty": CVaRDRO(alpha=0.5, reg=0.5),
    "irm": IRM(penalty_weight=1.0),
    "irm halves": IRM(penalty_weight=1.0, penalty="halves", sampling="uniform"),
    "coral": CORAL(),
    "mmd": MMD(gamma=0.1),
    "bpa": BPA(),
    "bpa released": BPA(k=2, compat="released"),
    "masktune": MaskTune(),
    "masktune best": MaskTune(masks="best"),
    "afr": AFR(steps=50),
    "afr without validation": AFR(gamma=(4.0,), reg_coeff=(0.1,), steps=50, early_stopping=False),
    "spare": SPARE(max_clusters=4),
    "spare untrained": SPARE(infer_num_epochs=0, num_clusters=2),
    "eiil": EIIL(inference_steps=200),
    "eiil by class": EIIL(inference_steps=200, groups="class-environment"),
    "george": GEORGE(max_k=3),
    "george of components": GEORGE(reduction="pca", clustering="kmeans", k=2, center=True),
    "george overclustered": GEORGE(
        reduction="none", clustering="kmeans", max_k=2, overcluster=True, min_val=1
    ),
    "cnc": CnC(batch_factor=4, **FEW),
    "cnc by features": CnC(slice_with="pred_and_rep", max_epoch=1, batch_factor=4, **FEW),
    "dcwp": DCWP(pruning_iter=20, lr_prune=0.1),
    "dcwp of an ensemble": DCWP(
        mining="ensemble", pruning_iter=20, lr_prune=0.1, retrain_iter=20, reinitialize=True
    ),
    "lisa": LISA(),
    "lisa with boxes": LISA(cut_mix=True),
    "lisa as released": LISA(epoch="smallest"),
    "pde": PDE(warmup_epochs=2, expansion_interval=1, gamma=0.5),
    # with the weights of 10, a toy task of 60 steps is not learned
    "divdis": DivDis(diversity_weight=1.0, reg_weight=1.0),
    "divdis with queries": DivDis(diversity_weight=1.0, reg_weight=1.0, select="active"),
    "ssa": SSA(num_splits=2, attribute_epochs=2),
    "disent": DisEnt(gce="released"),
    "lc": LC(tau=1.0),
    "lc mv": LC(tau=1.0, avg_type="mv", gce="released"),
    "lc epoch": LC(tau=1.0, avg_type="epoch", biased_lr=1.0),
    "denetdm": DeNetDM(),
    "rest": REST(density=0.3),
    "rest random": REST(density=0.3, grow="random", distribution="uniform"),
    "rest released": REST(density=0.3, compat="released", update_every=10),
    "rest released without its flag": REST(density=0.3, compat="released", reweight=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_builtin_method_passes_check_method(name: str) -> None:
    check_method(VARIANTS[name])


def test_every_registered_method_is_among_those_checked() -> None:
    assert {name.split()[0] for name in VARIANTS} == set(Plugins().methods)


@pytest.mark.parametrize("name", sorted(Plugins().methods))
def test_every_builtin_method_has_a_citation(name: str) -> None:
    assert len(Plugins().methods[name].load().citation) > 20


PRESETS = [
    (name, preset)
    for name in Plugins([]).methods
    for preset in Plugins([]).methods[name].load().presets
]


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_preset_is_of_a_known_data_set_and_makes_a_run(name: str, preset: str) -> None:
    plugins = Plugins([])
    dataset = preset.partition("-")[0]
    spec = make_spec(
        plugins,
        **arguments({"method": name, "dataset": dataset, "preset": preset}, plugins),
    )
    chosen = plugins.methods[name].load().presets[preset]
    of_data = {word for word in chosen if word.startswith("dataset.")}
    assert of_data <= {f"dataset.{o}" for o in option_names(plugins.datasets, dataset)}
    usual = make_spec(plugins, method=name, dataset=dataset)
    assert (spec.method, spec.training) != (usual.method, usual.training)


@pytest.mark.parametrize(
    ("method", "preset", "options"),
    [
        ("bpa", "celeba", {"compat": "released"}),
        ("disent", "cmnist", {"gce": "released"}),
        ("jtt", "celeba", {"compat": "released"}),
        ("lc", "waterbirds", {"gce": "released"}),
        ("lff", "cmnist", {"gce": "released"}),
        # boxes are drawn with the option `alpha` of group DRO, not with `mix_alpha`
        ("lisa", "celeba", {"cut_mix": True, "mix_alpha": 0.2, "epoch": "smallest"}),
    ],
)
def test_presets_follow_the_released_code(
    method: str, preset: str, options: dict[str, object]
) -> None:
    words = {"method": method, "dataset": preset, "preset": preset}
    spec = make_spec(Plugins([]), **arguments(words, Plugins([])))
    assert {name: spec.method.options[name] for name in options} == options


def test_what_is_given_replaces_what_a_preset_says() -> None:
    words = {"method": "disent", "dataset": "bffhq", "preset": "bffhq"}
    more = {"method.lambda_dis": 3.0, "train.epochs": 2}
    spec = make_spec(Plugins([]), **arguments({**words, **more}, Plugins([])))
    assert spec.method.options["lambda_dis"] == 3.0
    assert spec.method.options["lambda_swap"] == 0.1
    assert spec.training["epochs"] == 2
    assert spec.training["lr"] == 1e-4


@pytest.mark.parametrize(
    ("method", "preset", "model"),
    [
        ("afr", "celeba", "resnet50"),
        ("cnc", "waterbirds", "resnet50"),
        ("dcwp", "cifar10c", "resnet18"),
        ("denetdm", "bffhq", "resnet18"),
        ("dfr", "waterbirds", "resnet50"),
        ("divdis", "waterbirds", "resnet50"),
        ("george", "waterbirds", "resnet50"),
        ("jtt", "celeba", "resnet50"),
        ("lisa", "celeba", "resnet50"),
    ],
)
def test_a_preset_starts_from_the_network_that_its_authors_used(
    method: str, preset: str, model: str
) -> None:
    words = {"method": method, "dataset": preset, "preset": preset}
    spec = make_spec(Plugins([]), **arguments(words, Plugins([])))
    assert (spec.model.name, spec.model.options["pretrained"]) == (model, True)
    scratch = {**words, "model.pretrained": False}
    assert not make_spec(Plugins([]), **arguments(scratch, Plugins([]))).model.options["pretrained"]


def test_a_preset_has_options_of_its_data_set_which_data_sets_without_them_ignore() -> None:
    words = {"method": "jtt", "preset": "waterbirds"}
    of = {
        dataset: make_spec(Plugins([]), **arguments({**words, "dataset": dataset}, Plugins([])))
        for dataset in ("waterbirds", "celeba", "cmnist")
    }
    assert of["waterbirds"].dataset.options["augment"] is False
    assert of["celeba"].dataset.options["augment"] is False
    assert of["cmnist"].dataset == make_spec(Plugins([]), method="jtt", dataset="cmnist").dataset
    assert of["cmnist"].training["epochs"] == 300
    given = arguments({**words, "dataset": "waterbirds", "dataset.augment": True}, Plugins([]))
    assert "augment" not in make_spec(Plugins([]), **given).dataset.options  # the default


def test_another_model_than_that_of_a_preset_has_its_own_options() -> None:
    words = {"method": "jtt", "dataset": "waterbirds", "preset": "waterbirds", "model": "cnn"}
    spec = make_spec(Plugins([]), **arguments(words, Plugins([])))
    assert (spec.model.name, spec.training["lr"]) == ("cnn", 1e-5)
    assert "pretrained" not in spec.model.options


def test_a_preset_that_a_method_lacks_is_an_error_with_those_that_it_has() -> None:
    with pytest.raises(OptionError, match=r"no preset 'bfhq'\. Did you mean 'bffhq'"):
        arguments({"method": "disent", "preset": "bfhq"}, Plugins([]))
    with pytest.raises(OptionError, match=r"method erm: no preset 'bffhq'\. It has none"):
        arguments({"method": "erm", "preset": "bffhq"}, Plugins([]))


@pytest.mark.parametrize(
    ("method", "seen"),
    [
        (ERM(), ("none", "none")),
        (Upweight(), ("conflict", "none")),
        (Upweight(by="group"), ("groups", "none")),
        (GroupDRO(), ("groups", "none")),
        (JTT(), ("none", "none")),
        (SUBG(), ("groups", "none")),
        (RWG(), ("groups", "none")),
        (Reweight(), ("groups", "none")),
        (Reweight(by="class"), ("none", "none")),
        (Mixup(), ("none", "none")),
        (LISA(), ("groups", "none")),
        (PDE(), ("groups", "none")),
        (DivDis(), ("none", "inputs")),
        (DivDis(select="active"), ("none", "select")),
        (DivDis(select="random"), ("none", "select")),
        (SSA(), ("none", "fit")),
        (LDAM(), ("none", "none")),
        (CRT(), ("groups", "none")),
        (CRT(by="class"), ("none", "none")),
        (CVaRDRO(), ("none", "none")),
        (IRM(), ("groups", "none")),
        (CORAL(), ("groups", "none")),
        (MMD(), ("groups", "none")),
        (LfF(), ("none", "none")),
        (DisEnt(), ("none", "none")),
        (LC(), ("none", "none")),
        (DeNetDM(), ("none", "none")),
        (SPARE(), ("none", "none")),
        (EIIL(), ("none", "none")),
        (GEORGE(), ("none", "none")),
        (GEORGE(overcluster=True), ("none", "inputs")),
        (GEORGE(overcluster=True, min_val=0), ("none", "none")),
        (DFR(), ("none", "fit")),
        (CnC(), ("none", "none")),
        (DCWP(), ("none", "none")),
        (BPA(), ("none", "none")),
        (MaskTune(), ("none", "none")),
        (MaskTune(masks="best"), ("none", "select")),
        (AFR(), ("none", "select")),
        (AFR(gamma=(4.0,), reg_coeff=(0.1,), early_stopping=False), ("none", "none")),
        (REST(), ("conflict", "none")),
        (REST(reweight=False), ("none", "none")),
    ],
)
def test_supervision_is_what_the_method_uses(method: Any, seen: tuple[str, str]) -> None:
    assert method.supervision == Supervision(*seen)  # type: ignore[arg-type]


def test_a_weight_without_effect_is_refused() -> None:
    with pytest.raises(OptionError, match="weight=3 has no effect with by=group"):
        Upweight(by="group", weight=3.0)


class Fixed(nn.Module):
    """Returns fixed logits for any input."""

    def __init__(self, logits: list[list[float]]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


def batch(y: list[int], group: list[int] | None = None) -> Batch:
    more = {} if group is None else {"group": torch.tensor(group)}
    n = len(y)
    return Batch(torch.zeros(n, 1), torch.tensor(y), torch.arange(n), **more)


def test_group_dro_follows_algorithm_1_on_a_hand_made_batch() -> None:
    logits = [[2.0, 0.0], [0.0, 1.0], [0.5, 0.0]]
    counts = torch.tensor(
        [5, 0, 3, 2]
    )  # group 1 has no training sample, group 3 none in this batch
    loss = GroupDROLoss(Fixed(logits), counts, step_size=0.5, adjustment=0.0)
    assert loss.q.tolist() == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3])
    value = loss(batch([0, 0, 1], group=[0, 2, 2]))

    each = [math.log(1 + math.exp(-2)), math.log(1 + math.e), math.log(1 + math.exp(0.5))]
    mean = [each[0], 0.0, (each[1] + each[2]) / 2, 0.0]
    q = [1 / 3 * math.exp(0.5 * mean[0]), 0.0, 1 / 3 * math.exp(0.5 * mean[2]), 1 / 3]
    q = [v / sum(q) for v in q]
    assert loss.q.tolist() == pytest.approx(q)
    assert value.item() == pytest.approx(sum(w * m for w, m in zip(q, mean, strict=True)))


def test_group_dro_moves_q_by_the_adjusted_loss_and_returns_the_plain_one() -> None:
    counts = torch.tensor([4, 100])
    loss = GroupDROLoss(Fixed([[0.0, 0.0], [0.0, 0.0]]), counts, step_size=0.5, adjustment=2.0)
    value = loss(batch([0, 1], group=[0, 1]))
    q = [math.exp(0.5 * (math.log(2) + 1.0)), math.exp(0.5 * (math.log(2) + 0.2))]
    assert loss.q.tolist() == pytest.approx([v / sum(q) for v in q])
    assert value.item() == pytest.approx(math.log(2))


def test_group_dro_keeps_its_weights_at_evaluation() -> None:
    loss = GroupDROLoss(Fixed([[2.0, 0.0]]), torch.tensor([1, 1]), step_size=0.5, adjustment=0.0)
    loss.eval()
    loss(batch([0], group=[0]))
    assert loss.q.tolist() == [0.5, 0.5]


def test_group_dro_adjustment_adds_more_for_small_groups() -> None:
    counts = torch.tensor([4, 100, 0])
    loss = GroupDROLoss(Fixed([[0.0, 0.0]]), counts, step_size=0.5, adjustment=2.0)
    assert loss.margin.tolist() == pytest.approx([1.0, 0.2, 0.0])


class NoReading(TorchDispatchMode):
    """Refuses every operation that needs a tensor's values in Python: a GPU would wait for it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        assert func not in {aten._local_scalar_dense.default, aten.nonzero.default}, func
        if func in {aten.index.Tensor, aten.index_put_.default}:  # a mask hides a `nonzero`
            assert torch.bool not in {i.dtype for i in args[1] if i is not None}, func
        return func(*args, **(kwargs or {}))


def make_loss(name: str) -> GroupDROLoss | LfFLoss:
    logits = [[2.0, 0.0], [0.0, 1.0]]
    if name == "groupdro":
        return GroupDROLoss(Fixed(logits), torch.tensor([3, 1]), step_size=0.5, adjustment=1.0)
    return LfFLoss(Fixed(logits), Fixed(logits[::-1]), torch.tensor([0, 1]), q=0.7, decay=0.7)


@pytest.mark.parametrize(("name", "buffer"), [("groupdro", "q"), ("lff", "averages.average")])
def test_a_loss_changes_its_buffers_in_place_and_reads_nothing_back(name: str, buffer: str) -> None:
    loss = make_loss(name)
    inputs = batch([0, 1], group=[0, 1])
    python_state = dict(vars(loss))
    addresses = {n: b.data_ptr() for n, b in loss.named_buffers()}
    before = loss.get_buffer(buffer).clone()
    with NoReading():
        loss(inputs).backward()
    assert not torch.equal(loss.get_buffer(buffer), before)
    assert {n: b.data_ptr() for n, b in loss.named_buffers()} == addresses
    assert vars(loss) == python_state


LFF = [  # index, biased losses, debiased losses, W: computed by the authors' functions
    ((0, 2), (1.0, 2.0), (0.5, 1.0), (0.5, 0.5)),
    ((1, 3), (0.2, 0.4), (0.1, 0.8), (0.5, 0.2)),
    ((0, 3), (3.0, 1.0), (0.5, 0.2), (0.5, 0.318681)),
    ((1, 2), (0.1, 1.0), (0.3, 0.9), (0.249267, 0.5)),
]


def test_lff_has_the_weights_and_averages_of_the_authors_functions() -> None:
    y = torch.tensor([0, 0, 1, 1])
    loss = LfFLoss(Fixed([[0.0]]), Fixed([[0.0]]), y, q=0.7, decay=0.7)
    for index, biased, debiased, expected in LFF:
        weights = loss.weights(torch.tensor([biased, debiased]), torch.tensor(index))
        assert weights.tolist() == pytest.approx(expected, abs=1e-5)
    assert loss.averages.average[0].tolist() == pytest.approx([1.6, 0.17, 1.7, 0.58], abs=1e-5)


@pytest.mark.parametrize(
    ("released", "values", "gradients"),
    [
        (
            True,
            (0.105565, 0.366594),
            ((-0.097087, 0.070976, 0.026111), (0.050080, 0.136132, -0.186212)),
        ),
        (
            False,
            (0.160138, 0.946342),
            (
                (-0.097087 / 0.7, 0.070976 / 0.7, 0.026111 / 0.7),
                (0.050080 / 0.7, 0.136132 / 0.7, -0.186212 / 0.7),
            ),
        ),
    ],
    ids=["released", "paper"],
)
def test_gce_has_the_values_and_gradients_of_the_paper_and_of_the_released_code(
    released: bool, values: tuple[float, ...], gradients: tuple[tuple[float, ...], ...]
) -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]], requires_grad=True)
    losses = gce(logits, torch.tensor([0, 2]), 0.7, released=released)
    assert losses.tolist() == pytest.approx(values, abs=1e-5)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    for row, expected in zip(gradient.tolist(), gradients, strict=True):
        assert row == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("released", [False, True])
def test_lff_adds_gce_of_one_network_and_weighted_cross_entropy_of_the_other(
    released: bool,
) -> None:
    biased, debiased = [[3.0, 0.0], [2.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]
    y = torch.tensor([0, 1])
    loss = LfFLoss(Fixed(biased), Fixed(debiased), y, q=0.7, decay=0.0, released=released)
    value = loss(batch([0, 1]))
    ce = F.cross_entropy(torch.tensor(debiased), y, reduction="none")
    # each class has one sample, so class-normalised losses are 1 and every weight is a half
    amplified = gce(torch.tensor(biased), y, 0.7, released=released)
    assert value.item() == pytest.approx((amplified.mean() + (0.5 * ce).mean()).item(), rel=1e-4)


def test_lff_gradients_of_the_two_networks_do_not_mix() -> None:
    y = torch.tensor([0, 1])
    loss = LfFLoss(Fixed([[3.0, 0.0], [2.0, 0.0]]), Fixed([[1.0, 0.0], [1.0, 0.0]]), y, 0.7, 0.7)
    loss(batch([0, 1])).backward()
    logits = loss.biased.logits.detach().requires_grad_()  # type: ignore[union-attr,operator]
    p = logits.softmax(1)[torch.arange(2), y]
    ((1 - p**0.7) / 0.7).mean().backward()
    torch.testing.assert_close(loss.biased.logits.grad, logits.grad)  # type: ignore[union-attr]


def run(method: Any, model: Any = None, **more: Any) -> Fitted:
    return fit_whole(
        toy_task(), method, model=model or MLP(hidden=(16, 16)), training=TRAINING, **more
    )


class Watched:
    """A trainer that remembers what each stage was given and became."""

    def __init__(self) -> None:
        self.stages: list[tuple[Stage, dict[str, torch.Tensor], Trained]] = []
        self._trainer = Sequential(ON_CPU, Predictor(ON_CPU))

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        (stage,) = stages
        start = {name: value.clone() for name, value in stage.objective.state_dict().items()}
        (trained,) = self._trainer.train([stage])
        self.stages.append((stage, start, trained))
        return [trained]


def watched(
    method: Any, task: Any = None, trainer: Watched | None = None
) -> list[tuple[Stage, dict[str, torch.Tensor], Trained]]:
    trainer = trainer or Watched()
    fit_whole(
        task or toy_task(),
        method,
        model=MLP(),
        training=TRAINING,
        trainer=trainer,
    )
    return trainer.stages


def test_jtt_draws_the_first_networks_mistakes_more_often_in_training_a_second_from_scratch() -> (
    None
):
    task = toy_task()
    first, second = watched(JTT(identification_epochs=1, upweight=7.0), task)
    (identify, _, identified), (last, start, _) = first, second
    assert (identify.name, last.name) == ("identify", "train")
    with torch.no_grad():
        logits = identified.objective.eval().predict(task.train.x.float() / 255)
    wrong = logits.argmax(1) != task.train.y
    assert 0 < wrong.sum() < len(wrong)
    assert last.batches.weights is not None
    assert last.batches.weights.tolist() == [7.0 if w else 1.0 for w in wrong.tolist()]
    learned = identified.objective.state_dict()
    assert any(not torch.equal(value, learned[name]) for name, value in start.items())


def test_dfr_puts_a_head_for_standardised_features_in_place_of_one_for_raw_ones() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(50, 4, generator=rng).double() * torch.tensor([1.0, 10.0, 100.0, 0.1])
    weight, bias = torch.rand(3, 4, generator=rng).double(), torch.rand(3, generator=rng).double()
    mean, std = x.mean(0), x.std(0)
    head = nn.Linear(4, 3).double()
    dfr._set_head(head, weight, bias, mean, std)
    torch.testing.assert_close(head(x), (x - mean) / std @ weight.T + bias)


def test_dfr_chooses_the_strength_by_the_worst_group_and_then_by_the_average() -> None:
    import numpy as np

    x, y = np.array([[1.0], [1.0], [-1.0], [-1.0]]), np.array([0, 0, 1, 1])
    group = np.array([0, 1, 2, 3])
    good = (np.array([[1.0], [-1.0]]), np.zeros(2))
    one_sided = (np.zeros((2, 1)), np.array([1.0, 0.0]))
    assert dfr._score(good, x, y, group) == (1.0, 1.0)
    assert dfr._score(one_sided, x, y, group) == (0.0, 0.5)
    assert dfr._score(good, x, y, group) > dfr._score(one_sided, x, y, group)


def test_dfr_heads_separate_what_one_feature_tells_and_ignore_an_absent_class() -> None:
    import numpy as np

    x = np.concatenate([np.eye(3)[[0] * 20], np.eye(3)[[2] * 20]])
    y = np.array([0] * 20 + [2] * 20)
    weight, bias = dfr._heads(x, y, classes=4, strength=10.0)
    assert (x @ weight.T + bias).argmax(1).tolist() == y.tolist()
    assert weight.shape == (4, 3)
    assert (bias[[1, 3]] < -1000).all()


def scarce(counts: dict[tuple[int, int], int]) -> Task:
    """The toy task with these numbers of validation samples by class and bias."""
    task = toy_task()
    index = [
        i
        for (y, bias), n in counts.items()
        for i in ((task.test.y == y) & (task.test.bias == bias)).nonzero()[:n, 0].tolist()
    ]
    rows = torch.tensor(index)
    part = {"x": task.test.x[rows], "y": task.test.y[rows], "bias": task.test.bias[rows]}
    return replace(task, val=replace(task.val, **part))


def test_dfr_works_at_every_seed_with_a_class_of_one_validation_sample() -> None:
    task = scarce({(0, 0): 20, (0, 1): 10, (1, 1): 1})
    training = replace(TRAINING, epochs=1)
    for seed in range(6):
        fitted = fit_whole(
            task, DFR(retrains=1), model=MLP(hidden=(8,)), training=training, seed=seed
        )
        state = fitted.trained.objective.state_dict()
        assert all(value.isfinite().all() for value in state.values())


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({(0, 0): 20, (0, 1): 10}, r"it has 30, and the classes \[0\]"),
        ({(0, 0): 2, (1, 1): 1}, r"it has 3, and the classes \[0, 1\]"),
    ],
)
def test_dfr_refuses_a_validation_split_that_cannot_be_halved_before_training(
    counts: dict[tuple[int, int], int], message: str
) -> None:
    trainer = Watched()
    with pytest.raises(DataError, match=message):
        watched(DFR(), scarce(counts), trainer)
    assert trainer.stages == []


def test_dfr_draws_a_half_of_one_class_again_and_no_other() -> None:
    import numpy as np

    y, group = np.array([0] * 9 + [1]), np.array([0] * 9 + [3])
    redrawn = 0
    for seed in range(20):
        rng, same = np.random.default_rng(seed), np.random.default_rng(seed)
        half, part = dfr._halves(y, group, rng)
        first = same.permutation(10) < 5
        assert half.sum() == 5
        assert set(y[part]) == {0, 1}
        redrawn += not first[9]
        assert first[9] == bool((half == first).all())
    assert redrawn > 0


@pytest.mark.parametrize("strengths", ["[]", "[0]", "[1,-1]", "[nan]", "[1e999]"])
def test_dfr_refuses_strengths_that_cannot_be_used(strengths: str) -> None:
    with pytest.raises(OptionError, match="strengths"):
        parse(DFR, {"strengths": strengths}, owner="method dfr")


def test_dfr_changes_nothing_but_the_last_layer() -> None:
    erm, fitted = run(ERM()).trained, run(DFR(retrains=1)).trained
    trained, refit = erm.objective.network.state_dict(), fitted.objective.network.state_dict()
    differing = [n for n in trained if not torch.equal(trained[n], refit[n])]
    assert differing == ["5.weight", "5.bias"]


def test_dfr_subsets_have_equally_many_samples_of_every_present_group() -> None:
    import numpy as np

    group = np.array([0] * 10 + [2] * 3 + [3] * 5)
    among = np.arange(18) != 11
    part = dfr._balanced(group, among, np.random.default_rng(0))
    assert np.bincount(group[part], minlength=4).tolist() == [2, 0, 2, 2]
    assert 11 not in part


def test_rest_has_the_density_asked_for_and_both_its_halves() -> None:
    task = toy_task()
    ((stage, _, _),) = watched(REST(density=0.2), task)
    component: Any = stage.components[0]
    sparsity, drawn = component.training, stage.batches.weights
    assert drawn is not None
    weights = sum(p.numel() for p in maskable(MLP().build(task.shape)).values())
    assert sum(int(m.sum()) for m in sparsity.masks.values()) == round(0.2 * weights)
    assert sparsity.updates == 14  # a twentieth of 60 steps is 3; 3, 6, ..., 42 are before 45
    conflict = task.conflict(task.train)
    ratio = drawn[conflict].unique().item() / drawn[~conflict].unique().item()
    assert ratio == pytest.approx(published_weight(conflict.float().mean().item()))


def test_rest_as_released_weighs_80_and_updates_every_thousand_steps_to_the_end() -> None:
    ((stage, _, _),) = watched(REST(density=0.2, compat="released"))
    component: Any = stage.components[0]
    updater = component.updater
    assert (updater.every, updater.stop, updater.optimizer_state) == ("1000", 1.0, "dense")
    assert stage.batches.weights is not None
    assert stage.batches.weights.max().item() == 80


def test_an_infeasible_density_error_names_the_smallest_feasible_one() -> None:
    with pytest.raises(OptionError, match="smallest feasible density"):
        run(REST(density=1e-6))


def test_the_cnn_of_rest_at_five_percent_keeps_what_the_reference_counts() -> None:
    network = CNN().build(Shape(input=(3, 28, 28), classes=10))
    assert sum(p.numel() for p in network.parameters()) == 661_898
    assert sum(p.numel() for p in maskable(network).values()) == 660_992


DFR_X = [[0, 0], [1, 0], [0, 1], [1, 1], [2, 0], [2, 1], [3, 0], [1, 3]]
DFR_Y = [0, 0, 0, 1, 1, 1, 1, 0]


def test_dfr_standardises_and_fits_as_the_authors_functions() -> None:
    x, y = np.array(DFR_X, dtype=float), np.array(DFR_Y)
    mean, scale = dfr._statistics(x)
    assert mean.tolist() == pytest.approx([1.25, 0.75])
    assert scale.tolist() == pytest.approx([0.968246, 0.968246], abs=1e-6)
    scaled = dfr._standardised(x, by=x)
    for strength, coefficient in ((1.0, 1.34433), (0.3, 0.0), (0.1, 0.0)):
        weight, bias = dfr._heads(scaled, y, 2, strength)
        assert weight[1].tolist() == pytest.approx([coefficient, 0.0], abs=1e-4)
        assert weight[0].tolist() == pytest.approx([-coefficient, 0.0], abs=1e-4)
        assert bias.tolist() == pytest.approx([0.0, 0.0], abs=1e-4)


def test_dfr_divides_a_feature_that_is_constant_in_training_by_one() -> None:
    train = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]])
    mean, scale = dfr._statistics(train)
    assert scale[0] == 1
    assert ((np.array([0.3, 2.0]) - mean) / scale).tolist() == pytest.approx([0.3, 0.0])


# group losses (.2, 1, 2, .5), n = (100, 25, 4, 64), step size .01: by the authors' functions
GROUP_LOSSES, GROUP_COUNTS = (0.2, 1.0, 2.0, 0.5), (100, 25, 4, 64)


@pytest.mark.parametrize(
    ("adjustment", "q", "value", "released"),
    [
        (0.0, (0.248188, 0.250182, 0.252696, 0.248934), 0.929679, 0.929679),
        (2.0, (0.247531, 0.250019, 0.254051, 0.248399), 0.931827, 1.397492),
    ],
)
def test_group_dro_has_the_weights_and_the_loss_of_the_authors_functions(
    adjustment: float, q: tuple[float, ...], value: float, released: float
) -> None:
    # two logits (z, 0) have the cross-entropy log(1 + exp(-z)) for class 0
    z = [[-math.log(math.expm1(loss)), 0.0] for loss in GROUP_LOSSES]
    loss = GroupDROLoss(Fixed(z), torch.tensor(GROUP_COUNTS), 0.01, adjustment)
    result = loss(batch([0, 0, 0, 0], group=[0, 1, 2, 3]))
    assert loss.q.tolist() == pytest.approx(q, abs=1e-5)
    assert result.item() == pytest.approx(value, abs=1e-5)
    with_constant = result + (loss.q * loss.margin).sum()  # what the released code returns
    assert with_constant.item() == pytest.approx(released, abs=1e-5)


@pytest.mark.parametrize(("released", "grows"), [(True, True), (False, False)])
def test_an_absent_group_gains_weight_by_its_adjustment_only_as_released(
    released: bool, grows: bool
) -> None:
    loss = GroupDROLoss(Fixed([[0.0, 0.0]]), torch.tensor([4, 4]), 0.5, 1.0, absent_grow=released)
    loss(batch([0], group=[0]))
    present = math.exp(0.5 * (math.log(2) + 0.5))
    absent = math.exp(0.5 * 0.5) if grows else 1.0
    assert loss.q.tolist() == pytest.approx(
        [present / (present + absent), absent / (present + absent)]
    )


class Draws(Sequential):
    """Trains as usual, and notes the samples of each stage."""

    def __init__(self) -> None:
        super().__init__(ON_CPU, Predictor(ON_CPU))
        self.stages: list[Stage] = []

    def train(self, stages: Sequence[Stage]) -> list[Trained]:
        self.stages += stages
        return super().train(stages)


@pytest.mark.parametrize(
    ("method", "own"),
    [
        (DCWP(pruning_iter=2, retrain_iter=2), {"prune"}),
        (SSA(num_splits=2), {"attribute 1", "attribute 2"}),
    ],
    ids=["dcwp", "ssa"],
)
def test_a_stage_with_a_constant_rate_leaves_the_milestones_of_the_run(
    method: Any, own: set[str]
) -> None:
    trainer = Draws()
    fit_whole(
        toy_task(),
        method,
        model=MLP(hidden=(8,)),
        training=replace(TRAINING, epochs=2, schedule="step", milestones=(0.5,), decay=0.5),
        trainer=trainer,
    )
    for stage in trainer.stages:
        found = stage.settings.schedule, stage.settings.milestones, stage.settings.decay
        assert found == (("constant", (), 0.1) if stage.name in own else ("step", (0.5,), 0.5))
    assert own < {stage.name for stage in trainer.stages}


def test_jtt_as_released_trains_on_all_samples_and_on_copies_of_running_mistakes() -> None:
    trainer = Draws()
    method = JTT(identification_epochs=2, upweight=3.0, compat="released")
    task = toy_task()
    fit_whole(
        task,
        method,
        model=MLP(hidden=(16,)),
        training=TRAINING,
        trainer=trainer,
    )
    identify, train = trainer.stages
    wrong: Any = identify.objective.wrong
    mistakes = wrong.nonzero()[:, 0]
    assert 0 < len(mistakes) < len(task.train)
    counts = train.batches.pool.bincount(minlength=len(task.train))
    assert torch.equal(counts, 1 + 3 * wrong.long())
    assert train.batches.weights is None
    assert len(train.batches.pool) == len(task.train) + 3 * len(mistakes)


def test_jtt_counts_as_the_paper_and_as_the_released_code() -> None:
    y, predicted = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0, 0, 1, 1, 1])
    loss = RunningMistakes(Fixed(F.one_hot(predicted).float().tolist()), 5)
    loss(batch(y.tolist()))
    assert loss.wrong.nonzero()[:, 0].tolist() == [1, 3]
    assert (1 + 3 * loss.wrong.long()).tolist() == [1, 4, 1, 4, 1]  # lambda further copies
    assert (1 + (3 - 1) * loss.wrong.long()).tolist() == [1, 3, 1, 3, 1]  # the paper's weight


def test_jtt_refuses_a_part_of_a_copy() -> None:
    with pytest.raises(OptionError, match=r"upweight=2\.5 .* give a whole number"):
        JTT(upweight=2.5, compat="released")
