"""What a method may do, and what it is kept from."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from debiasbench import Method, Supervision
from debiasbench.common.errors import OptionError, OutOfMemory, PluginError, SupervisionError
from debiasbench.common.randomness import seeded
from debiasbench.core.objective import CrossEntropy
from debiasbench.core.settings import Training
from debiasbench.core.stage import Trained
from debiasbench.methods.erm import ERM
from debiasbench.methods.rest import REST
from debiasbench.models.mlp import MLP
from debiasbench.records.selection import RULES
from debiasbench.sparsity import GMP, Sparsify, Static, Updater
from debiasbench.testing import toy_task
from tests.conftest import Peek, PeekDeclared
from tests.running import fit, fit_whole

FAST = Training(epochs=1, batch_size=16, lr=0.05)


def run(method: Method, seed: int = 0, training: Training = FAST) -> Trained:
    return fit(
        toy_task(),
        method,
        model=MLP(),
        training=training,
        seed=seed,
        owner="method 'peek' of acme 1.0",
    )


def method(body: Any, supervision: Supervision | None = None) -> Method:
    """Make a method of a function of the lab."""
    declared = supervision or Supervision()

    @dataclass(frozen=True)
    class Made(Method):
        supervision = declared

        def fit(self, lab: Any) -> Any:
            result = body(lab)
            return result if isinstance(result, Trained | torch.nn.Module) else lab.model()

    return Made()


@pytest.mark.parametrize("label", ["group", "bias", "conflict"])
def test_reading_an_undeclared_label_in_a_batch_fails_and_names_the_declaration(label: str) -> None:
    @dataclass(frozen=True)
    class Reads(Peek):
        pass

    Reads.label = label
    with pytest.raises(SupervisionError) as error:
        run(Reads())
    assert "method 'peek' of acme 1.0" in str(error.value)
    assert "supervision = Supervision(train=" in str(error.value)


def test_the_same_method_passes_with_the_declaration() -> None:
    assert run(PeekDeclared()).checkpoints["last"].epoch == 1


@pytest.mark.parametrize(
    ("declared", "shown"),
    [
        ("none", {"y"}),
        ("conflict", {"y", "conflict"}),
        ("groups", {"y", "conflict", "group", "bias"}),
    ],
)
def test_labels_are_exactly_those_declared(declared: Any, shown: set[str]) -> None:
    seen: set[str] = set()

    def read(lab: Any) -> None:
        for label in ("y", "conflict", "group", "bias"):
            try:
                seen.add(label if len(lab.labels(label=label)) == 160 else "")
            except SupervisionError:
                continue

    run(method(read, Supervision(train=declared)))
    assert seen == shown


@pytest.mark.parametrize(
    ("use", "declared", "missing"),
    [
        (lambda lab: lab.labels("val"), "none", "select"),
        (lambda lab: lab.labels("val"), "inputs", "select"),
        (lambda lab: lab.predict(lab.model(), "val"), "none", "inputs"),
        (lambda lab: lab.features(lab.model(), "val"), "none", "inputs"),
        (lambda lab: lab.map(lab.model(), "val", lambda n, x: n(x)), "none", "inputs"),
        (lambda lab: lab.train(lab.model(), data="val", name="x"), "none", "fit"),
        (lambda lab: lab.train(lab.model(), data="val", name="x"), "inputs", "fit"),
        (lambda lab: lab.train(lab.model(), data="val", name="x"), "select", "fit"),
    ],
)
def test_validation_is_out_of_reach_without_the_declaration(
    use: Any, declared: Any, missing: str
) -> None:
    with pytest.raises(SupervisionError, match=rf"add val='{missing}'"):
        run(method(use, Supervision(val=declared)))


def test_inputs_of_validation_can_be_used_without_any_label() -> None:
    def use(lab: Any) -> None:
        network = lab.model()
        assert lab.predict(network, "val").shape == (40, 2)
        assert lab.features(network, "val").shape == (40, 16)
        assert lab.map(network, "val", lambda n, x: n(x)).shape == (40, 2)
        assert lab._views["val"].labels == {}

    run(method(use, Supervision(val="inputs")))


def test_validation_can_be_read_and_trained_on_as_declared() -> None:
    def select(lab: Any) -> None:
        assert len(lab.labels("val", "group")) == 40
        assert lab.predict(lab.model(), "val").shape == (40, 2)

    run(method(select, Supervision(val="select")))
    run(method(lambda lab: lab.train(lab.model(), data="val", name="x"), Supervision(val="fit")))


@pytest.mark.parametrize(
    "use",
    [
        lambda lab: lab.labels("test"),
        lambda lab: lab.predict(lab.model(), "test"),
        lambda lab: lab.features(lab.model(), "test"),
        lambda lab: lab.map(lab.model(), "test", lambda n, x: n(x)),
        lambda lab: lab.train(lab.model(), data="test", name="x"),
    ],
)
def test_the_test_split_is_out_of_reach_whatever_is_declared(use: Any) -> None:
    with pytest.raises(SupervisionError, match="only read after `fit`"):
        run(method(use, Supervision(train="groups", val="fit")))


def test_the_nth_network_of_a_run_starts_alike_in_every_method() -> None:
    starts: list[list[torch.Tensor]] = []

    def take(lab: Any) -> None:
        starts.append([next(lab.model().parameters()).clone() for _ in range(2)])

    run(method(take))
    run(method(take, Supervision(train="groups")))
    run(method(take), seed=1)
    assert torch.equal(starts[0][0], starts[1][0])
    assert not torch.equal(starts[0][0], starts[0][1])
    assert not torch.equal(starts[0][0], starts[2][0])


def test_a_network_may_have_other_options_than_those_of_the_run() -> None:
    widths: list[int] = []

    def build(lab: Any) -> Any:
        wide, plain = lab.model(hidden=(7, 5)), lab.model()
        widths.extend([lab.head(wide).in_features, lab.head(plain).in_features])
        return lab.train(wide, name="train")

    trained = run(method(build))
    assert widths == [5, 16]
    assert trained.objective.network[1].weight.shape[0] == 7  # type: ignore[index,union-attr]


def test_options_do_not_change_the_seed_of_a_network_or_of_the_next_one() -> None:
    networks: list[list[torch.Tensor]] = []

    def take(*options: dict[str, Any]) -> None:
        def body(lab: Any) -> None:
            networks.append([next(lab.model(**o).parameters()).clone() for o in options])

        run(method(body))

    take({"hidden": (16,)}, {"hidden": (9,)}, {})
    take({}, {"hidden": (9,)}, {})
    wide, plain = networks
    assert torch.equal(wide[1], plain[1])
    assert torch.equal(wide[2], plain[2])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"hiden": (3,)}, r"lab\.model: model MLP: no option 'hiden'.*'hidden'"),
        ({"hidden": (0,)}, r"lab\.model: model MLP: hidden\.0=0"),
        ({"hidden": 3}, r"lab\.model: model MLP: hidden=3"),
    ],
)
def test_an_option_that_the_model_lacks_or_cannot_use_is_named(
    options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(OptionError, match=complaint) as error:
        run(method(lambda lab: lab.model(**options)))
    assert "debiasbench show" not in str(error.value)


def test_equal_first_stages_of_different_methods_are_equal_whatever_their_names() -> None:
    a = run(method(lambda lab: lab.train(lab.model(), name="identify")))
    b = run(method(lambda lab: lab.train(lab.model(), name="train"), Supervision(train="groups")))
    first, second = a.objective.state_dict(), b.objective.state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_training_on_from_a_stage_copies_it() -> None:
    def twice(lab: Any) -> Any:
        first = lab.train(lab.model(), name="one")
        before = {k: v.clone() for k, v in first.objective.state_dict().items()}
        second = lab.train(first, name="two")
        after = first.objective.state_dict()
        assert all(torch.equal(v, after[k]) for k, v in before.items())
        assert any(not torch.equal(v, before[k]) for k, v in second.objective.state_dict().items())
        return second

    run(method(twice))


def test_features_are_the_inputs_of_the_head() -> None:
    def compare(lab: Any) -> None:
        network = lab.model()
        features = lab.features(network, "train")
        assert features.shape == (160, 16)
        logits = lab.head(network)(features)
        torch.testing.assert_close(logits, lab.predict(network, "train"))

    run(method(compare))


def test_map_computes_gradients_in_evaluation_mode_and_leaves_none_behind() -> None:
    def slopes(network: torch.nn.Module, x: Any) -> torch.Tensor:
        assert not network.training
        x.requires_grad_()
        (gradient,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
        return gradient.flatten(1)

    def check(lab: Any) -> None:
        network = lab.model()
        found = lab.map(network, "train", slopes)
        assert network.training
        assert all(p.grad is None for p in network.parameters())
        x: Any = toy_task().train.x
        assert found.shape == (160, 192)
        assert not found.requires_grad
        torch.testing.assert_close(found[:3], slopes(network.eval(), x[:3].float() / 255))

    run(method(check))


def test_map_keeps_the_type_of_what_the_function_returns() -> None:
    def check(lab: Any) -> None:
        network = lab.model()
        assert lab.map(network, "train", lambda n, x: x[:, 0] > 0.5).dtype == torch.bool
        found = lab.map(network, "train", lambda n, x: n(x).argmax(1))
        assert found.equal(lab.predict(network, "train").argmax(1))

    run(method(check))


def test_map_says_so_if_the_function_does_not_return_a_row_per_sample() -> None:
    with pytest.raises(PluginError, match=r"shape \(\) for .* samples, must be"):
        run(method(lambda lab: lab.map(lab.model(), "train", lambda n, x: n(x).sum())))


def test_settings_of_a_stage_override_those_of_the_run() -> None:
    made = method(lambda lab: lab.train(lab.model(), name="x", epochs=3, batch_size=80))
    (cost,) = fit_whole(toy_task(), made, model=MLP(), training=FAST).costs
    assert (cost.epochs, cost.steps) == (3, 6)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ({"weights": torch.ones(3)}, r"weights must be \(160,\)"),
        ({"weights": -torch.ones(160)}, "not negative"),
        ({"weights": torch.zeros(160)}, "not all 0"),
        ({"weights": torch.full((160,), float("nan"))}, "finite"),
        ({"subset": torch.tensor([160])}, "must be in 0 to 159"),
        ({"subset": torch.tensor([])}, "non-empty"),
        ({"extra": {"y": torch.ones(160)}}, "a batch already has"),
        ({"extra": {"t": torch.ones(3)}}, "3 rows for 160"),
        ({"extra": {"visible": torch.ones(160)}}, "a batch already has"),
        ({"visible": torch.ones(160, 1, 8, 8)}, r"float32, must be \(160, 1, 8, 8\) bool"),
        ({"visible": torch.ones(160, 8, 8).bool()}, r"visible is \(160, 8, 8\)"),
        ({"lerning_rate": 1}, "no option 'lerning_rate'"),
        ({"lr": -1}, "lr=-1"),
        ({"data": "valid"}, "Unknown split 'valid'"),
        ({"steps": 0}, "steps=0: a stage needs at least one"),
    ],
)
def test_a_stage_refuses_what_it_cannot_use(call: dict[str, Any], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        run(method(lambda lab: lab.train(lab.model(), name="x", **call)))


@pytest.mark.parametrize("units", [10**11, 10**18, 10**30])
def test_a_network_that_is_too_large_for_the_memory_says_so(units: int) -> None:
    with pytest.raises(OutOfMemory, match=r"more memory than there is\. Use a smaller network"):
        fit(toy_task(), ERM(), model=MLP(hidden=(units,)), training=FAST)


def test_a_method_that_runs_out_of_memory_says_so() -> None:
    def allocate(lab: Any) -> None:
        torch.empty(10**15)

    with pytest.raises(OutOfMemory, match=r"method 'peek' of acme 1\.0 .*Use a smaller network"):
        run(method(allocate))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ({}, "given nothing"),
        ({"groups": torch.zeros(3, dtype=torch.long)}, r"groups must be \(160,\).*not \(3,\)"),
        ({"groups": torch.zeros(160)}, "groups must be whole numbers .* not float32"),
        ({"groups": torch.zeros(160, dtype=torch.bool)}, "groups must be whole .* not bool"),
        ({"groups": torch.arange(160) - 1}, "groups has the value -1: number"),
        ({"groups": torch.arange(160) * 10**15, "scores": torch.ones(1)}, r"scores .* not \(1,\)"),
        ({"conflict": torch.zeros(160)}, "conflict must be bool, not float32"),
        ({"conflict": torch.zeros(160, 1, dtype=torch.bool)}, r"conflict .* not \(160, 1\)"),
        ({"scores": torch.zeros(160, dtype=torch.long)}, "scores must be floating.* not int64"),
        ({"scores": torch.full((160,), float("nan"))}, "scores has 160 NaN of 160 values"),
    ],
)
def test_inferences_that_cannot_be_judged_are_refused(call: dict[str, Any], complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        run(method(lambda lab: lab.inferred(**call)))


def test_more_pseudo_groups_than_a_record_holds_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("debiasbench.core.inferred.MOST_GROUPS", 3)
    kept = method(lambda lab: lab.inferred(torch.arange(160) % 3))
    assert fit_whole(toy_task(), kept, model=MLP(), training=FAST).inferred is not None
    with pytest.raises(OptionError, match="groups has 4 different pseudo-groups, at most 3"):
        run(method(lambda lab: lab.inferred(torch.arange(160) % 4)))


def test_inferences_are_kept_as_they_were_when_declared() -> None:
    groups, scores = torch.arange(160) % 3, torch.linspace(-1, 1, 160).double()

    def infer(lab: Any) -> None:
        given = groups.clone()
        lab.inferred(given, scores=scores)
        given[:] = 7

    kept = fit_whole(toy_task(), method(infer), model=MLP(), training=FAST).inferred
    assert kept is not None
    assert kept.conflict is None
    assert torch.equal(kept.columns["groups"], groups)
    assert torch.equal(kept.columns["scores"], scores.float())
    assert set(kept.columns) == {"groups", "scores"}
    nothing = fit_whole(toy_task(), method(lambda lab: None), model=MLP(), training=FAST)
    assert nothing.inferred is None


def test_inferences_are_declared_once() -> None:
    def twice(lab: Any) -> None:
        for _ in range(2):
            lab.inferred(conflict=torch.zeros(160, dtype=torch.bool))

    with pytest.raises(OptionError, match=r"lab\.inferred was called twice"):
        run(method(twice))


def test_two_stages_of_one_name_are_refused() -> None:
    def twice(lab: Any) -> Any:
        lab.train(lab.model(), name="x")
        return lab.train(lab.model(), name="x")

    with pytest.raises(OptionError, match="Two stages are called 'x'"):
        run(method(twice))


def test_an_error_inside_a_method_names_the_method() -> None:
    with pytest.raises(PluginError, match=r"method 'peek' of acme 1\.0 raised ZeroDivisionError"):
        run(method(lambda lab: 1 / 0))


def test_a_method_that_returns_no_classifier_is_told_what_to_return() -> None:
    @dataclass(frozen=True)
    class Forgets(Method):
        def fit(self, lab: Any) -> Any:
            lab.train(lab.model(), name="train")

    with pytest.raises(
        PluginError, match=r"returned NoneType from fit; return the result of lab\.train"
    ):
        run(Forgets())


def test_labels_are_copies_that_a_method_may_change() -> None:
    task = toy_task()
    before = task.fingerprint()

    def relabel(lab: Any) -> None:
        for split, label in (("train", "y"), ("train", "group"), ("val", "y")):
            lab.labels(split, label)[:] = 0

    made = method(relabel, Supervision(train="groups", val="select"))
    fit(task, made, model=MLP(), training=FAST, seed=0)
    assert task.fingerprint() == before


@pytest.mark.parametrize("draw", [lambda: torch.rand(()).item(), np.random.rand, random.random])
def test_a_method_that_draws_from_a_global_generator_is_seeded_by_the_run(draw: Any) -> None:
    drawn: list[float] = []
    made = method(lambda lab: drawn.append(draw()))
    with seeded(0):
        for global_seed, seed in ((0, 0), (1, 0), (1, 1)):
            with seeded(global_seed):
                expected = draw()
            with seeded(global_seed):
                run(made, seed=seed)
                assert draw() == expected, "a run leaves the global generators as they were"
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "noise", [lambda: torch.rand(()).item(), np.random.rand, lambda: random.gauss(0, 1)]
)
def test_stages_do_not_depend_on_what_a_method_drew_before(noise: Any) -> None:
    class Noisy(CrossEntropy):
        def forward(self, batch: Any) -> torch.Tensor:
            return super().forward(batch) * (1 + 0.1 * noise())

    def train(draws: int) -> Any:
        def body(lab: Any) -> Any:
            for _ in range(draws):
                noise()
            return lab.train(Noisy(lab.model()), name="train")

        return run(method(body)).objective.state_dict()

    first, second = train(0), train(5)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_weights_changed_after_training_are_not_silently_undone() -> None:
    def edit(lab: Any) -> Any:
        stage = lab.train(lab.model(), name="train")
        with torch.no_grad():
            lab.head(stage.objective.network).weight.zero_()
        return stage

    with pytest.raises(
        PluginError, match=r"return the network instead, which is stage\.objective\.network"
    ):
        run(method(edit))
    returned = run(method(lambda lab: edit(lab).objective.network))
    assert returned.checkpoints == {}


def test_a_returned_network_with_a_weight_that_is_nan_is_refused() -> None:
    def broken(lab: Any) -> Any:
        network = lab.model()
        lab.head(network).bias.data[0] = float("nan")
        return network

    with pytest.raises(PluginError, match="NaN or infinite"):
        run(method(broken))


def test_the_density_of_a_returned_network_is_that_of_its_training_but_for_what_was_replaced() -> (
    None
):
    def refit(lab: Any) -> Any:
        network = lab.train(lab.model(), name="train").objective.network
        with torch.no_grad():
            lab.head(network).weight.fill_(1.0)
        return network

    fitted = fit(
        toy_task(),
        method(refit),
        model=MLP(hidden=(16,)),
        training=FAST,
        seed=0,
        components=lambda: [Sparsify(Static(density=0.2, distribution="uniform"))],
    )
    assert fitted.densities == {"network.1.weight": pytest.approx(0.2, abs=0.01)}


def test_a_second_sparse_component_is_refused() -> None:
    with pytest.raises(OptionError, match=r"Two components make network\.1\.weight sparse"):
        fit(
            toy_task(),
            REST(density=0.3),
            model=MLP(),
            training=FAST,
            components=lambda: [Sparsify(Static(density=0.2))],
        )


def test_a_supervision_of_the_wrong_type_names_the_method() -> None:
    @dataclass(frozen=True)
    class Typo(Method):
        supervision = "groups"  # type: ignore[assignment]

        def fit(self, lab: Any) -> Any:
            return lab.train(lab.model(), name="train")

    with pytest.raises(PluginError, match=r"acme 1\.0: supervision is 'groups'"):
        run(Typo())


def sparsely(of: Method, updater: Updater) -> Trained:
    return fit(
        toy_task(),
        of,
        model=MLP(),
        training=FAST,
        seed=0,
        components=lambda: [Sparsify(updater)],
    )


def test_a_sparse_stage_that_goes_on_keeps_its_masks() -> None:
    seen: list[Any] = []

    def fit_twice(lab: Any) -> Any:
        first = lab.train(lab.model(), name="first")
        second = lab.train(first, name="second")
        seen.extend([first.masks, second.masks])
        return second

    sparsely(method(fit_twice), Static(density=0.2))
    first, second = seen
    assert first.keys() == second.keys() != set()
    assert all(torch.equal(mask, second[name]) for name, mask in first.items())


def test_an_epoch_before_the_density_is_reached_is_not_selected() -> None:
    def fit_once(lab: Any) -> Any:
        return lab.train(lab.model(), name="train", epochs=8)

    updater = GMP(density=0.2, stop=0.5)
    fitted = sparsely(method(fit_once), updater)
    assert {rule: c.epoch >= 4 for rule, c in fitted.checkpoints.items()} == dict.fromkeys(
        RULES, True
    )


def test_the_density_of_the_stage_that_is_returned_counts_and_not_that_of_the_last() -> None:
    seen: list[Any] = []

    def sparse_then_dense(lab: Any) -> Any:
        component = Sparsify(Static(density=0.2))
        first = lab.train(lab.model(), name="sparse", components=[component])
        seen.append(lab.train(lab.model(), name="dense"))
        return first

    first = run(method(sparse_then_dense))
    network = run(method(lambda lab: sparse_then_dense(lab).objective.network))
    weights = {f"network.{name}": p for name, p in first.objective.network.named_parameters()}
    for fitted in (first, network):
        assert fitted.densities.keys() > {"network.1.weight", "network.3.weight"}
        assert min(fitted.densities.values()) < 0.25
        for name, density in fitted.densities.items():
            assert density == pytest.approx((weights[name] != 0).float().mean().item())
    assert seen[0].densities == {}


def test_a_network_that_is_trained_on_densely_is_dense() -> None:
    def sparse_then_dense(lab: Any) -> Any:
        network = lab.model()
        lab.train(network, name="sparse", components=[Sparsify(Static(density=0.2))])
        lab.train(network, name="dense")
        return network

    assert set(run(method(sparse_then_dense)).densities.values()) <= {1.0}
