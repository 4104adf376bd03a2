"""A submission may hold searches: its rows are tuned if their trials are there, and are sound."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from debiasbench import Method, log, option
from debiasbench.leaderboard.table import table
from debiasbench.records.beside import PREDICTIONS
from debiasbench.records.checks.search import examine
from debiasbench.records.reading import SEARCH, TRIAL, read_all
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.spec import Choice, Spec
from debiasbench.submissions.against import (
    Expected,
    canonical_of,
    settings,
    suite_settings,
    tuned,
)
from debiasbench.submissions.check import Result, checked
from debiasbench.submissions.prepare import prepared
from tests.conftest import ACME, ToyPlugin, offering
from tests.records.test_record import SPEC, make_record
from tests.searching import searched
from tests.submissions.folders import VALUES, texts

CHECKED = {"E00", "E01", "E02", "E03", "E04", "E06", "E11"}  # E10: this repository may be changed


@dataclass(frozen=True)
class Mine(Method):
    """ERM with an option that changes its learning rate."""

    factor: float = option(0.02, "of the learning rate", gt=0, search=log(0.001, 10))

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), lr=self.factor * lab.training.lr, name="train")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the results of two searches, one of a method that is not submitted."""
    plugins = Plugins([(ToyPlugin(), ACME), (offering(mine=Mine), ACME)])
    folder = tmp_path_factory.mktemp("results")
    searched(plugins, folder, "mine", trials=4, seeds=range(5))
    searched(plugins, folder, "erm", trials=2, seeds=range(1))
    return folder


@pytest.fixture
def place(results: Path, tmp_path: Path) -> Path:
    made = tmp_path / "submissions" / "mine"
    assert len(prepared(made, [results], VALUES, method="mine").records) == 5
    return made


def codes(result: Result) -> set[str]:
    return {f.code for found in result.findings.values() for f in found} & CHECKED


def test_a_prepared_submission_has_the_search_of_its_rows_and_is_tuned(place: Path) -> None:
    search = place / "records" / "search"
    assert len(list(search.glob(f"*{SEARCH}"))) == 1
    assert len(list(search.glob(f"*{TRIAL}"))) == 4
    result = checked(place)
    assert codes(result) == set(), texts(result)
    assert result.level == "listed"
    text, problems = table([place / "records"], "markdown", index=False)
    assert problems == []
    assert "mine (tuned, n=4)" in text


def file_of(place: Path, ending: str) -> Path:
    return sorted((place / "records" / "search").glob(f"*{ending}"))[0]


def without_a_trial(place: Path) -> None:
    path = file_of(place, TRIAL)
    path.unlink()
    path.with_name(path.name.removesuffix(TRIAL) + PREDICTIONS).unlink()


def better(place: Path) -> None:
    path = file_of(place, TRIAL)
    data = json.loads(path.read_text())
    for outcome in data["outcomes"].values():
        outcome["val"]["hits"] = data["task"]["group_counts"]["val"]
    path.write_text(json.dumps(data))


def another_winner(place: Path) -> None:
    path = file_of(place, SEARCH)
    data = json.loads(path.read_text())
    data["winner"] = next(name for name in data["trials"] if name != data["winner"])
    path.write_text(json.dumps(data))


def link(place: Path) -> None:
    (place / "records" / "search" / "x.trial.json").symlink_to("/etc/passwd")


def linked_folder(place: Path) -> None:
    (place / "records" / "search").rename(place.parent / "elsewhere")
    (place / "records" / "search").symlink_to(place.parent / "elsewhere")


def other_file(place: Path) -> None:
    (place / "records" / "search" / "x.json").write_text("{}")


def without_the_search(place: Path) -> None:
    file_of(place, SEARCH).unlink()


def without_the_rows(place: Path) -> None:
    for path in (place / "records").glob("*-mine-*"):
        path.unlink()


def renamed(place: Path) -> None:
    file_of(place, TRIAL).rename(place / "records" / "search" / f"x{TRIAL}")


def swapped(place: Path) -> None:
    one, other = sorted((place / "records" / "search").glob(f"*{PREDICTIONS}"))[:2]
    shutil.copy(one, other)


@pytest.mark.parametrize(
    ("forge", "code", "complaint"),
    [
        (without_a_trial, "E11", "is missing"),
        (better, "E04", "trial 0"),
        (another_winner, "E11", "winner"),
        (link, "E00", "it is a symbolic link"),
        (linked_folder, "E00", "it is a symbolic link"),
        (other_file, "E00", "it does not belong here"),
        (without_the_search, "E00", "no search in the folder has this trial"),
        (without_the_rows, "E11", "no record in the folder reports its winner"),
        (renamed, "E01", "its file name must be"),
        (swapped, "E02", "trial"),
    ],
)
def test_a_forged_search_makes_a_submission_unacceptable(
    place: Path, forge: Callable[[Path], None], code: str, complaint: str
) -> None:
    forge(place)
    result = checked(place)
    found = texts(result)
    assert result.level == "", found
    assert any(code in line and complaint in line for line in found.splitlines()), found


def test_a_search_may_choose_other_training_than_the_suite_has() -> None:
    def like(**training: Any) -> Spec:
        return replace(SPEC, training={**SPEC.training, **training})

    suite = Expected(
        {canonical_of(SPEC.dataset): {0}},
        {(canonical_of(SPEC.dataset), canonical_of(SPEC.model), ""): {settings(SPEC)}},
    )
    record = replace(make_record(), spec=replace(like(lr=0.5), method=Choice("acme:mine")))
    (finding,) = suite_settings(record, suite, "s")
    assert "lr is 0.5 instead of" in finding.message
    assert list(suite_settings(record, suite, "s", {"lr"})) == []
    record = replace(
        record, spec=replace(record.spec, training={**record.spec.training, "epochs": 9})
    )
    (finding,) = suite_settings(record, suite, "s", {"lr"})
    assert "epochs is 9 instead of" in finding.message


def test_only_learning_rate_and_weight_decay_are_free_of_the_suite(results: Path) -> None:
    (path,) = [p for p in (results / "search").glob("*.search.json") if "-mine-" in p.name]
    one = examine(path)
    record = next(r for _, r in read_all([results])[0] if r.spec.method.name.endswith("mine"))
    assert set(one.search.space) == {"method.factor", "train.lr", "train.weight_decay"}
    assert tuned(record, [one]) == {"lr", "weight_decay"}
    wide = replace(one.search, space={**one.search.space, "train.epochs": log(1, 9)})
    assert tuned(record, [replace(one, search=wide)]) == {"lr", "weight_decay"}
    other = replace(one, search=replace(one.search, sampler="optuna:tpe"))
    assert tuned(record, [other]) == set()
