"""One grammar of NAME=VALUE for the command line and suites."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import Result

from debiasbench import Method, option
from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.words import (
    BARE,
    arguments,
    as_text,
    combined,
    full_name,
    label,
    read_options,
    read_settings,
    read_sparse,
    short_name,
    split_commas,
)
from tests.conftest import ACME, ToyPlugin, offering

# --- names and values -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("density", "method.density"),
        ("method.density", "method.density"),
        ("dataset.ratio", "dataset.ratio"),
        ("model.width", "model.width"),
        ("train.lr", "train.lr"),
        ("sparse.density", "sparse.density"),
    ],
)
def test_a_name_without_a_scope_is_an_option_of_the_method(name: str, full: str) -> None:
    assert full_name(name) == full
    assert full_name(short_name(full)) == full


@pytest.mark.parametrize("name", BARE)
def test_bare_names_have_no_scope_where_they_are_allowed(name: str) -> None:
    assert full_name(name, bare=BARE) == name
    assert full_name(name) == f"method.{name}"
    assert short_name(f"method.{name}") == f"method.{name}"


def test_a_name_without_a_scope_takes_the_scope_of_the_command() -> None:
    assert full_name("ratio", "dataset") == "dataset.ratio"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("trian.lr", "'trian.lr' is not a valid name. Did you mean 'train'? Valid names are"),
        ("train.", "'train.' is not a valid name. Did you mean 'train'?"),
        (".lr", "'.lr' is not a valid name. Valid names are the options of the method, dataset"),
        (".", "'.' is not a valid name."),
        ("", "'' is not a valid name."),
        ("train.lr.x", "'train.lr.x' is not a valid name"),
        ("Train.lr", "Did you mean 'train'?"),
    ],
)
def test_a_name_with_an_unknown_scope_is_refused(name: str, complaint: str) -> None:
    with pytest.raises(OptionError) as error:
        full_name(name)
    assert complaint in str(error.value)


def test_valid_names_are_listed_with_the_bare_ones_only_where_they_are_allowed() -> None:
    with pytest.raises(
        OptionError, match="of the method, method, dataset, model, sparse, seed, preset, d"
    ):
        full_name("x.y", bare=BARE)
    with pytest.raises(OptionError, match=r"Valid names are the options of the dataset$"):
        full_name("x.y", "dataset")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", "a b"),
        (None, "none"),
        (True, "true"),
        (0.05, "0.05"),
        (1e-6, "1e-06"),
        ([8, 8], "[8, 8]"),
        ((8,), "[8]"),
        (["a,b"], '["a,b"]'),
    ],
)
def test_values_are_written_as_they_are_typed(value: object, text: str) -> None:
    assert as_text(value) == text


def test_a_label_is_what_set_takes() -> None:
    words = {"method": "rest", "method.density": 0.05, "train.lr": 0.1, "method.seed": 1, "seed": 2}
    assert label(words) == "method=rest density=0.05 train.lr=0.1 method.seed=1 seed=2"


# --- from the command line --------------------------------------------------------------------


def test_settings_are_split_at_the_first_equals_sign() -> None:
    assert read_settings(["density=0.1", "train.lr=1e-3", "note=a=b,c", "method.empty="]) == {
        "method.density": "0.1",
        "train.lr": "1e-3",
        "method.note": "a=b,c",
        "method.empty": "",
    }


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["lr"], "--set lr: write NAME=VALUE. Valid names are the options of the method, dataset."),
        (["=1"], "--set =1: write NAME=VALUE"),
        ([""], "--set : write NAME=VALUE"),
        (["optimizer.lr=1"], "'optimizer.lr' is not a valid name"),
        (["density=1", "density=2"], "density is given twice: 1 and 2. Keep one of them"),
        (["density=1", "method.density=1"], "density is given twice"),
        (["train.lr=1", "train.lr=2"], "train.lr is given twice"),
        (
            ["seed=1"],
            "--set seed=...: 'seed' is set by another argument of the command (see --help). If "
            "the method has an option 'seed', write method.seed=...",
        ),
    ],
)
def test_a_setting_that_cannot_be_read_is_refused(settings: list[str], complaint: str) -> None:
    with pytest.raises(OptionError) as error:
        read_settings(settings)
    assert complaint in str(error.value)


def test_options_of_one_scope_are_read_with_and_without_it() -> None:
    assert read_options(["ratio=0.1", "dataset.seed=2", "model=a"], "dataset") == {
        "ratio": "0.1",
        "seed": "2",
        "model": "a",
    }
    with pytest.raises(OptionError, match=r"--set train\.lr=1: this command takes options of the"):
        read_options(["train.lr=1"], "dataset")
    with pytest.raises(OptionError, match=r"dataset\.ratio is given twice"):
        read_options(["ratio=1", "dataset.ratio=1"], "dataset")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, {}),
        ("rigl", {"sparse": "rigl"}),
        ("rigl:", {"sparse": "rigl"}),
        ("acme:rigl:", {"sparse": "acme:rigl"}),
        ("acme:rigl:density=0.1", {"sparse": "acme:rigl", "sparse.density": "0.1"}),
        ("rigl:include=a:b", {"sparse": "rigl", "sparse.include": "a:b"}),
        (
            "rigl:density=0.05,every=2%",
            {"sparse": "rigl", "sparse.density": "0.05", "sparse.every": "2%"},
        ),
        (
            'set:exclude=["*.1.weight","a,]b"],every=10',
            {"sparse": "set", "sparse.exclude": '["*.1.weight","a,]b"]', "sparse.every": "10"},
        ),
    ],
)
def test_sparse_names_a_sparsifier_and_its_options(text: str | None, words: Any) -> None:
    assert read_sparse(text) == words


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rigl:density", "--sparse rigl:density: 'density' is not OPTION=VALUE"),
        ("rigl:=1", "'=1' is not OPTION=VALUE"),
        ("rigl:density=1,", "'' is not OPTION=VALUE"),
        ("rigl:exclude=[a,b", "exclude=[a,b: brackets do not match"),
        ('rigl:exclude=["a],b', "a double quote is not closed"),
        ("rigl:density=1,density=2", "sparse.density is given twice"),
    ],
)
def test_a_sparsifier_that_cannot_be_read_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(OptionError) as error:
        read_sparse(text)
    assert complaint in str(error.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", [""]),
        ("a", ["a"]),
        ("a,b,", ["a", "b", ""]),
        ("[1,[2,3]],4", ["[1,[2,3]]", "4"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ('["a],","b"],c', ['["a],","b"]', "c"]),
    ],
)
def test_commas_in_brackets_and_quotes_separate_nothing(text: str, parts: list[str]) -> None:
    assert split_commas(text) == parts


def test_words_are_combined_in_order_and_each_name_is_given_once() -> None:
    assert list(combined([{"b": 1}, {}, {"a": 2}])) == ["b", "a"]
    with pytest.raises(OptionError, match=r"sparse\.density is given twice: 0\.1 and 0\.2"):
        combined([read_sparse("rigl:density=0.1"), read_settings(["sparse.density=0.2"])])


# --- from words to a spec ---------------------------------------------------------------------


def spec_of(plugins: Plugins, words: dict[str, object]) -> Any:
    return make_spec(plugins, **arguments(words, plugins))


def test_words_reach_every_part_of_a_spec(plugins: Plugins) -> None:
    words = {
        "method": "rest",
        "dataset": "toy",
        "model": "mlp",
        "seed": 4,
        "sparse": "set",
        "method.density": 0.5,
        "dataset.ratio": "0.2",
        "model.hidden": [8],
        "train.lr": 1,
        "sparse.density": 0.25,
    }
    spec = spec_of(plugins, words)
    assert spec == make_spec(
        plugins,
        method="rest",
        dataset="toy",
        model="mlp",
        seed=4,
        sparse="set",
        method_options={"density": 0.5},
        dataset_options={"ratio": 0.2},
        model_options={"hidden": [8]},
        training={"lr": 1.0},
        sparse_options={"density": 0.25},
    )


def test_the_name_of_a_data_set_may_imply_options_which_words_override(plugins: Plugins) -> None:
    def find(name: str) -> tuple[str, dict[str, object]]:
        return name.removeprefix("my-"), {"ratio": 0.3}

    words: dict[str, object] = {"method": "erm", "dataset": "my-toy"}
    made = arguments(words, plugins, find)
    assert (made["dataset"], made["dataset_options"]) == ("toy", {"ratio": 0.3})
    words["dataset.ratio"] = 0.4
    assert arguments(words, plugins, find)["dataset_options"] == {"ratio": "0.4"}


@dataclass(frozen=True)
class Seeded(Method):
    """Has options that are called like a bare name and like a setting of the training."""

    seed: int = option(1)
    lr: float = option(0.5)

    def fit(self, lab: Any) -> Any:
        return lab.train(lab.model(), name="train")


def test_an_option_called_like_a_bare_name_is_reached_by_its_scope() -> None:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(seeded=Seeded), ACME)])
    words = read_settings(["method.seed=7", "lr=2"])
    spec = spec_of(plugins, {"method": "seeded", "dataset": "toy", "seed": 3, **words})
    assert (spec.method.options, spec.seed) == ({"seed": 7, "lr": 2.0}, 3)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            {"method.densty": 1},
            "method rest: no option 'densty'. Did you mean 'density'? Options: density, ",
        ),
        ({"method.lr": 1}, "method rest: no option 'lr'. Did you mean 'train.lr'?"),
        ({"method.epoch": 1}, "Did you mean 'train.epochs'?"),
        ({"method.ratio": 1, "dataset": "toy"}, "Did you mean 'dataset.ratio'?"),
        ({"method.hidden": 1, "model": "mlp"}, "Did you mean 'model.hidden'?"),
        ({"method.hiden": 1, "dataset": "toy"}, "Did you mean 'model.hidden'?"),
        ({"method.sede": 1}, "Did you mean 'seed'?"),
        ({"method.zzz": 1}, "no option 'zzz'. Options: density"),
        ({"sparse.density": 1}, "sparse.density needs a sparsifier: --sparse NAME"),
        ({"train.epoch": 1}, "training: no option 'epoch'. Did you mean 'epochs'?"),
    ],
)
def test_words_that_nothing_takes_are_refused(
    words: dict[str, object], complaint: str, plugins: Plugins
) -> None:
    with pytest.raises(OptionError) as error:
        spec_of(plugins, {"method": "rest", **words})
    assert complaint in str(error.value)


def test_an_unknown_method_is_an_unknown_name(plugins: Plugins) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'rest'"):
        arguments({"method": "rset", "method.density": 1}, plugins)


@pytest.mark.slow
def test_reading_words_imports_no_torch() -> None:
    code = (
        "import sys, debiasbench.specs.words, debiasbench.specs.grid, debiasbench.specs.suites;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- the same words on the command line -------------------------------------------------------


def test_options_of_a_sparsifier_may_come_from_set_and_from_sparse(
    debiasbench: Callable[..., Result],
) -> None:
    run = ("run", "--method", "erm", "--dataset", "toy", "--model", "mlp", "--epochs", 1, "--quiet")
    both = debiasbench(*run, "--sparse", "rigl:every=10", "--set", "sparse.density=0.5")
    assert both.exit_code == 0, both.output
    assert "Already done" not in both.stdout
    for line in (
        ("--sparse", "rigl:density=0.5,every=10"),
        ("--sparse", "rigl", "--set", "sparse.density=0.5", "--set", "sparse.every=10"),
    ):
        assert "Already done" in debiasbench(*run, *line).stdout


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (("--set", "sparse.density=0.1"), "Error: sparse.density needs a sparsifier: --sparse"),
        (
            ("--sparse", "rigl:density=0.1", "--set", "sparse.density=0.2"),
            "Error: sparse.density is given twice: 0.1 and 0.2. Keep one of them",
        ),
        (("--epochs", "3", "--set", "train.epochs=2"), "Error: train.epochs is given twice"),
    ],
)
def test_words_that_contradict_each_other_are_one_line_on_stderr(
    line: tuple[str, ...], complaint: str, debiasbench: Callable[..., Result]
) -> None:
    result = debiasbench("run", "--method", "erm", "--dataset", "toy", *line)
    assert result.exit_code == 2
    (said,) = result.stderr.splitlines()
    assert said.startswith(complaint)
