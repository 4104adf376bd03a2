"""From a spec to a record: what is kept, what is not, and that it is the same each time."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from debiasbench import Method, Session, Task, hookimpl, option
from debiasbench.cli.report import report
from debiasbench.common.errors import DataError, OptionError, PluginError, UnknownNameError
from debiasbench.core.data import Dataset
from debiasbench.records.metrics import GroupCounts, accuracies
from debiasbench.records.record import Record, to_json
from debiasbench.records.selection import RULES
from debiasbench.records.store import Run, read_predictions
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.testing import toy_task
from tests.conftest import ACME, Toy, ToyPlugin, offering
from tests.failing import Diverges, Raises
from tests.running import QUICK, run


def go(plugins: Plugins, results: Path, **more: Any) -> Run:
    keys = ("overwrite", "device", "data_root")
    settings: dict[str, Any] = {"data_root": results, "device": "cpu"}
    settings |= {key: more.pop(key) for key in keys if key in more}
    spec = make_spec(plugins, dataset="toy", **{"method": "erm", **more})
    return run(spec, plugins, results=results, **settings)


def facts(record: Record) -> dict[str, Any]:
    """All of a record that does not depend on the clock."""
    data = json.loads(to_json(record))
    for key in ("wall_seconds", "training_seconds", "images_per_second", "peak_memory_bytes"):
        data["cost"].pop(key)
    for stage in data["cost"]["stages"]:
        stage.pop("seconds")
    data["provenance"].pop("started")
    return data


@pytest.mark.parametrize("method", sorted(Plugins().methods))
def test_every_method_runs_to_a_record_and_again_to_the_same(
    method: str, plugins: Plugins, tmp_path: Path
) -> None:
    options = QUICK.get(method, {})
    first = go(plugins, tmp_path / "a", method=method, method_options=options)
    with torch.random.fork_rng():
        torch.manual_seed(123)
        second = go(plugins, tmp_path / "b", method=method, method_options=options)
    assert first.record.status == "ok"
    assert set(first.record.outcomes) == set(RULES)
    assert facts(first.record) == facts(second.record)
    name = first.path.name.replace(".json", ".predictions.safetensors")
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_another_seed_is_another_record(plugins: Plugins, tmp_path: Path) -> None:
    slow = {"lr": 1e-4}  # far from solved, so that chance shows
    first, second = (go(plugins, tmp_path, seed=s, training=slow) for s in (0, 1))
    assert first.path != second.path
    assert first.record.outcomes["last"].test != second.record.outcomes["last"].test


def test_a_finished_spec_is_not_run_again(plugins: Plugins, tmp_path: Path) -> None:
    first = go(plugins, tmp_path)
    before = first.path.stat().st_mtime_ns
    again = go(plugins, tmp_path)
    assert (first.fresh, again.fresh) == (True, False)
    assert first.path.stat().st_mtime_ns == before
    assert to_json(again.record) == to_json(first.record)
    assert go(plugins, tmp_path, overwrite="always").fresh
    assert first.path.stat().st_mtime_ns > before


def test_hits_and_predictions_and_metrics_say_the_same(plugins: Plugins, tmp_path: Path) -> None:
    done = go(plugins, tmp_path, method="rest", method_options={"density": 0.2})
    record = done.record
    totals = record.task.group_counts
    for rule, outcome in record.outcomes.items():
        for split, result in (("val", outcome.val), ("test", outcome.test)):
            stored = read_predictions(done.path, record, rule, split)
            right = stored["predicted"] == stored["y"]
            hits = np.bincount(stored["group"][right], minlength=4)
            assert hits.tolist() == result.hits
            counts = GroupCounts.of(
                result.hits, totals[split], record.task.aligned, totals["train"]
            )
            assert accuracies(counts) == pytest.approx(result.metrics, nan_ok=True)
    metric = {r: m for r, m in RULES.items() if m is not None}
    for rule, name in metric.items():
        assert record.outcomes[rule].value == record.outcomes[rule].val.metrics[name]


def test_the_curves_of_a_record_lead_to_the_epochs_that_the_rules_keep(
    plugins: Plugins, tmp_path: Path
) -> None:
    record = go(plugins, tmp_path, method="jtt", training={"epochs": 3}).record
    assert [curves.stage for curves in record.curves] == ["identify", "train"]
    identify, train = (curves.values for curves in record.curves)
    assert set(identify) == {"loss"}  # its epoch is not selected by validation
    assert {len(values) for values in train.values()} == {3}
    assert train["loss"][0] > train["loss"][-1] > 0
    for rule, outcome in record.outcomes.items():
        values = [[0.0] * 3 if rule == "last" else train[rule], train["val_unbiased"], range(3)]
        epochs = list(zip(*values, strict=True))  # ties are broken by what stands further right
        assert outcome.epoch == (3 if rule == "last" else 1 + epochs.index(max(epochs)))
        if rule != "last":
            assert train[rule][outcome.epoch - 1] == pytest.approx(outcome.value, abs=1e-6)


@dataclass(frozen=True)
class Curious(Method):
    """Reads all that a stage returns."""

    def fit(self, lab: Any) -> Any:
        trained = lab.train(lab.model(), name="train")
        assert trained.curves == {}
        return trained


def test_a_method_does_not_see_the_curves(tmp_path: Path) -> None:
    plugins = Plugins(extra=[(ToyPlugin(), ACME), (offering(curious=Curious), ACME)])
    assert go(plugins, tmp_path, method="curious").record.curves[0].values["val_unbiased"]


def test_the_cost_of_rest_is_that_of_its_density(plugins: Plugins, tmp_path: Path) -> None:
    dense = go(plugins, tmp_path).record.cost
    sparse = go(plugins, tmp_path, method="rest", method_options={"density": 0.2}).record.cost
    assert dense is not None
    assert sparse is not None
    assert (dense.density, dense.active_parameters) == (1.0, dense.parameters)
    assert sparse.density == pytest.approx(0.2, abs=1e-4)
    assert sparse.parameters == dense.parameters
    # every weight of an mlp is multiplied once a sample, so FLOPs follow the density
    assert sparse.inference_flops == pytest.approx(dense.inference_flops * sparse.density)
    assert sparse.training_flops < 0.45 * dense.training_flops


def test_the_record_says_with_what_it_was_made(plugins: Plugins, tmp_path: Path) -> None:
    made = go(plugins, tmp_path).record.provenance
    assert made.plugins["dataset"] == "acme 1.0"
    assert made.plugins["method"].startswith("debiasbench ")
    assert made.versions["torch"] == torch.__version__.partition("+")[0]
    assert (made.device, made.deterministic) == ("cpu", True)
    assert "threads" in made.hardware


def test_a_loss_that_becomes_nan_is_a_failed_record(tmp_path: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(diverges=Diverges), ACME)])
    done = go(plugins, tmp_path, method="diverges")
    failure = done.record.failure
    assert done.record.status == "failed"
    assert failure is not None
    assert (failure.stage, failure.step) == ("second", 2)
    assert failure.last_loss is not None
    assert math.isfinite(failure.last_loss)
    assert done.record.outcomes == {}
    assert go(plugins, tmp_path, method="diverges").fresh, "failed runs are made again"
    assert not go(plugins, tmp_path, method="diverges", overwrite="never").fresh


def test_a_method_with_a_bug_leaves_nothing_behind(tmp_path: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(raises=Raises), ACME)])
    with pytest.raises(PluginError, match=r"'raises' of acme 1.0 raised IndexError: off by one"):
        go(plugins, tmp_path, method="raises")
    assert [p.name for p in tmp_path.iterdir()] == [".locks"]


@dataclass(frozen=True)
class Runs(Method):
    """Trains as erm does, then runs a statement."""

    statement: str = option("pass", "what to run")

    def fit(self, lab: Any) -> Any:
        trained = lab.train(lab.model(), name="train")
        exec(self.statement)
        return trained


@pytest.mark.parametrize(
    ("statement", "raised"),
    [
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import os; os._exit(0)", r"SystemExit: os\._exit\(0\)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise BaseException('base')", "BaseException: base"),
        ("raise GeneratorExit", "GeneratorExit"),
    ],
)
def test_a_method_that_ends_the_program_is_an_error_of_its_plugin(
    statement: str, raised: str, tmp_path: Path
) -> None:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(runs=Runs), ACME)])
    with pytest.raises(PluginError, match=rf"'runs' of acme 1.0 raised {raised} \(.*line \d+\)\. "):
        go(plugins, tmp_path, method="runs", method_options={"statement": statement})
    assert not list(tmp_path.glob("*.json"))


def test_what_a_method_changes_in_fit_does_not_reach_the_next_run(tmp_path: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(runs=Runs), ACME)])
    alone = go(plugins, tmp_path / "alone")
    for statement in (
        "import torch; torch.set_default_dtype(torch.float64)",
        "import torch; torch.set_grad_enabled(False); torch.set_grad_enabled(True)",
        "import torch; torch.set_float32_matmul_precision('medium')",
        "import os; os.chdir('/')",
    ):
        options = {"statement": statement}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            go(plugins, tmp_path / "r", method="runs", method_options=options)
        said = [str(w.message) for w in caught]
        assert ["method 'runs' of acme 1.0 changed" in each for each in said] == (
            [] if "True" in statement else [True]
        )
    # as text, in which NaN equals NaN
    assert str(go(plugins, tmp_path / "r").record.outcomes) == str(alone.record.outcomes)


def test_a_session_warns_of_installed_plugins_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    class Installed:
        name, module, dist = "acme", "acme", None

        def load(self) -> object:
            raise ImportError("no module named acme_core")

    monkeypatch.setenv("DEBIASBENCH_PLUGINS", "1")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Installed()])
    with pytest.warns(UserWarning, match=r"plugin 'acme' of unknown \? did not load: ImportError"):
        Session(device="cpu").close()


def test_a_data_set_that_ends_the_program_is_an_error_of_its_plugin(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Leaves(Toy):
        def load(self, root: Path) -> Task:
            raise SystemExit(0)

    class Plugin:
        @hookimpl
        def debiasbench_register_datasets(self, register: Any) -> None:
            register("toy", Leaves)

    with pytest.raises(DataError, match=r"of acme 1.0 could not be loaded: SystemExit: 0 \("):
        go(Plugins([(Plugin(), ACME)]), tmp_path)


def test_nothing_that_happens_before_the_end_depends_on_the_test_split(
    plugins: Plugins, tmp_path: Path
) -> None:
    @dataclass(frozen=True)
    class OtherTest(Toy):
        def load(self, root: Path) -> Task:
            task = toy_task()
            black = torch.zeros_like(task.test.x)
            return replace(task, test=replace(task.test, x=black, y=1 - task.test.y))

    other = Plugins()
    other.datasets.add("toy", OtherTest, ACME)
    for method in ("jtt", "dfr"):
        first = go(plugins, tmp_path / "a", method=method).record
        second = go(other, tmp_path / "b", method=method).record
        for rule, outcome in first.outcomes.items():
            assert outcome.val == second.outcomes[rule].val
            assert outcome.epoch == second.outcomes[rule].epoch
            assert outcome.test != second.outcomes[rule].test


def test_an_installed_plugin_changes_no_other_methods_result(
    plugins: Plugins, tmp_path: Path
) -> None:
    more = Plugins([(ToyPlugin(), ACME), (offering(diverges=Diverges), ACME)])
    first, second = go(plugins, tmp_path / "a").record, go(more, tmp_path / "b").record
    assert facts(first) == facts(second)


def test_predictions_without_their_record_are_made_again(plugins: Plugins, tmp_path: Path) -> None:
    first = go(plugins, tmp_path)
    assert first.record.predictions is not None
    beside = tmp_path / first.record.predictions["file"]
    good = beside.read_bytes()
    beside.write_bytes(b"of a process killed before it wrote its record")
    assert go(plugins, tmp_path).fresh
    assert beside.read_bytes() == good
    assert not go(plugins, tmp_path).fresh


def test_an_absent_group_is_allowed_and_shown_as_such(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Lacking(Toy):
        def load(self, root: Path) -> Task:
            task = toy_task(absent=(1, 0))
            return replace(task, test=task.val)

    plugins = Plugins()
    plugins.datasets.add("toy", Lacking, ACME)
    done = go(plugins, tmp_path)
    assert done.record.task.group_counts["train"][2] == 0
    assert done.record.outcomes["last"].test.hits[2] == 0
    assert not math.isnan(done.record.outcomes["last"].test.metrics["worst_group"])
    right = next(line for line in report(done).splitlines() if line.startswith("right"))
    assert right.split()[1:3] == ["—", "(0)"]


def test_a_rule_with_nothing_to_choose_by_has_no_outcome(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class OnlyAligned(Toy):
        def load(self, root: Path) -> Task:
            task = toy_task()
            keep = ~task.conflict(task.val)
            val = replace(
                task.val, x=task.val.x[keep], y=task.val.y[keep], bias=task.val.bias[keep]
            )
            return replace(task, val=val)

    plugins = Plugins()
    plugins.datasets.add("toy", OnlyAligned, ACME)
    record = go(plugins, tmp_path).record
    assert "val_conflict" not in record.outcomes
    assert "val_average" in record.outcomes


def test_a_data_set_with_a_bug_is_named(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Bug(Toy):
        def load(self, root: Path) -> Task:
            raise OSError("image file is truncated: 17.png")

    plugins = Plugins()
    plugins.datasets.add("toy", Bug, ACME)
    with pytest.raises(DataError, match=r"dataset 'toy' of acme 1.0 could not be loaded.*17.png"):
        go(plugins, tmp_path)


def test_a_model_that_does_not_fit_says_so(plugins: Plugins, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"test_vit.*does not fit samples of shape \(3, 8, 8\)"):
        go(plugins, tmp_path, model="timm:test_vit")


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        ({"method": "ermm"}, UnknownNameError, "Did you mean 'erm'"),
        ({"model": "cnm"}, UnknownNameError, "Did you mean 'cnn'"),
        ({"method_options": {"lr": 1}}, OptionError, "method erm: no option 'lr'"),
        ({"training": {"lr": 0}}, OptionError, "lr=0: input should be greater than 0"),
        ({"dataset_options": {"ratio": 2}}, OptionError, "dataset toy: ratio=2"),
    ],
)
def test_what_does_not_exist_or_is_out_of_range_is_refused_before_anything_runs(
    changes: dict[str, Any], error: type[Exception], complaint: str, plugins: Plugins
) -> None:
    with pytest.raises(error, match=complaint):
        make_spec(plugins, **{"dataset": "toy", "method": "erm", **changes})


def test_a_spec_writes_every_default_out(plugins: Plugins) -> None:
    spec = make_spec(plugins, dataset="toy", method="jtt", training={"epochs": "3"})
    assert spec.method.options == {"identification_epochs": 1, "upweight": 20.0}
    assert spec.dataset.options == {"ratio": 0.15}
    assert spec.model.name == "mlp"
    assert (spec.training["epochs"], spec.training["batch_size"]) == (3, 16)
    assert spec.training["optimizer"] == "sgd"


def test_a_stranger_data_sets_settings_are_checked(plugins: Plugins) -> None:
    @dataclass(frozen=True)
    class Odd(Toy):
        training = {"epoch": 3}  # noqa: RUF012

    fresh = Plugins()
    fresh.datasets.add("odd", Odd, ACME)
    with pytest.raises(OptionError, match="Did you mean 'epochs'"):
        make_spec(fresh, dataset="odd", method="erm")
    assert issubclass(Odd, Dataset)


def test_equal_runs_keep_equal_weights_byte_for_byte(plugins: Plugins, tmp_path: Path) -> None:
    spec = make_spec(plugins, method="erm", dataset="toy", model="mlp", training={"epochs": 1})
    kept = set()
    for i in range(6):
        folder = tmp_path / str(i)
        done = run(spec, plugins, results=folder, data_root=folder, device="cpu", keep_weights=True)
        assert done.record.weights is not None
        kept.add((folder / done.record.weights["file"]).read_bytes())
    assert len(kept) == 1
