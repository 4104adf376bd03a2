"""The head of a network is found, and used only if it alone decides the logits."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from debiasbench import Method, Model, Shape
from debiasbench.common.errors import OptionError
from debiasbench.core.features import FeaturesOf
from debiasbench.core.head import check_head, last_linear
from debiasbench.core.objective import Objective
from debiasbench.core.settings import Training
from debiasbench.core.stage import Trained
from debiasbench.methods.dfr import DFR
from debiasbench.models.zoo import Timm
from debiasbench.runs.fit import fit
from debiasbench.testing import check_method, check_model, toy_task
from debiasbench.training.execution import Execution
from debiasbench.training.placed import PlacedTask
from debiasbench.training.predict import Predictor
from debiasbench.training.tape import Recomputed, Tape
from debiasbench.training.trainer import Sequential
from tests.running import fit_whole

FAST = Training(epochs=1, batch_size=32, lr=0.05)


class TwoHeads(nn.Module):
    """Predicts the mean of two classifiers, as distilled transformers do."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(shape.features, 8), nn.ReLU())
        self.one, self.two = nn.Linear(8, shape.classes), nn.Linear(8, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x)
        return (self.one(features) + self.two(features)) / 2


class Skips(nn.Module):
    """Does not use its last layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.used = plain(shape)
        self.spare = nn.Linear(8, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x)
        return out


def second_head_at_0(shape: Shape) -> nn.Module:
    """The other classifier contributes only once it is trained."""
    network = TwoHeads(shape)
    nn.init.zeros_(network.one.weight)
    return network


class Scaled(nn.Sequential):
    """Multiplies its outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2.0


def plain(shape: Shape) -> nn.Sequential:
    layers = [nn.Flatten(), nn.Linear(shape.features, 8), nn.ReLU(), nn.Linear(8, shape.classes)]
    return nn.Sequential(*layers)


def convolutional(shape: Shape) -> nn.Sequential:
    """A 1x1 convolution classifies the pooled features."""
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Conv2d(8, shape.classes, 1), nn.Flatten())


def pooled_late(shape: Shape) -> nn.Sequential:
    """A 1x1 convolution classifies each position; the logits are averages over positions."""
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, shape.classes, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def cut_off(shape: Shape) -> nn.Sequential:
    """The outputs of the 1x1 convolution are cut off at 0, as those of SqueezeNet are."""
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, shape.classes, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def normalised(shape: Shape) -> nn.Sequential:
    network = plain(shape)
    nn.utils.parametrizations.weight_norm(network[3])
    return network


def tied(shape: Shape) -> nn.Sequential:
    """The last layer is used as a hidden layer too."""
    square = nn.Linear(shape.classes, shape.classes)
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.features, shape.classes), square, square)


def sharing(shape: Shape) -> nn.Sequential:
    """The last layer has the weight of another layer."""
    network = nn.Sequential(
        nn.Flatten(),
        nn.Linear(shape.features, shape.classes),
        nn.Linear(shape.classes, shape.classes),
        nn.Linear(shape.classes, shape.classes),
    )
    network[3].weight = network[2].weight
    return network


def unbiased(shape: Shape) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.features, shape.classes, bias=False))


@dataclass(frozen=True)
class Built(Model):
    """A network that a function builds."""

    how: Any = plain

    def build(self, shape: Shape) -> nn.Module:
        network: nn.Module = self.how(shape)
        return network


class Counting:
    """A trainer that must not be called."""

    def train(self, stages: Any) -> Any:
        raise AssertionError("a stage was trained")


SHAPE = toy_task().shape
SAMPLES = torch.rand(4, *SHAPE.input, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("how", [plain, convolutional, pooled_late, unbiased])
def test_a_linear_layer_or_1x1_convolution_that_makes_the_logits_is_a_head(
    how: Callable[[Shape], nn.Module],
) -> None:
    network = how(SHAPE)
    head = last_linear(network)
    assert head is not None
    before = {name: value.clone() for name, value in network.state_dict().items()}
    check_head(network, head, SAMPLES, linear=True)
    assert network.training
    assert all(torch.equal(value, before[n]) for n, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (TwoHeads, r"two \(Linear\) does not decide the logits alone"),
        (second_head_at_0, r"two \(Linear\) does not decide the logits alone"),
        (lambda s: Scaled(*plain(s)), r"the logits are not the outputs of 3 \(Linear\)"),
        (cut_off, r"the logits are not the outputs of 2 \(Conv2d\)"),
        (normalised, r"the weight of 3 \(ParametrizedLinear\) is computed"),
        (tied, "is used 2 times for a prediction"),
        (sharing, "another layer shares the weight of 3"),
        (Skips, "is used 0 times for a prediction"),
    ],
)
def test_dfr_refuses_before_training_a_network_whose_logits_the_head_does_not_make_alone(
    how: Callable[[Shape], nn.Module], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.running.Sequential", lambda *_: Counting())
    with pytest.raises(OptionError, match=rf"{reason}.*Use another --model"):
        fit_whole(toy_task(), DFR(), model=Built(how), training=FAST)


@pytest.mark.parametrize("how", [convolutional, unbiased])
def test_dfr_refits_a_convolution_and_a_layer_without_bias(
    how: Callable[[Shape], nn.Module],
) -> None:
    fitted = fit_whole(toy_task(), DFR(retrains=1), model=Built(how), training=FAST)
    network = fitted.trained.objective.network
    head = last_linear(network)
    assert head is not None
    assert head.bias is not None
    check_head(network, head, SAMPLES, linear=True)


def test_features_are_refused_if_two_heads_decide_and_given_if_the_logits_are_scaled() -> None:
    shapes: list[tuple[int, ...]] = []

    @dataclass(frozen=True)
    class Reads(Method):
        def fit(self, lab: Any) -> Any:
            network = lab.model()
            shapes.append(lab.features(network, "train").shape)
            return network

    fit_whole(toy_task(), Reads(), model=Built(lambda s: Scaled(*plain(s))), training=FAST)
    assert shapes == [(160, 8)]
    with pytest.raises(OptionError, match="such as a second classifier"):
        fit_whole(toy_task(), Reads(), model=Built(TwoHeads), training=FAST)


def test_features_of_a_convolution_are_averages_over_positions() -> None:
    @dataclass(frozen=True)
    class Compares(Method):
        def fit(self, lab: Any) -> Any:
            network = lab.model()
            head = lab.head(network)
            logits = lab.features(network, "train") @ head.weight.flatten(1).T + head.bias
            torch.testing.assert_close(logits, lab.predict(network, "train"))
            return network

    fit_whole(toy_task(), Compares(), model=Built(pooled_late), training=FAST)


def test_a_distilled_transformer_of_timm_has_no_single_head() -> None:
    network = Timm("deit_tiny_distilled_patch16_224").build(Shape((3, 32, 32), 2))
    head = last_linear(network)
    assert head is not None
    with pytest.raises(OptionError, match=r"head_dist.*such as a second classifier"):
        check_head(network, head, torch.rand(4, 3, 32, 32), linear=True)


def test_a_model_whose_classifier_is_a_convolution_passes_check_model() -> None:
    check_model(Built(convolutional), SHAPE)


# --- features with gradients ------------------------------------------------------------------


class SmallFeatures(Objective):
    """Cross-entropy, with a penalty on large features."""

    additive: ClassVar[bool] = True
    capturable: ClassVar[bool | None] = True

    def __init__(self, network: nn.Module, features_of: FeaturesOf) -> None:
        super().__init__(network)
        self.features_of = features_of

    def forward(self, batch: Any) -> Tensor:
        logits, features = self.features_of(self.network, batch.x)
        return nn.functional.cross_entropy(logits, batch.y) + 0.1 * features.square().mean()


@dataclass(frozen=True)
class Penalised(Method):
    """Trains with a penalty on features, in two stages of which the second copies the first."""

    def fit(self, lab: Any) -> Any:
        first = lab.train(SmallFeatures(lab.model(), lab.features_of), name="first")
        return lab.train(first, name="second")


def fit_in(fit_: Callable[[Any], Any], model: Model | None = None, graph: Any = None) -> Any:
    """Let a function of the lab train on the toy task; return what it returned."""
    results: list[Any] = []

    @dataclass(frozen=True)
    class Made(Method):
        def fit(self, lab: Any) -> Any:
            results.append(fit_(lab))
            done = isinstance(results[0], Trained | nn.Module)
            return results[0] if done else lab.model()

    execution = replace(Execution.on("cpu"), graph=graph)
    predictor = Predictor(execution)
    fit(
        PlacedTask(toy_task(), torch.device("cpu")),
        Made(),
        model=model or Built(),
        training=FAST,
        seed=0,
        trainer=Sequential(execution, predictor),
        predictor=predictor,
    )
    return results[0]


@pytest.mark.parametrize("how", [plain, convolutional, pooled_late, unbiased])
def test_logits_and_features_are_those_of_predictions_and_have_gradients(
    how: Callable[[Shape], nn.Module],
) -> None:
    network = how(SHAPE).eval()
    logits, features = FeaturesOf(Built(how))(network, SAMPLES)
    head = last_linear(network)
    assert head is not None
    assert torch.equal(logits, network(SAMPLES))
    assert features.dim() == 2
    made = nn.functional.linear(features, head.weight.flatten(1), head.bias)
    torch.testing.assert_close(made, logits)
    first = next(iter(network.parameters()))
    if first is not head.weight:
        (gradient,) = torch.autograd.grad(features.sum(), [first])
        assert gradient.any()
    assert not head._forward_pre_hooks, "the hook is removed"


def test_a_loss_that_keeps_features_of_survives_copies_and_keeps_no_lab() -> None:
    seen: list[Any] = []
    trained = fit_in(lambda lab: [seen.append(lab), Penalised().fit(lab)][1])
    objective = trained.objective
    again = copy.deepcopy(objective)
    logits, features = again.features_of(again.network, SAMPLES)
    assert torch.equal(logits, objective.features_of(objective.network, SAMPLES)[0])
    assert features.shape == (4, 8)
    assert list(vars(objective.features_of)) == ["model"]


def test_steps_with_features_are_replayed_as_they_are_computed() -> None:
    replayed = fit_in(Penalised().fit, graph=Tape)
    computed = fit_in(Penalised().fit, graph=Recomputed)
    assert replayed.cost.eager == ""
    for name, value in computed.objective.state_dict().items():
        assert torch.equal(value, replayed.objective.state_dict()[name])


def test_a_method_with_a_loss_on_features_keeps_all_promises() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of steps that cannot be replayed
        check_method(Penalised())


def test_features_have_gradients_under_autocast() -> None:
    network = plain(SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        logits, features = FeaturesOf(Built(plain))(network, SAMPLES)
        loss = logits.square().mean() + features.square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_a_head_that_is_used_twice_has_no_features() -> None:
    with pytest.raises(OptionError, match=r"was used 2 times in a forward pass"):
        FeaturesOf(Built(tied))(tied(SHAPE), SAMPLES)


# --- another head -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", [plain, convolutional, pooled_late])
def test_an_identity_in_place_of_the_head_makes_an_encoder(
    how: Callable[[Shape], nn.Module],
) -> None:
    def encode(lab: Any) -> None:
        network = lab.model()
        expected = lab.features(network, "train")
        lab.replace_head(network, nn.Identity())
        assert torch.equal(lab.features(network, "train"), expected)
        x = lab._views["train"].inputs(slice(4))
        outputs, features = lab.features_of(network, x)
        assert torch.equal(outputs, features)
        assert torch.equal(network(x), outputs)
        with pytest.raises(OptionError, match=r"lab\.replace_head has replaced it"):
            lab.head(network)
        with pytest.raises(OptionError, match=r"give the layer"):
            lab.replace_head(network)

    fit_in(encode, Built(lambda s: how(s).eval()))


def test_an_encoder_gets_a_head_again() -> None:
    def rebuild(lab: Any) -> Any:
        network = lab.model()
        lab.replace_head(network, nn.Identity())
        layer = lab.replace_head(network, nn.Linear(8, 2))
        assert lab.head(network) is layer
        return lab.train(network, name="train")

    trained = fit_in(rebuild)
    assert [name for name, _ in trained.objective.network.named_parameters()][-1] == "3.bias"


@pytest.mark.parametrize("how", [plain, convolutional])
def test_a_fresh_head_has_the_shape_of_the_old_one_and_the_values_that_the_run_decides(
    how: Callable[[Shape], nn.Module],
) -> None:
    heads: list[Any] = []

    def renew(lab: Any) -> None:
        network = lab.model().requires_grad_(False)
        old = lab.head(network)
        torch.rand(len(heads))  # what was drawn before has no influence
        for _ in range(2):
            new = lab.replace_head(network)
            assert lab.head(network) is new is not old
            assert new.weight.shape == old.weight.shape
            assert type(new) is type(old)
            assert new.weight.requires_grad
            heads.append(new.weight.detach().clone())

    for _ in range(2):
        fit_in(renew, Built(how))
    assert torch.equal(heads[0], heads[2])
    assert torch.equal(heads[1], heads[3])
    assert not torch.equal(heads[0], heads[1])
    bound = heads[0][0].numel() ** -0.5
    assert heads[0].abs().max() <= bound, "as torch initialises this layer"


def test_a_head_with_other_outputs_is_trained_in_the_place_of_the_old_one() -> None:
    def train(lab: Any) -> Any:
        network = lab.model()
        layer = nn.Linear(8, 2, bias=False)
        lab.replace_head(network, layer)
        before = layer.weight.detach().clone()
        stage = lab.train(network, name="train")
        assert not torch.equal(layer.weight, before)
        return stage

    assert "network.3.bias" not in fit_in(train).objective.state_dict()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (TwoHeads, "such as a second classifier"),
        (lambda s: Scaled(*plain(s)), "are not the outputs of"),
        (lambda s: Whole(s.features, s.classes), r"the whole network \(Whole\)"),
    ],
)
def test_a_head_that_cannot_be_replaced_is_an_error(how: Any, reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        fit_in(lambda lab: lab.replace_head(lab.model()), Built(how))


class Whole(nn.Linear):
    """A network that is its own head."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as in `nn.Linear`
        return super().forward(input.flatten(1))


def test_heads_of_timm_are_replaced_where_the_network_finds_them() -> None:
    def encode(lab: Any) -> None:
        network = lab.model()
        expected = lab.features(network, "train")
        lab.replace_head(network, nn.Identity())
        x = lab._views["train"].inputs(slice(160))
        with torch.no_grad():
            torch.testing.assert_close(network.eval()(x), expected)

    fit_in(encode, Timm("resnet10t"))
