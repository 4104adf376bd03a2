"""Several values of an option, and the grid of runs of each method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from debiasbench import Method, option
from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.specs.grid import LIMIT, expand, read_lists, seeds
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.words import arguments
from tests.conftest import ACME, offering


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("density=0.1", ["0.1"]),
        ("density=0.01,0.05, 0.1", ["0.01", "0.05", "0.1"]),
        ("model.hidden=[8,8],[16]", ["[8,8]", "[16]"]),
        ('sparse.exclude=["a,b"],["c"]', ['["a,b"]', '["c"]']),
        ('note="a,b",c', ["a,b", "c"]),
        ('note="",x', ["", "x"]),
        (r'note="say \"hi, you\""', ['say "hi, you"']),
        ("note=a=b,c", ["a=b", "c"]),
    ],
)
def test_values_are_separated_by_commas_outside_brackets_and_quotes(
    setting: str, values: list[str]
) -> None:
    (read,) = read_lists([setting]).values()
    assert read == values


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["density"], "--set density: write NAME=VALUE"),
        (["=1,2"], "--set =1,2: write NAME=VALUE"),
        (["density="], 'a value is empty. Remove a comma, or write "" for an empty text'),
        (["density=1,,2"], "--set density=1,,2: a value is empty"),
        (["density=1,"], "a value is empty"),
        (["density=1,1"], "--set density=1,1: the value 1 is given 2 times"),
        (["density=1", "density=2"], "--set density is given twice. Write all values in one: den"),
        (["hidden=[8,8"], "brackets do not match"),
        (["hidden=8]"], "brackets do not match"),
        (['note="a'], "a double quote is not closed"),
        (['note="a"b'], 'note="a"b: "a"b is not a JSON string (Extra data)'),
    ],
)
def test_lists_that_cannot_be_read_are_refused(settings: list[str], complaint: str) -> None:
    with pytest.raises(OptionError) as error:
        read_lists(settings)
    assert complaint in str(error.value)


def grid(plugins: Plugins, settings: list[str], *methods: str, **more: int) -> Any:
    return expand(read_lists(settings), methods, plugins, **more)


def test_a_grid_is_every_combination_and_the_last_name_changes_fastest(plugins: Plugins) -> None:
    (found,) = grid(plugins, ["density=0.1,0.2", "train.lr=1,2"], "rest").values()
    assert [tuple(words.values()) for words in found] == [
        ("0.1", "1"),
        ("0.1", "2"),
        ("0.2", "1"),
        ("0.2", "2"),
    ]
    assert set(found[0]) == {"method.density", "train.lr"}


def test_an_option_of_a_named_method_applies_to_it_alone(plugins: Plugins) -> None:
    found = grid(plugins, ["rest.density=0.01,0.05,0.1"], "erm", "upweight", "rest")
    assert {method: len(words) for method, words in found.items()} == {
        "erm": 1,
        "upweight": 1,
        "rest": 3,
    }
    assert found["erm"] == [{}]
    assert found["rest"][0] == {"method.density": "0.01"}


@pytest.mark.parametrize("name", ["weight", "method.weight"])
def test_an_option_without_a_method_applies_to_the_methods_that_have_it(
    name: str, plugins: Plugins
) -> None:
    found = grid(plugins, [f"{name}=5,10"], "erm", "upweight", "rest")
    assert {method: len(words) for method, words in found.items()} == {
        "erm": 1,
        "upweight": 2,
        "rest": 2,
    }


def test_data_model_training_and_sparsity_are_set_for_all_methods(plugins: Plugins) -> None:
    names = ["dataset.ratio", "model.hidden", "train.lr", "sparse.density"]
    found = grid(plugins, [f"{name}=1" for name in names], "erm", "rest")
    assert found["erm"] == found["rest"] == [dict.fromkeys(names, "1")]


@dataclass(frozen=True)
class Loud(Method):
    """An option that training has too."""

    lr: float = option(0.5)

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), name="train")


def test_a_scope_comes_before_a_method_of_the_same_name() -> None:
    plugins = Plugins([(offering(train=Loud, **{"my.method": Loud}), ACME)])
    found = grid(plugins, ["train.lr=1"], "train", "my.method")
    assert found == {"train": [{"train.lr": "1"}], "my.method": [{"train.lr": "1"}]}
    found = grid(plugins, ["lr=1,2"], "train")
    assert [words["method.lr"] for words in found["train"]] == ["1", "2"]
    assert grid(plugins, ["my.method.lr=2"], "my.method") == {"my.method": [{"method.lr": "2"}]}


def test_words_of_a_grid_are_words_of_a_spec(plugins: Plugins) -> None:
    found = expand({"rest.density": [0.1, 0.5], "train.clip_norm": [None]}, ["rest"], plugins)
    made = [
        make_spec(plugins, **arguments({"method": "rest", "dataset": "toy", **words}, plugins))
        for words in found["rest"]
    ]
    assert [spec.method.options["density"] for spec in made] == [0.1, 0.5]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["density=1"], "Unknown option 'density' of methods erm, upweight. Options of"),
        (["lr=1"], "Unknown option 'lr' of methods erm, upweight. Did you mean 'train.lr'"),
        (["wieght=1"], "option 'wieght' of methods erm, upweight. Did you mean 'weight'?"),
        (["upweight.wieght=1"], "method upweight: no option 'wieght'. Did you mean 'weight'?"),
        (
            ["erm.weight=1"],
            "no option 'weight'. Did you mean 'train.weight_decay'? Options: none.",
        ),
        (["rest.density=1"], "'rest.density' is not a valid name. "),
        (["upwieght.weight=1"], "Did you mean 'upweight'? Valid names are OPTION, dataset.OPTION"),
        (["seed=1,2"], "'seed' is set by another argument of the command"),
        (["train.=1"], "'train.' is not a valid name"),
        (
            ["weight=1", "upweight.weight=2"],
            "weight of method upweight is given twice, the second time as upweight.weight=2",
        ),
        (["weight=1", "method.weight=2"], "weight of method upweight is given twice"),
    ],
)
def test_names_that_nothing_takes_are_refused(
    settings: list[str], complaint: str, plugins: Plugins
) -> None:
    with pytest.raises(OptionError) as error:
        grid(plugins, settings, "erm", "upweight")
    assert complaint in str(error.value)


def test_methods_are_registered_names_and_each_is_named_once(plugins: Plugins) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'rest'"):
        expand({}, ["rset"], plugins)
    with pytest.raises(OptionError, match="A method is named twice: erm, rest, erm"):
        expand({}, ["erm", "rest", "erm"], plugins)
    with pytest.raises(OptionError, match="no method to compare"):
        expand({}, [], plugins)
    with pytest.raises(OptionError, match="density has no value"):
        expand({"density": []}, ["rest"], plugins)


def test_a_grid_that_is_too_large_is_refused_before_it_is_built(plugins: Plugins) -> None:
    names = ["density", "weight", "stop", "drop_fraction", "train.lr", "train.momentum"]
    values: dict[str, Any] = {name: range(1, 10**5) for name in names}  # 10 ** 30 runs
    with pytest.raises(OptionError, match=r"has 99\d,.* runs, more than 100,000. Give fewer val"):
        expand(values, ["rest"], plugins)
    few: dict[str, Any] = {"train.lr": range(1, 101)}
    assert len(expand(few, ["erm", "rest"], plugins, repeats=500)["erm"]) == 100
    with pytest.raises(OptionError, match="has 100,200 runs"):
        expand(few, ["erm", "rest"], plugins, repeats=501)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", [0]),
        ("0-2", [0, 1, 2]),
        ("5-5", [5]),
        ("0,3,7-9", [0, 3, 7, 8, 9]),
        ("2, 0 - 1", [2, 0, 1]),
        ("41,42,43", [41, 42, 43]),
    ],
)
def test_seeds_are_numbers_and_ranges_with_both_ends(text: str, numbers: list[int]) -> None:
    assert seeds(text) == numbers


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "Seeds '': '' is not a whole number from 0, or a range such as 0-2"),
        ("0,", "'' is not a whole number"),
        ("a", "'a' is not a whole number"),
        ("-1", "'-1' is not a whole number"),
        ("0--2", "'0--2' is not a whole number"),
        ("0-2-4", "'0-2-4' is not a whole number"),
        ("1.5", "'1.5' is not a whole number"),
        ("²", "'²' is not a whole number"),
        ("3-1", "Seeds '3-1': the last seed of the range 3-1 is less than the first"),
        ("0,0-2", "0 is given 2 times"),
        ("9" * 5000, "is not a whole number"),
        ("0-999999999999999", "more than 100,000"),
        (f"0-{LIMIT - 1},{LIMIT}", "more than 100,000"),
    ],
)
def test_seeds_that_cannot_be_read_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(OptionError) as error:
        seeds(text)
    assert complaint in str(error.value)
    assert len(seeds(f"0-{LIMIT - 1}")) == LIMIT
