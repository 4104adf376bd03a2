"""Specs are resolved: what depends on the machine is settled before a spec has an id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from debiasbench.common.errors import OptionError
from debiasbench.core.settings import Training
from debiasbench.records.archive import is_unpacked
from debiasbench.records.store import read_all
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec, training_of
from debiasbench.specs.spec import Spec
from debiasbench.specs.suites import read

RECORDS = Path(__file__).parents[2] / "leaderboard" / "records"


def spec_of(plugins: Plugins, **more: Any) -> Spec:
    return make_spec(plugins, method="erm", dataset="toy", model="mlp", **more)


# --- precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["fp32", "tf32", "bf16", "fp16"])
def test_auto_precision_is_that_of_the_machine(machine: Any, plugins: Plugins) -> None:
    spec = spec_of(plugins, precision=machine)
    assert training_of(spec).precision == machine
    assert spec == spec_of(plugins, training={"precision": "auto"}, precision=machine)
    assert spec == spec_of(plugins, training={"precision": machine})
    assert "auto" not in spec.training.values()


def test_a_precision_that_is_asked_for_is_kept_on_every_machine(plugins: Plugins) -> None:
    spec = spec_of(plugins, training={"precision": "fp16"}, precision="bf16")
    assert spec.training["precision"] == "fp16"


def test_a_spec_without_a_precision_means_fp32(plugins: Plugins) -> None:
    spec = spec_of(plugins)
    assert "precision" not in spec.training
    assert spec.id == spec_of(plugins, training={"precision": "fp32"}, precision="bf16").id
    assert spec.id != spec_of(plugins, precision="bf16").id


def test_the_settings_of_a_spec_are_read_completely(plugins: Plugins) -> None:
    spec = spec_of(plugins, training={"lr": 0.5, "micro_batch": 4})
    assert training_of(spec) == Training(
        epochs=2, batch_size=16, lr=0.5, precision="fp32", micro_batch=4
    )
    assert training_of(spec_of(plugins)).micro_batch is None


# --- ids that exist stay valid ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "known"),
    [
        ({"method": "erm"}, "01722450d0dd175f"),
        ({"method": "rest"}, "9f8a7924683f9283"),
        ({"method": "rest", "dataset": "cmnist"}, "099e81ce8d63e34f"),
        (
            {"method": "erm", "sparse": "rigl", "sparse_options": {"density": 0.1}},
            "13361cde450f77fd",
        ),
    ],
)
def test_specs_have_the_ids_that_they_always_had(words: Any, known: str, plugins: Plugins) -> None:
    spec = make_spec(plugins, **words)
    assert spec.revisions == {"rules": 2}  # revision 1 is left out, so that its ids stay valid
    assert replace(spec, revisions=None).id == known
    assert spec.id != known


def test_published_records_are_read_and_their_specs_are_made_again(plugins: Plugins) -> None:
    records, problems = read_all([RECORDS])
    assert problems == []
    plain = [path for path, _ in records if not is_unpacked(path)]
    assert len(records) > len(plain) == len(list(RECORDS.rglob("*.json"))) > 0
    for path, record in records:
        spec = record.spec
        again = make_spec(
            plugins,
            method=spec.method.name,
            method_options=spec.method.options,
            dataset=spec.dataset.name,
            dataset_options=spec.dataset.options,
            model=spec.model.name,
            model_options=spec.model.options,
            training=spec.training,
            seed=spec.seed,
            sparse=spec.sparse.name if spec.sparse else None,
            sparse_options=spec.sparse.options if spec.sparse else None,
        )
        assert replace(again, revisions=spec.revisions).id == spec.id == record.id, path


# --- "auto" has no id --------------------------------------------------------------------------


def test_a_spec_that_is_not_resolved_has_no_id(plugins: Plugins) -> None:
    spec = spec_of(plugins, training={"micro_batch": "auto"})
    assert training_of(spec).micro_batch == "auto"
    for ask in (lambda: spec.id, lambda: spec.stem):
        with pytest.raises(OptionError) as error:
            ask()
        assert str(error.value) == (
            "This spec is not resolved: train.micro_batch is auto. Set a value that does not "
            "depend on the machine"
        )
    resolved = replace(spec, training={**spec.training, "micro_batch": 8})
    assert resolved.id == spec_of(plugins, training={"micro_batch": 8}).id


def test_every_auto_is_named(plugins: Plugins) -> None:
    training = {"precision": "auto", "micro_batch": "auto"}
    spec = replace(spec_of(plugins), training=training)
    with pytest.raises(OptionError, match=r"train\.precision and train\.micro_batch are auto"):
        _ = spec.id


# --- suites -----------------------------------------------------------------------------------


def test_the_runs_of_a_suite_have_the_precision_of_the_machine(plugins: Plugins) -> None:
    suite = read("rest-bffhq")
    assert {training_of(s).precision for s in suite.specs(plugins)} == {"fp32"}
    specs = suite.specs(plugins, precision="bf16")
    assert {training_of(s).precision for s in specs} == {"bf16"}


def test_a_suite_of_specs_that_are_not_resolved_holds_each_once(
    plugins: Plugins, tmp_path: Path
) -> None:
    file = tmp_path / "parts.toml"
    file.write_text(
        'name = "parts"\ndescription = "A test"\nsource = "here"\n[base]\ndataset = "toy"\n'
        'method = "erm"\n"train.micro_batch" = "auto"\n[[runs]]\nseed = 1\n[[runs]]\nseed = 1\n'
    )
    (spec,) = read(file).specs(plugins)
    assert training_of(spec).micro_batch == "auto"
