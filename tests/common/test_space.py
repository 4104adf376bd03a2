"""Search spaces: what may be declared, which values they give, and what is refused in one line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debiasbench import Dataset, Method, choice, log, option, uniform
from debiasbench.common.errors import OptionError, PluginError
from debiasbench.common.options import as_dict, check_is_options, spaces
from debiasbench.common.space import Space
from debiasbench.core.settings import Training, check_search, searched
from debiasbench.specs.plugins import Plugins
from debiasbench.testing import check_method
from tests.conftest import ACME, Toy, offering


@dataclass(frozen=True)
class Tuned:
    density: float = option(0.1, gt=0, le=1, search=log(0.01, 0.5))
    steps: int | None = option(None, ge=1, search=log(1, 1000))
    share: float = option(0.5, ge=0, le=1, search=uniform(0, 1))
    mode: Literal["a", "b"] = option("a", search=choice("a", "b"))
    sizes: tuple[int, ...] = option((4,), search=choice((4,), (8, 8)))
    plain: float = 1.0


def test_a_search_space_is_no_part_of_what_a_spec_holds() -> None:
    assert "search" not in str(as_dict(Tuned()))
    assert list(spaces(Tuned)) == ["density", "steps", "share", "mode", "sizes"]


@pytest.mark.parametrize(
    ("space", "place", "value"),
    [
        (log(0.01, 1.0), 0.5, 0.1),
        (log(0.01, 1.0), 0.0, 0.01),
        (uniform(2, 4), 0.25, 2.5),
        (uniform(0, 1), 1 / 3, 0.3333),
        (choice("a", "b", "c"), 0.34, "b"),
        (choice("a", "b", "c"), 0.999, "c"),
        (log(1, 1000).for_option(whole=True), 0.5, 32),
        (uniform(0, 10).for_option(whole=True), 0.26, 3),
    ],
)
def test_a_place_in_a_space_is_a_value(space: Space, place: float, value: object) -> None:
    found = space.at(place)
    assert found == value
    assert type(found) is type(value)


@given(st.floats(0, 1, exclude_max=True), st.sampled_from(["density", "steps", "share"]))
def test_no_value_leaves_the_bounds_of_its_option(place: float, name: str) -> None:
    from debiasbench.common.options import parse

    value = spaces(Tuned)[name].at(place)
    assert getattr(parse(Tuned, {name: value}, owner="tuned"), name) == value


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        (
            {"default": 0.1, "gt": 0, "le": 1, "search": log(0.01, 2)},
            "knob: search=log(0.01, 2) leaves the option's bounds: knob=2: input should be less",
        ),
        (
            {"default": 0.1, "gt": 0, "search": uniform(0, 1)},
            "knob: search=uniform(0, 1) leaves the option's bounds: knob=0: input should be great",
        ),
        ({"default": 0.1, "le": 1, "search": choice(0.5, 3)}, "knob=3: input should be less"),
        ({"default": 0.1, "search": (0.1, 0.5)}, "knob: search=(0.1, 0.5) is not a search space"),
        ({"default": 0.1, "search": choice("a", "b")}, "knob='a': input should be a valid number"),
    ],
)
def test_a_space_beyond_its_options_bounds_is_refused_in_one_line(
    declared: dict[str, Any], complaint: str
) -> None:
    @dataclass(frozen=True)
    class Knob:
        knob: float = option(**declared)

    with pytest.raises(OptionError, match=re.escape(complaint)) as caught:
        check_is_options(Knob)
    assert "\n" not in str(caught.value)


def test_a_range_is_for_numbers() -> None:
    @dataclass(frozen=True)
    class Switch:
        on: bool = option(default=True, search=uniform(0, 1))

    with pytest.raises(OptionError, match=r"on: search=uniform\(0, 1\) is for numbers"):
        check_is_options(Switch)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: log(0, 1), "must be above 0"),
        (lambda: log(1, 1), "must be below the second"),
        (lambda: uniform(2, 1), "must be below the second"),
        (lambda: uniform(0, float("nan")), "give two numbers"),
        (lambda: log("a", 1), "give two numbers"),  # type: ignore[arg-type]
        (lambda: choice(1), "give two values or more"),
        (lambda: choice(1, 2, 1), "a value occurs twice"),
    ],
)
def test_a_space_without_values_is_refused(make: Any, complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        make()


@dataclass(frozen=True)
class Wide(Method):
    """A method that searches densities above 1."""

    density: float = option(0.1, "density", gt=0, le=1, search=log(0.1, 10))

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model())


def test_a_plugin_with_a_space_beyond_the_bounds_is_unusable_and_fails_its_check() -> None:
    plugins = Plugins([(offering(wide=Wide), ACME)])
    with pytest.raises(PluginError, match=r"unusable: density: search=log\(0.1, 10\) leaves"):
        plugins.methods["wide"].load()
    with pytest.raises(AssertionError, match="leaves the option's bounds"):
        check_method(Wide())


# --- training -----------------------------------------------------------------------------------


def test_training_is_searched_a_decade_around_what_the_data_set_recommends() -> None:
    found = searched(Training(lr=0.05, weight_decay=0.01), {})
    assert found == {"lr": log(0.005, 0.5), "weight_decay": log(0.001, 0.1)}


def test_without_recommended_weight_decay_usual_ones_are_tried() -> None:
    assert searched(Training(), {})["weight_decay"] == choice(0.0, 1e-5, 1e-4, 1e-3, 1e-2)


def test_a_data_set_narrows_what_is_tried() -> None:
    own = {"train.lr": log(1e-4, 1e-2), "train.momentum": uniform(0, 0.9)}
    found = searched(Training(), own)
    assert found["lr"] == log(1e-4, 1e-2)
    assert list(found) == ["lr", "weight_decay", "momentum"]


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        ({"lr": log(0.1, 1)}, "'lr' is not a training setting. Write train.NAME"),
        ({"train.speed": log(0.1, 1)}, "'train.speed' is not a training setting"),
        ({"train.momentum": uniform(0, 1)}, "leaves the option's bounds: momentum=1"),
    ],
)
def test_a_data_set_searches_only_training_settings_within_their_bounds(
    own: dict[str, Space], complaint: str
) -> None:
    @dataclass(frozen=True)
    class Narrow(Toy):
        search: ClassVar[dict[str, Space]] = own

    with pytest.raises(OptionError, match=re.escape(complaint)):
        check_search(Narrow.search)

    class Plugin:
        from debiasbench import hookimpl

        @hookimpl
        def debiasbench_register_datasets(self, register: Any) -> None:
            register("narrow", Narrow)

    with pytest.raises(PluginError, match=re.escape(complaint)):
        Plugins([(Plugin(), ACME)]).datasets["narrow"].load()
    assert issubclass(Narrow, Dataset)
