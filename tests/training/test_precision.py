"""Precision, compilation and determinism: what is switched on, recorded, and put back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from torch import nn

from debiasbench.common.errors import OptionError
from debiasbench.core.component import Component
from debiasbench.core.objective import CrossEntropy
from debiasbench.core.settings import Training
from debiasbench.core.stage import Trained
from debiasbench.sparsity import GMP, RigL, Sparsify
from debiasbench.sparsity.updater import Updater
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.testing import toy_task
from debiasbench.training.placed import PlacedTask
from debiasbench.training.precision import Numerics
from debiasbench.training.predict import Predictor
from debiasbench.training.stage_run import StageRun
from tests.running import QUICK, run
from tests.training.stages import CPU, ON_CPU, Flat, assert_equal, make_stage, train

SOME = ["erm", "groupdro", "jtt", "lff", "dfr", "rest"]


class Watch(CrossEntropy):
    """Notes the types that it computes with."""

    def __init__(self) -> None:
        super().__init__(Flat())
        self.types: set[torch.dtype] = set()
        self.network.fc.register_forward_hook(lambda _m, _x, y: self.types.add(y.dtype))


def switches() -> tuple[object, ...]:
    backends: Any = torch.backends
    return (
        backends.cuda.matmul.fp32_precision,
        backends.cudnn.conv.fp32_precision,
        backends.cudnn.benchmark,
        backends.cudnn.deterministic,
        torch.are_deterministic_algorithms_enabled(),
    )


def trained(precision: Any, **more: Any) -> tuple[Watch, Trained]:
    watch = Watch()
    training = Training(epochs=3, batch_size=16, lr=0.05, precision=precision)
    return watch, train(watch, training=training, **more)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_networks_compute_in_the_precision_that_is_asked_for_on_float32_weights(
    precision: Any, dtype: torch.dtype
) -> None:
    watch, done = trained(precision)
    assert watch.types == {dtype}
    assert {p.dtype for p in done.objective.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_ends_near_full_precision(precision: Any) -> None:
    _, full = trained("fp32")
    _, half = trained(precision)
    a, b = full.objective.state_dict(), half.objective.state_dict()
    moved = max(float(a[name].abs().max()) for name in a)
    assert all(float((a[name] - b[name]).abs().max()) < 0.1 * moved for name in a)
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_fp16_gradients_too_small_for_it_are_not_lost() -> None:
    class Faint(CrossEntropy):
        def forward(self, batch: Any) -> torch.Tensor:
            return super().forward(batch) * 1e-6

    def moved(precision: Any) -> float:
        objective = Faint(Flat())
        train(objective, training=Training(epochs=1, batch_size=16, lr=1.0, precision=precision))
        return float(objective.network.fc.weight.detach().abs().max())

    assert moved("fp16") == pytest.approx(moved("fp32"), rel=0.05)


def test_logits_are_float32_whatever_computed_them() -> None:
    watch, done = trained("bf16")
    assert {value.dtype for value in done.checkpoints["last"].state.values()} == {torch.float32}
    view = PlacedTask(toy_task(), CPU).view("test", "none")
    logits = Predictor(ON_CPU, "bf16").predict(watch, view)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_switches_of_the_program_around_are_put_back(deterministic: bool) -> None:
    before, during = switches(), []

    class Look(CrossEntropy):
        def forward(self, batch: Any) -> torch.Tensor:
            during.append(switches())
            return super().forward(batch)

    train(Look(Flat()), execution=replace(ON_CPU, deterministic=deterministic))
    assert switches() == before
    assert set(during) == {("ieee", "ieee", not deterministic, deterministic, deterministic)}


def test_tf32_on_a_cpu_is_refused() -> None:
    with pytest.raises(OptionError, match="cpu does not support TF32"):
        Numerics.on(CPU, "tf32")


@pytest.mark.parametrize(
    ("bf16", "tf32", "auto"), [(True, True, "bf16"), (False, False, "fp32"), (None, None, "fp32")]
)
def test_an_accelerator_is_asked_what_it_computes_itself(
    bf16: bool | None, tf32: bool | None, auto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace()
    if bf16 is not None:  # it may emulate what it has not
        module.is_bf16_supported = lambda including_emulation=True: bf16 or including_emulation
        module.is_tf32_supported = lambda: tf32
    monkeypatch.setattr(torch, "get_device_module", lambda _device: module)
    accelerator = torch.device("cuda")
    numerics = Numerics.on(accelerator)
    assert (numerics.precision, numerics.channels_last) == (auto, True)
    if tf32 is False:
        with pytest.raises(OptionError, match="does not support TF32"):
            Numerics.on(accelerator, "tf32")
    else:
        assert Numerics.on(accelerator, "tf32").precision == "tf32"


def test_what_was_interrupted_in_fp16_goes_on_with_its_scale() -> None:
    numerics = Numerics.on(CPU, "fp16")
    scaler = numerics.scaler(CPU)
    scaler.scale(torch.ones(()))
    scaler.update(128.0)
    again = numerics.scaler(CPU)
    again.load_state_dict(scaler.state_dict())
    assert again.get_scale() == 128.0


class Overflows(CrossEntropy):
    """Its gradients are not finite in one step."""

    def __init__(self, at: int = 0) -> None:
        super().__init__(Flat())
        self.at = at

    def forward(self, batch: Any) -> torch.Tensor:
        return super().forward(batch) * (1e38 if batch.step == self.at else 1.0)


class Notes(Component):
    """Is due after the first step, and notes the steps of its updates."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def due(self, step: int) -> bool:
        return step == 0

    def update(self, step: int) -> None:
        self.steps.append(step)


@pytest.mark.parametrize("stopped", [False, True])
def test_an_update_whose_step_fp16_skips_follows_the_next_step_even_after_a_stop(
    stopped: bool,
) -> None:
    def begun() -> tuple[StageRun, Notes]:
        notes, numerics = Notes(), Numerics.on(CPU, "fp16")
        stage = make_stage(Overflows(), steps=3, components=(notes,))
        return StageRun(stage, ON_CPU, numerics), notes

    run_, notes = begun()
    with run_.started():
        steps = run_.steps()
        next(steps)
        assert notes.steps == []
        if stopped:
            again, notes = begun()
            again.load_state_dict(run_.state_dict())
            with again.started():
                list(again.steps())
        else:
            list(steps)
    assert notes.steps == [1]


# updates follow steps 1 and 3; the last one of pruning follows step 5, and prunes to 0.3
@pytest.mark.parametrize(
    ("updater", "at", "updates"),
    [(RigL(0.3, every="2"), 1, 2), (GMP(0.3, every="2"), 1, 3), (GMP(0.3, every="2"), 5, 3)],
)
def test_a_topology_that_fp16_could_not_update_is_updated_after_the_next_step(
    updater: Updater, at: int, updates: int
) -> None:
    found = []
    for overflow in (at, -1):
        sparsify = Sparsify(updater)
        stage = make_stage(Overflows(overflow), steps=8, components=(sparsify,))
        run_ = StageRun(stage, ON_CPU, Numerics.on(CPU, "fp16"))
        with run_.started():
            list(run_.steps())
            assert sparsify.training is not None
            found.append((sparsify.training.updates, sparsify.densities()))
    assert found[0] == found[1]
    assert found[0][0] == updates
    assert found[0][1]["network.fc.weight"] == pytest.approx(0.3, abs=0.01)


def test_momentum_that_is_taken_up_again_lies_in_memory_as_its_weights_do() -> None:
    numerics = Numerics("fp32", channels_last=True)

    def begun() -> StageRun:
        objective = CrossEntropy(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)))
        numerics.lay_out(objective)
        return StageRun(make_stage(objective, steps=3), ON_CPU, numerics)

    first, again = begun(), begun()
    next(first.steps())
    state = first.state_dict()
    for values in state["optimizer"]["state"].values():  # as checkpoints hold it
        values["momentum_buffer"] = values["momentum_buffer"].contiguous()
    again.load_state_dict(state)
    optimizer = again.step.optimizer
    for p, values in optimizer.state.items():
        assert values["momentum_buffer"].stride() == p.stride()
    assert optimizer.param_groups[0]["params"][0].stride() == (27, 1, 9, 3)


def test_an_operation_without_a_deterministic_way_names_the_option() -> None:
    class Random(CrossEntropy):
        def forward(self, batch: Any) -> torch.Tensor:
            raise RuntimeError("scatter_x does not have a deterministic implementation, but you")

    with pytest.raises(OptionError, match="--deterministic: scatter_x does not have"):
        train(Random(Flat()), execution=replace(ON_CPU, deterministic=True))


@pytest.mark.parametrize(
    ("method", "precision"),
    [(method, "bf16") for method in Plugins([]).methods] + [(method, "fp16") for method in SOME],
)
def test_every_method_trains_in_half_precision(
    method: str, precision: str, tmp_path: Path, plugins: Plugins
) -> None:
    spec = make_spec(
        plugins,
        method=method,
        method_options=QUICK.get(method, {}),
        dataset="toy",
        model="mlp",
        training={"precision": precision, "epochs": 2},
    )
    record = run(spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu").record
    assert record.status == "ok"
    assert record.spec.training["precision"] == precision
    assert record.provenance.arithmetic == {
        "precision": precision,
        "compile": "off",
        "deterministic": False,
        "channels_last": False,
        "graphs": False,
        "processes": 1,
        "threads": 1,
    }


def test_the_command_line_says_precision_and_batch_and_the_record_keeps_both(
    debiasbench: Callable[..., Result], tmp_path: Path
) -> None:
    line = ["run", "--method", "erm", "--dataset", "toy", "--results", tmp_path, "--quiet"]
    done = debiasbench(*line, "--precision", "bf16", "--batch-size", "8", "--deterministic")
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.glob("toy-*.json")
    record = json.loads(path.read_text())
    assert record["spec"]["training"]["precision"] == "bf16"
    assert record["spec"]["training"]["batch_size"] == 8
    assert record["provenance"]["arithmetic"]["deterministic"] is True


def test_a_spec_that_leaves_precision_open_is_the_one_from_before_there_was_a_choice(
    plugins: Plugins,
) -> None:
    spec = make_spec(plugins, method="erm", dataset="toy", model="mlp")
    assert not {"precision", "micro_batch"} & spec.training.keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch 2.11 by itself
def test_compiled_networks_train_alike_count_the_same_and_are_plain_afterwards() -> None:
    def go(mode: Any) -> Trained:
        execution = replace(ON_CPU, compile=mode)
        return train(execution=execution, training=Training(epochs=1, batch_size=16, lr=0.05))

    plain, done = go("off"), go("on")
    a, b = plain.objective.state_dict(), done.objective.state_dict()
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)
    assert plain.cost is not None
    assert done.cost is not None
    assert plain.cost.flops == done.cost.flops > 0
    assert done.objective.network._compiled_call_impl is None
    assert_equal(done.objective.state_dict(), done.checkpoints["last"].state)
