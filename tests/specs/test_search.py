"""The trials of a search: a hypercube by names, of which nothing moves when options come or go."""

from __future__ import annotations

import math
from dataclasses import dataclass, make_dataclass
from hashlib import blake2b
from typing import Any

import pytest

from debiasbench import Method, Supervision, choice, log, option, uniform
from debiasbench.common.errors import OptionError
from debiasbench.common.options import spaces
from debiasbench.common.space import Space
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.search import BLOCK, SEED, drawn, place, plan, space_of
from tests.conftest import ACME, ToyPlugin, offering

WORDS = {"dataset": "toy"}


@dataclass(frozen=True)
class Tuned(Method):
    """A method with three options that are searched, and one that is not."""

    density: float = option(0.05, "density", gt=0, le=1, search=log(0.01, 0.5))
    every: int = option(7, "steps", ge=1, search=log(1, 1000))
    weight: float | None = option(None, "weight", search=choice(10, 30, 80))
    other: float = option(1.0, "not searched")

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model())


def registered(**methods: type) -> Plugins:
    return Plugins([(ToyPlugin(), ACME), (offering(**methods), ACME)])


def by_hand(owner: str, name: str, trial: int) -> float:
    """The place of an option in a trial, as docs/search.md defines it; with hashes alone."""

    def number(*parts: object) -> int:
        key = "\x1f".join(map(str, parts)).encode()
        return int.from_bytes(blake2b(key, digest_size=8).digest(), "big") // 2

    seed = number(0, "search", owner, name)
    block, column = trial // 16, trial % 16
    keys = [number(seed, "stratum", block, k) for k in range(16)]
    stratum = keys.index(sorted(keys)[column])
    return (stratum + number(seed, "jitter", trial) / 2**63) / 16


def test_the_numeric_example_of_the_hypercube() -> None:
    space = {"method.density": log(0.01, 0.5)}
    values = [drawn("rest", space, trial)["method.density"] for trial in range(1, 16)]
    # written down once; the lines below compute them independently
    assert values == [
        *(0.1731, 0.3013, 0.07547, 0.1358, 0.3245, 0.0146, 0.03135, 0.09862),
        *(0.01883, 0.06694, 0.03746, 0.02619, 0.0478, 0.01276, 0.228),
    ]
    for trial, value in enumerate(values, 1):
        expected = 0.01 * 50 ** by_hand("rest", "density", trial)
        assert value == pytest.approx(expected, rel=1e-3)  # four digits


@pytest.mark.parametrize("block", [0, 1, 5])
def test_a_block_has_each_sixteenth_of_the_space_once(block: int) -> None:
    places = [place("rest", "density", BLOCK * block + k) for k in range(BLOCK)]
    assert sorted(math.floor(BLOCK * one) for one in places) == list(range(BLOCK))


def test_options_have_orders_of_their_own() -> None:
    orders = {
        tuple(math.floor(16 * place(owner, name, k)) for k in range(16))
        for owner in ("rest", "jtt")
        for name in ("density", "weight")
    }
    assert len(orders) == 4


def test_sixteen_trials_are_the_first_of_thirty_two() -> None:
    plugins = registered(tuned=Tuned)
    short, long = (plan(plugins, {"method": "tuned", **WORDS}, n).trials for n in (16, 32))
    assert long[:16] == short
    assert len(set(map(str, long))) == 32


def test_trial_0_has_the_defaults_and_all_trials_the_seed_of_searches() -> None:
    made = plan(registered(tuned=Tuned), {"method": "tuned", **WORDS}, 4)
    first = made.trials[0]
    assert first.method.options == {"density": 0.05, "every": 7, "weight": None, "other": 1.0}
    assert first.training["lr"] == 0.05
    assert {spec.seed for spec in made.trials} == {SEED}
    assert made.trials[1].method.options["other"] == 1.0
    assert made.trials[1].method.options != first.method.options


def fields_of(spaces_: dict[str, Any]) -> type:
    made = make_dataclass(
        "Made",
        [
            (name, float, option(default, search=space))
            for name, (default, space) in spaces_.items()
        ],
        bases=(Method,),
        frozen=True,
        namespace={"fit": lambda self, lab: lab.train(lab.model()), "__module__": __name__},
    )
    made.__doc__ = "A method that is made for a test."
    return made


def test_adding_removing_and_reordering_options_moves_no_other_value() -> None:
    a, b, c = (0.1, log(0.01, 1)), (0.5, uniform(0, 1)), (3.0, choice(1, 2, 3))
    orders = [{"a": a, "b": b}, {"b": b, "a": a}, {"c": c, "a": a, "b": b}, {"a": a}]
    values = []
    for of in orders:
        made = plan(registered(tuned=fields_of(of)), {"method": "tuned", **WORDS}, 16)
        values.append([spec.method.options["a"] for spec in made.trials])
    assert values[0] == values[1] == values[2] == values[3]
    assert len(set(values[0])) == 16


def test_what_is_given_is_not_searched_and_moves_no_other_value() -> None:
    plugins = registered(tuned=Tuned)
    free = plan(plugins, {"method": "tuned", **WORDS}, 16)
    fixed = plan(plugins, {"method": "tuned", "method.every": 9, "train.lr": 0.1, **WORDS}, 16)
    assert list(fixed.space) == ["method.density", "method.weight", "train.weight_decay"]
    assert {spec.method.options["every"] for spec in fixed.trials} == {9}
    assert {spec.training["lr"] for spec in fixed.trials} == {0.1}
    for name in ("density", "weight"):
        mine, theirs = ([s.method.options[name] for s in p.trials] for p in (free, fixed))
        assert mine == theirs


def test_all_methods_try_the_same_training_settings() -> None:
    plugins = registered(tuned=Tuned)
    plans = [plan(plugins, {"method": m, **WORDS}, 16) for m in ("tuned", "erm", "upweight")]
    settings = [[(s.training["lr"], s.training["weight_decay"]) for s in p.trials] for p in plans]
    assert settings[0] == settings[1] == settings[2]
    assert len(set(settings[0])) == 16


def test_a_method_without_options_searches_training_alone() -> None:
    made = plan(registered(), {"method": "erm", **WORDS}, 16)
    assert list(made.space) == ["train.lr", "train.weight_decay"]
    assert len({spec.id for spec in made.trials}) == 16


def test_whole_numbers_are_rounded_and_no_spec_holds_another_type() -> None:
    made = plan(registered(tuned=Tuned), {"method": "tuned", **WORDS}, 16)
    every = [spec.method.options["every"] for spec in made.trials]
    assert all(type(value) is int for value in every)
    assert 1 <= min(every) < 5
    assert 100 < max(every) <= 1000


@pytest.mark.parametrize("method", sorted(Plugins().methods))
def test_every_trial_of_every_builtin_method_is_a_valid_spec(method: str) -> None:
    made = plan(Plugins(), {"method": method, "dataset": "digits"}, 32)
    assert len(made.trials) == 32
    declared = spaces(Plugins().methods[method].load())
    assert list(made.space)[: len(declared)] == [f"method.{name}" for name in declared]


@pytest.mark.parametrize("dataset", ["digits", "cmnist", "waterbirds", "celeba", "bffhq"])
def test_every_data_set_has_spaces_of_training_around_its_recommendation(dataset: str) -> None:
    space = space_of(Plugins(), "erm", dataset, {})
    training = plan(Plugins(), {"method": "erm", "dataset": dataset}, 2).trials[0].training
    low, high = space["train.lr"].values
    assert low < training["lr"] < high


@pytest.mark.parametrize(
    ("more", "trials", "complaint"),
    [
        ({}, 0, "trials = 0: must be a whole number from 2"),
        ({}, 1, "trials = 1: must be a whole number from 2"),
        ({}, True, "trials = True: must be"),
        ({"seed": 3}, 16, "the trials of a search have seed 1000"),
        ({"preset": "x"}, 16, "the first trial of a search has the defaults"),
        ({"train.micro_batch": "auto"}, 16, "auto depends on the machine"),
        ({"method.density": 3}, 16, "density='3': input should be less than or equal to 1"),
    ],
)
def test_what_cannot_be_searched_is_refused(more: Any, trials: Any, complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        plan(registered(tuned=Tuned), {"method": "tuned", **WORDS, **more}, trials)


def test_the_seed_of_trials_is_not_reported() -> None:
    made = plan(registered(), {"method": "erm", **WORDS}, 2)
    assert [s.seed for s in made.reported(made.trials[1], [0, 4]).values()] == [0, 4]
    with pytest.raises(OptionError, match="Seed 1000 is that of the trials"):
        made.reported(made.trials[1], [0, 1000])


@dataclass(frozen=True)
class Seeing(Method):
    """A method whose option decides what it sees."""

    groups: bool = option(default=False, meaning="see groups", search=choice(False, True))

    @property
    def supervision(self) -> Supervision:
        return Supervision(train="groups" if self.groups else "none")

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model())


def test_a_search_does_not_change_which_labels_a_method_sees() -> None:
    with pytest.raises(OptionError, match="change which labels it sees"):
        plan(registered(seeing=Seeing), {"method": "seeing", **WORDS}, 8)
    plan(registered(seeing=Seeing), {"method": "seeing", "method.groups": True, **WORDS}, 8)


@dataclass(frozen=True)
class Picky(Method):
    """A method that does not take all of its space."""

    low: float = option(0.1, "low", search=uniform(0, 1))

    def __post_init__(self) -> None:
        if self.low > 0.5:
            raise OptionError("low must be below 0.5 on Mondays")

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model())


def test_a_trial_that_its_method_refuses_is_named_with_its_values() -> None:
    with pytest.raises(OptionError, match=r"Trial \d+ \(low=0\.\d+ .*\): .*on Mondays"):
        plan(registered(picky=Picky), {"method": "picky", **WORDS}, 16)


def test_a_class_of_a_file_draws_the_same_after_a_change_of_the_file() -> None:
    space: dict[str, Space] = {"method.a": uniform(0, 1)}
    assert drawn("my.py:Mine@1a2b3c4d", space, 3) == drawn("my.py:Mine@99999999", space, 3)
