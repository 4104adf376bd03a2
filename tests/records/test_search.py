"""A search and its trials under verification: whatever does not follow from the draws is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from debiasbench import Session
from debiasbench.common.errors import RecordError
from debiasbench.records import search as searches
from debiasbench.records import trial as trials
from debiasbench.records.beside import sha256
from debiasbench.records.record import to_json
from debiasbench.records.report import Report, verified
from debiasbench.records.search import Search
from debiasbench.records.selection import RULES
from debiasbench.records.trial import Trial
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.search import SEED
from tests.conftest import ACME, ToyPlugin
from tests.searching import searched


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a search of four trials, which stays as it is."""
    folder = tmp_path_factory.mktemp("whole")
    searched(Plugins([(ToyPlugin(), ACME)]), folder)
    return folder


@pytest.fixture
def results(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "results")


def file_of(results: Path) -> Path:
    (file,) = (results / "search").glob("*.search.json")
    return file


def check(results: Path) -> Report:
    return verified([results])[0]


def found(results: Path) -> list[str]:
    """What verification finds in searches, each with its code."""
    return [
        f"{finding.code} {finding.message}"
        for path, findings in check(results).findings
        for finding in findings
        if path.name.endswith(".search.json")
    ]


def rewrite(results: Path, change: Callable[[Search], Search]) -> None:
    """Change a search as somebody would who knows how ids are computed."""
    file = file_of(results)
    search = change(searches.read(file))
    search = replace(search, id="")
    file.unlink()
    searches.write(results, replace(search, id=search.asked))


def edit(results: Path, number: int, change: Callable[[Trial], Trial]) -> None:
    search = searches.read(file_of(results))
    path = results / "search" / search.trial_file(search.trials[number])
    path.write_text(to_json(change(trials.read(path))))


def test_a_search_that_nobody_touched_is_verified(results: Path) -> None:
    report = check(results)
    assert report.summary == "2 records: 2 verified; 1 search: 1 verified"
    assert report.bad == 0


def test_a_search_comes_back_from_its_file_equal(results: Path) -> None:
    search = searches.read(file_of(results))
    before = file_of(results).read_bytes()
    file_of(results).unlink()
    assert searches.write(results, search).read_bytes() == before


def test_another_winner_is_found(results: Path) -> None:
    def other(search: Search) -> Search:
        return replace(search, winner=search.trials[(search.won + 1) % 4])

    rewrite(results, other)
    (message,) = found(results)
    assert message.startswith("E11 the winner is trial")
    assert check(results).bad == 1


def test_a_trial_that_is_gone_is_named(results: Path) -> None:
    search = searches.read(file_of(results))
    (results / "search" / search.trial_file(search.trials[2])).unlink()
    assert found(results)[0].startswith("E11 trial 2 is missing")


def test_a_trial_that_another_one_replaces_is_not_what_was_drawn(results: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME)])
    search = searches.read(file_of(results))
    path = results / "search" / search.trial_file(search.trials[3])
    spec = trials.read(path).spec
    with Session(plugins, results=results, device="cpu") as session:
        luckier = session.trial(replace(spec, training={**spec.training, "lr": 0.123}))
    rewrite(
        results, lambda s: replace(s, trials=[*s.trials[:3], luckier.record.id], winner=s.trials[0])
    )
    assert any(
        text.startswith("E11 trial 3: train.lr is 0.123, but this trial draws")
        for text in found(results)
    )


def test_trials_that_differ_in_what_is_not_searched_are_found(results: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME)])
    search = searches.read(file_of(results))
    spec = trials.read(results / "search" / search.trial_file(search.trials[1])).spec
    with Session(plugins, results=results, device="cpu") as session:
        longer = session.trial(replace(spec, training={**spec.training, "epochs": 3}))
    rewrite(results, lambda s: replace(s, trials=[s.trials[0], longer.record.id, *s.trials[2:]]))
    assert "E11 trial 1: it differs from the first in something that is not searched" in found(
        results
    )


def test_better_numbers_in_a_trial_contradict_its_predictions(results: Path) -> None:
    def better(trial: Trial) -> Trial:
        outcome = trial.outcomes["val_unbiased"]
        totals = trial.task.group_counts["val"]
        val = replace(outcome.val, hits=list(totals))
        return replace(
            trial, outcomes={**trial.outcomes, "val_unbiased": replace(outcome, val=val)}
        )

    edit(results, 2, better)
    assert any(
        text.startswith("E04 trial 2: hits of val_unbiased in val") for text in found(results)
    )


def test_other_predictions_are_not_those_of_the_trial(results: Path) -> None:
    search = searches.read(file_of(results))
    name = search.trial_file(search.trials[0]).replace(".trial.json", ".predictions.safetensors")
    file = results / "search" / name
    stored = load_file(file)
    save_file({key: 1 - values % 2 for key, values in stored.items()}, file)
    assert any(text.startswith("E02 trial 0: ") for text in found(results))


def test_a_trial_that_read_the_test_split_is_found(results: Path) -> None:
    search = searches.read(file_of(results))
    path = results / "search" / search.trial_file(search.trials[1])
    beside = path.with_name(path.name.replace(".trial.json", ".predictions.safetensors"))
    stored = load_file(beside)
    save_file({**stored, "test.y": stored["val.y"]}, beside)
    digest = sha256(beside.read_bytes())

    def said(trial: Trial) -> Trial:
        assert trial.predictions is not None
        return replace(trial, predictions={**trial.predictions, "sha256": digest})

    edit(results, 1, said)
    assert "E11 trial 1: it has test.y, although a trial reads validation alone" in found(results)


def test_a_report_on_the_seed_of_the_trials_is_found(results: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME)])
    search = searches.read(file_of(results))
    winner = trials.read(results / "search" / search.trial_file(search.winner)).spec
    with Session(plugins, results=results, device="cpu") as session:
        session.run(winner)
    (message,) = found(results)
    assert f"has seed {SEED}, which chose the winner" in message


def test_another_rule_or_cost_than_that_of_the_trials_is_found(results: Path) -> None:
    rewrite(results, lambda search: replace(search, rule="val_worst_group", flops=1.0))
    messages = found(results)
    assert (
        "E11 trials are compared by unbiased, but under val_worst_group by worst_group" in messages
    )
    assert any(text.startswith("E11 flops is 1.0, but the trials add up to") for text in messages)


def test_a_trial_0_that_is_not_the_default_is_found(results: Path) -> None:
    edit(
        results,
        0,
        lambda t: replace(t, provenance=replace(t.provenance, chosen=["train.epochs", "train.lr"])),
    )
    assert found(results) == ["E11 train.lr is searched, but trial 0 does not have its default"]


def test_a_search_that_was_changed_by_hand_is_unreadable(results: Path) -> None:
    file = file_of(results)
    file.write_text(file.read_text().replace('"rule": "val_unbiased"', '"rule": "last"'))
    report = check(results)
    assert report.bad == 1
    assert "was changed by hand" in report.unreadable[0]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"schema": 1}', '{"schema": 9}', "[" * 100_000, '{"schema": 1, "id": NaN}'],
)
def test_a_file_that_is_no_search_is_one_message(text: str, results: Path) -> None:
    file_of(results).write_text(text)
    with pytest.raises(RecordError, match=r"search\.json"):
        searches.read(file_of(results))
    assert len(check(results).unreadable) == 1


@pytest.mark.parametrize(
    "space",
    [
        {"dataset.ratio": {"kind": "log", "values": [1, 2], "whole": False}},
        {"train.lr": {"kind": "log", "values": [1], "whole": False}},
        {"train.lr": {"kind": "log", "values": [-1, "a"], "whole": False}},
        {"train.lr": {"kind": "choice", "values": [], "whole": False}},
        {"": {"kind": "uniform", "values": [[], {}], "whole": True}},
    ],
)
def test_a_space_that_somebody_made_up_is_a_finding(space: object, results: Path) -> None:
    file = file_of(results)
    data = {**json.loads(file.read_text()), "space": space}
    file.write_text(json.dumps(data))
    try:
        searches.read(file)
    except RecordError as error:  # its id is not that of the content
        named = str(error).rpartition(" ")[2]
        file.write_text(json.dumps({**data, "id": named}))
    assert found(results)[0].startswith("E11")


def test_all_rules_of_a_trial_are_checked(results: Path) -> None:
    for rule in RULES:

        def other(trial: Trial, rule: str = rule) -> Trial:
            outcome = trial.outcomes[rule]
            metrics = {name: value + 0.01 for name, value in outcome.val.metrics.items()}
            changed = replace(outcome, val=replace(outcome.val, metrics=metrics))
            return replace(trial, outcomes={**trial.outcomes, rule: changed})

        edit(results, 0, other)
        assert any(rule in text for text in found(results))
