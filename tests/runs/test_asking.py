"""Searches that Optuna draws: the same space and files, continued, and never called tuned."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from debiasbench import Method, choice, log, option, uniform
from debiasbench.records import search as searches
from debiasbench.records.trial import read
from tests.cli.calls import only
from tests.conftest import offering

Cli = Callable[..., Result]

FAST = ("--dataset", "toy", "--model", "mlp", "--epochs", 1, "--device", "cpu", "--quiet")


@dataclass(frozen=True)
class Tuned(Method):
    """A method with an option of each kind."""

    rate: float = option(0.1, "rate", gt=0, search=log(0.01, 1))
    steps: int = option(5, "steps", ge=1, search=log(1, 100))
    share: float = option(0.5, "share", ge=0, le=1, search=uniform(0, 1))
    weight: float | None = option(None, "weight", search=choice(10, 30))
    sizes: tuple[int, ...] = option((4,), "sizes", search=choice((4,), (8, 8)))

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), lr=self.rate, name="train")


def ask(debiasbench: Cli, *words: object, sampler: str = "optuna:tpe") -> Result:
    more = ("--trials", 4, "--seeds", "0-1", "--sampler", sampler)
    return debiasbench("search", "tuned", *FAST, *more, *words, extra=(offering(tuned=Tuned),))


@pytest.mark.parametrize("sampler", ["optuna:tpe", "optuna:random"])
def test_a_search_by_optuna_is_stored_verified_and_set_by_hand(
    sampler: str, debiasbench: Cli
) -> None:
    pytest.importorskip("optuna")
    result = ask(debiasbench, sampler=sampler)
    assert result.exit_code == 0, result.output
    assert "4 runs: 4 trained, 0 already done" in result.stderr
    assert ", by hand" in result.stdout
    assert "(tuned, n=" not in result.stdout
    (file,) = Path("results/search").glob("*.search.json")
    search = searches.read(file)
    assert (search.sampler, len(set(search.trials))) == (sampler, 4)
    verified = debiasbench("verify")
    assert verified.stdout.endswith("1 search: 1 verified\n")


def test_a_search_by_optuna_goes_on_with_the_trials_that_there_are(debiasbench: Cli) -> None:
    pytest.importorskip("optuna")
    ask(debiasbench)
    (file,) = Path("results/search").glob("*.search.json")
    before = searches.read(file)
    last = Path("results/search", before.trial_file(before.trials[-1]))
    last.unlink()
    file.unlink()
    result = ask(debiasbench)
    assert "4 runs: 1 trained, 3 already done" in result.stderr
    after = searches.read(file)
    assert (after.trials, after.winner) == (before.trials, before.winner)


def test_all_values_are_of_the_space_and_the_first_are_the_defaults(debiasbench: Cli) -> None:
    pytest.importorskip("optuna")
    ask(debiasbench)
    (file,) = Path("results/search").glob("*.search.json")
    found = [
        read(file.with_name(name)).spec.method.options
        for name in map(searches.read(file).trial_file, searches.read(file).trials)
    ]
    assert found[0] == {"rate": 0.1, "steps": 5, "share": 0.5, "weight": None, "sizes": [4]}
    for options in found[1:]:
        assert 0.01 <= options["rate"] <= 1
        assert type(options["steps"]) is int
        assert options["weight"] in {10.0, 30.0}
        assert options["sizes"] in ([4], [8, 8])
    assert len({options["rate"] for options in found}) == 4


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--jobs", 2), "--sampler draws one trial after the other"),
        (("--together", 2), "--sampler draws one trial after the other"),
        (("--dry-run",), "--sampler draws each trial after those before it"),
    ],
)
def test_what_does_not_go_with_a_sampler_is_one_line(
    words: tuple[object, ...], complaint: str, debiasbench: Cli
) -> None:
    pytest.importorskip("optuna")
    assert complaint in ask(debiasbench, *words).stderr


def test_an_unknown_sampler_is_named(debiasbench: Cli) -> None:
    assert "Unknown sampler 'optuna:tpo'" in only(ask(debiasbench, sampler="optuna:tpo"), 2)


def test_without_optuna_one_line_says_what_to_install(
    debiasbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert 'pip install "debiasbench[search]"' in only(ask(debiasbench), 2)
    assert not Path("results").exists()
