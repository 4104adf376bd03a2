"""Trials: trained as runs are, evaluated on validation alone, and stored beside the records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from debiasbench import Session
from debiasbench.common.errors import BusyError, PluginError, RecordError, SearchFailed
from debiasbench.records import trial as trials
from debiasbench.records.reading import read_all
from debiasbench.records.record import to_json
from debiasbench.records.selection import RULES
from debiasbench.records.trial import Trials
from debiasbench.runs.searching import selected
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.search import SEED, plan
from debiasbench.specs.spec import Spec
from debiasbench.training.placed import PlacedTask
from tests.conftest import ACME, ToyPlugin, offering
from tests.failing import Diverges
from tests.searching import QUICK, searched


@pytest.fixture
def session(plugins: Plugins, tmp_path: Path) -> Iterator[Session]:
    with Session(plugins, results=tmp_path, data_root=tmp_path, device="cpu") as one:
        yield one


@pytest.fixture
def spec(plugins: Plugins) -> Spec:
    return make_spec(plugins, method="erm", dataset="toy", seed=SEED)


@pytest.fixture
def no_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody have the test split."""
    real = PlacedTask.held_out

    def held_out(self: PlacedTask, name: Any) -> Any:
        assert name != "test", "the test split was read"
        return real(self, name)

    monkeypatch.setattr(PlacedTask, "held_out", held_out)


@pytest.mark.usefixtures("no_test_split")
def test_a_trial_never_reads_the_test_split(session: Session, spec: Spec) -> None:
    made = session.trial(spec)
    assert made.record.status == "ok"
    assert set(made.record.outcomes) == set(RULES)
    stored = load_file(made.path.with_name(f"{spec.stem}.predictions.safetensors"))
    assert {key.partition(".")[0] for key in stored} == {"val"}
    assert "test" not in made.path.read_text().split('"outcomes"')[1].split('"predictions"')[0]


@pytest.mark.usefixtures("no_test_split")
def test_a_run_of_the_same_spec_reads_it(session: Session, spec: Spec) -> None:
    with pytest.raises(PluginError, match="the test split was read"):
        session.run(spec)


def test_a_trial_has_the_validation_results_of_the_run(session: Session, spec: Spec) -> None:
    trial, run = session.trial(spec).record, session.run(spec, overwrite="always").record
    for rule, outcome in trial.outcomes.items():
        of_run = run.outcomes[rule]
        assert (outcome.epoch, outcome.val) == (of_run.epoch, of_run.val)
    assert trial.curves == run.curves
    assert trial.cost is not None
    assert run.cost is not None
    assert trial.cost.training_flops == run.cost.training_flops


def test_a_trial_is_made_once_and_read_back_equal(session: Session, spec: Spec) -> None:
    first, again = session.trial(spec), session.trial(spec)
    assert (first.fresh, again.fresh) == (True, False)
    assert to_json(again.record) == to_json(first.record)
    assert first.path == Trials(session.store.folder).path(spec)
    assert session.trial(spec, overwrite="always").fresh


def test_a_trial_is_no_record(session: Session, spec: Spec) -> None:
    session.trial(spec)
    assert read_all([session.store.folder]) == ([], [])
    assert session.store.load(spec) is None
    assert session.run(spec).fresh


def test_a_trial_whose_predictions_are_lost_is_made_again(session: Session, spec: Spec) -> None:
    made = session.trial(spec)
    made.path.with_name(f"{spec.stem}.predictions.safetensors").unlink()
    assert session.trial(spec).fresh


def test_a_trial_that_another_process_makes_is_busy(session: Session, spec: Spec) -> None:
    with Trials(session.store.folder).claim(spec), pytest.raises(BusyError, match="being run"):
        session.trial(spec)


def test_trials_at_once_are_those_alone(plugins: Plugins, tmp_path: Path) -> None:
    made = plan(plugins, {"method": "erm", **QUICK}, 4)
    files = []
    for name, together in (("alone", False), ("together", True)):
        with Session(plugins, results=tmp_path / name, device="cpu") as one:
            if together:
                done = one.trial_many(made.trials)
                assert all(getattr(run, "fresh", False) for run in done)
            else:
                for spec in made.trials:
                    one.trial(spec)
        found = sorted((tmp_path / name / "search").glob("*.safetensors"))
        files.append([(file.name, file.read_bytes()) for file in found])
    assert files[0] == files[1]
    assert len(files[0]) == 4


def test_a_damaged_trial_is_named_with_what_to_do(session: Session, spec: Spec) -> None:
    path = session.trial(spec).path
    path.write_text(path.read_text().replace('"epoch": 2', '"epoch": -3'))
    with pytest.raises(RecordError, match=r"the epoch of .* is impossible.*--overwrite always"):
        session.trial(spec)
    assert session.trial(spec, overwrite="always").fresh


def test_a_record_is_not_read_as_a_trial(session: Session, spec: Spec) -> None:
    path = session.run(spec).path
    with pytest.raises(RecordError, match="trial schema 2"):
        trials.read(path)


# --- the winner ---------------------------------------------------------------------------------


def test_a_trial_that_diverged_is_not_run_again_and_never_wins(tmp_path: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(diverges=Diverges), ACME)])
    spec = make_spec(plugins, method="diverges", dataset="toy", seed=SEED)
    made = plan(plugins, {"method": "erm", **QUICK}, 3)
    with Session(plugins, results=tmp_path, device="cpu") as session:
        failed = session.trial(spec)
        assert failed.record.failure is not None
        assert not session.trial(spec).fresh
        for one in made.trials:
            session.trial(one)
        store = Trials(tmp_path)
        broken = replace(made, trials=(spec, *made.trials))
        search, _ = selected(tmp_path, broken)
        assert search.won > 0
        with pytest.raises(SearchFailed, match="none of 1 trial has a result: The loss"):
            selected(tmp_path, replace(made, trials=(spec,)))
        store.path(made.trials[1]).unlink()
        with pytest.raises(RecordError, match=r"1 trial of 4 is missing \(2\)"):
            selected(tmp_path, broken)


def test_the_winner_is_the_best_on_validation_and_of_equal_ones_the_first(
    plugins: Plugins, tmp_path: Path
) -> None:
    made, search = searched(plugins, tmp_path, trials=5, seeds=())
    store = Trials(tmp_path)
    found = [store.load(spec) for spec in made.trials]
    values = [one.outcomes[search.rule].val.metrics[search.metric] for one in found if one]
    assert (search.rule, search.metric) == ("val_unbiased", "unbiased")
    assert search.won == values.index(max(values))
    assert search.trials == [spec.id for spec in made.trials]
    costs = [one.cost.training_flops for one in found if one and one.cost]
    assert search.flops == pytest.approx(sum(costs))


@pytest.mark.parametrize(
    ("method", "rule", "metric"),
    [
        ("erm", "last", "average"),  # it may read no bias labels
        ("erm", "val_average", "average"),
        ("erm", "val_worst_group", "worst_group"),
        ("dfr", "last", "unbiased"),  # it sees the labels itself
    ],
)
def test_a_search_compares_by_what_its_section_may_read(
    method: str, rule: str, metric: str, plugins: Plugins, tmp_path: Path
) -> None:
    _, search = searched(plugins, tmp_path, method, trials=2, seeds=(), rule=rule)
    assert search.metric == metric
