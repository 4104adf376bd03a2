"""Suites: those that come with debiasbench, and the way from a file to specs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.core.weights import PUBLISHED
from debiasbench.records.store import Store
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.spec import Spec
from debiasbench.specs.suites import names, read
from tests.suites import BASE, HEAD, SEEDS, records, specs, write

Cli = Callable[..., Result]


pytestmark = pytest.mark.usefixtures("empty_folder")


# --- the suites that come with debiasbench ----------------------------------------------------


@cache
def published(name: str) -> list[Spec]:
    return read(name).specs(Plugins())


def test_the_suites_are_rests_three_and_the_trio() -> None:
    assert names() == ["cmnist-trio", "rest-bffhq", "rest-cifar10c", "rest-cmnist"]
    assert [read(name).name for name in names()] == names()


@pytest.mark.parametrize(
    ("name", "runs"), [("rest-cmnist", 168), ("rest-cifar10c", 168), ("rest-bffhq", 42)]
)
def test_rests_sweeps_have_as_many_runs_as_published(name: str, runs: int) -> None:
    found = published(name)
    assert len({spec.id for spec in found}) == len(found) == runs
    assert {spec.seed for spec in found} == {41, 42, 43}
    densities = sorted({spec.method.options["density"] for spec in found})
    assert densities[:5] == [0.0005, 0.001, 0.005, 0.01, 0.05]
    assert densities[5:] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize(
    ("name", "dataset", "model", "lr"),
    [
        ("rest-cmnist", "cmnist", "cnn", 0.01),
        ("rest-cifar10c", "cifar10c", "resnet18", 0.001),
        ("rest-bffhq", "bffhq", "resnet18", 0.001),
    ],
)
def test_rests_sweeps_train_as_published(name: str, dataset: str, model: str, lr: float) -> None:
    for spec in published(name):
        assert (spec.dataset.name, spec.model.name) == (dataset, model)
        assert spec.method.name == "rest"
        assert spec.method.options["update_every"] == 1000
        assert spec.method.options["compat"] == "none"
        assert spec.training == {
            "epochs": 100,
            "batch_size": 256,
            "optimizer": "sgd",
            "lr": lr,
            "momentum": 0.9,
            "weight_decay": 0.0,
            "schedule": "plateau",
            "clip_norm": None,
        }
    if model == "resnet18":
        options = published(name)[0].model.options
        assert (options["width"], options["stem"]) == (64, "imagenet")
        assert options["pretrained"] is False


@pytest.mark.parametrize("name", ["rest-cmnist", "rest-cifar10c"])
def test_the_rarer_conflicting_samples_are_the_more_they_weigh(name: str) -> None:
    pairs = {(s.dataset.options["ratio"], s.method.options["weight"]) for s in published(name)}
    assert pairs == {(0.005, 80.0), (0.01, 50.0), (0.02, 30.0), (0.05, 10.0)}
    assert dict(pairs) == PUBLISHED


def test_bffhq_weighs_conflicting_samples_as_published_at_half_a_percent() -> None:
    assert {spec.method.options["weight"] for spec in published("rest-bffhq")} == {80.0}


@pytest.mark.parametrize("name", names())
def test_a_suite_says_what_its_data_set_holds_and_nothing_of_others(name: str) -> None:
    suite = read(name)
    assert set(suite.stand_ins) == {suite.common.words["dataset"]}


def test_suites_lie_in_the_package_so_that_they_are_installed() -> None:
    folder = files("debiasbench").joinpath("suites")
    assert {f.name for f in folder.iterdir()} >= {f"{name}.toml" for name in names()}
    assert Path(str(folder)).parent.joinpath("specs").is_dir()


# --- from a file to specs ---------------------------------------------------------------------


def test_a_grid_is_every_combination_and_its_last_line_changes_fastest(plugins: Plugins) -> None:
    found = specs(BASE + '[grid]\n"dataset.ratio" = [0.1, 0.2]\nseed = [5, 3]\n', plugins)
    assert [(s.dataset.options["ratio"], s.seed) for s in found] == [
        (0.1, 5),
        (0.1, 3),
        (0.2, 5),
        (0.2, 3),
    ]


def test_names_of_data_sets_are_resolved_as_one_is_told_to(plugins: Plugins) -> None:
    suite = read(write(BASE.replace("toy", "mine") + SEEDS))
    found = suite.specs(plugins, lambda name: ({"mine": "toy"}[name], {"ratio": 0.3}))
    assert {(s.dataset.name, s.dataset.options["ratio"]) for s in found} == {("toy", 0.3)}


def test_a_suite_without_a_grid_is_one_run(plugins: Plugins) -> None:
    (spec,) = specs(BASE, plugins)
    assert spec == make_spec(plugins, method="erm", dataset="toy", training={"epochs": 1})


def test_tied_values_go_together_and_not_with_each_other(plugins: Plugins) -> None:
    text = BASE.replace("erm", "rest") + '[grid]\n"dataset.ratio, weight" = [[0.1, 9], [0.2, 4]]\n'
    found = specs(text + "density = [0.5, 0.1]\n", plugins)
    assert [
        (s.dataset.options["ratio"], s.method.options["weight"], s.method.options["density"])
        for s in found
    ] == [(0.1, 9, 0.5), (0.1, 9, 0.1), (0.2, 4, 0.5), (0.2, 4, 0.1)]


def test_blocks_share_the_base_and_the_grid_and_add_their_own(plugins: Plugins) -> None:
    blocks = (
        '[[runs]]\nmethod = "erm"\n'
        '[[runs]]\nmethod = "rest"\ngrid.density = [0.5, 0.1]\n'
        '[[runs]]\nmethod = "erm"\nsparse = "rigl"\n"sparse.density" = 0.2\ntrain.lr = 0.5\n'
    )
    base = '[base]\ndataset = "toy"\ntrain.lr = 0.25\n[grid]\nseed = [1, 2]\n'
    found = specs(base + blocks, plugins)
    assert [(s.method.name, s.seed, s.method.options.get("density")) for s in found] == [
        ("erm", 1, None),
        ("erm", 2, None),
        ("rest", 1, 0.5),
        ("rest", 1, 0.1),
        ("rest", 2, 0.5),
        ("rest", 2, 0.1),
        ("erm", 1, None),
        ("erm", 2, None),
    ]
    assert [s.training["lr"] for s in found] == [0.25] * 6 + [0.5] * 2
    assert [s.sparse and s.sparse.options["density"] for s in found] == [None] * 6 + [0.2] * 2


def test_a_spec_that_two_lines_come_to_is_there_once(plugins: Plugins) -> None:
    text = BASE + SEEDS + "[[runs]]\n[[runs]]\nseed = 2\n[[runs]]\nseed = 7\n"
    assert [spec.seed for spec in specs(text, plugins)] == [1, 2, 3, 7]


def test_runs_are_named_by_what_tells_them_apart(plugins: Plugins) -> None:
    blocks = '[[runs]]\nmethod = "rest"\ngrid."density, dataset.ratio" = [[0.5, 0.1]]\n'
    text = BASE.replace('method = "erm"\n', "") + "[grid]\nseed = [3]\n" + blocks
    assert list(read(write(text)).named(plugins)) == [
        "seed=3 method=rest density=0.5 dataset.ratio=0.1"
    ]
    assert list(read(write(BASE)).named(plugins)) == ["mine"]


def test_a_run_of_a_suite_is_that_of_the_same_words_on_the_command_line(
    debiasbench: Cli, plugins: Plugins
) -> None:
    (spec,) = specs(
        '[base]\ndataset = "toy"\nmethod = "rest"\nmodel = "mlp"\nseed = 4\nsparse = "set"\n'
        '"sparse.density" = 0.5\n"sparse.every" = 10\n"sparse.exclude" = ["*.1.weight"]\n'
        'density = 1\nreweight = false\nupdate_every = "none"\n"dataset.ratio" = 0.2\n'
        '"model.hidden" = [8]\n"train.lr" = 1\n"train.epochs" = 1\n"train.clip_norm" = 1e-5\n',
        plugins,
    )
    result = debiasbench(
        "run",
        "--dataset",
        "toy",
        "--method",
        "erm",
        "--model",
        "mlp",
        "--seed",
        4,
        "--sparse",
        'set:density=0.5,every=10,exclude=["*.1.weight"]',
        "--set",
        "dataset.ratio=0.2",
        "--set",
        "model.hidden=[8]",
        "--set",
        "train.lr=1",
        "--epochs",
        1,
        "--set",
        "train.clip_norm=1e-5",
    )
    assert result.exit_code == 0, result.output
    by_hand = json.loads(records()[0].read_text())["spec"]
    rest = make_spec(
        plugins,
        method="rest",
        dataset="toy",
        method_options={"density": "1", "reweight": "false", "update_every": "none"},
    ).method
    assert spec.method == rest
    ours = json.loads(json.dumps({**vars(spec), "method": None}, default=vars))
    assert {**by_hand, "method": None} == ours


def test_the_id_of_a_run_is_that_of_the_command_line(debiasbench: Cli, plugins: Plugins) -> None:
    text = '[base]\ndataset = "toy"\nmethod = "rest"\ndensity = 0.5\ntrain.epochs = 1\nseed = 2\n'
    (spec,) = specs(text, plugins)
    words = ("--dataset", "toy", "--method", "rest", "--set", "density=0.5", "--epochs", 1)
    assert debiasbench("run", *words, "--seed", 2).exit_code == 0
    assert records() == [Store(Path("results")).path(spec)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (BASE + "[gird]\nseed = [1]\n", "a suite has no key 'gird'. Did you mean 'grid'?"),
        (BASE + "[grid]\nseed = 1\n", "seed = 1 in a grid: write a list of values"),
        (BASE + "[grid]\nseed = []\n", "seed = [] in a grid: write a list of values"),
        (BASE + "[grid]\nseed = [-1]\n", "seed = -1: must be a whole number"),
        (BASE + "seed = true\n", "seed = True: must be a whole number"),
        (BASE + "sede = 1\n", "method erm: no option 'sede'. Did you mean 'seed'?"),
        (BASE + "dataset.ratio = 1\n", "is not valid TOML (Cannot overwrite a value"),
        (BASE + '"trian.lr" = 1\n', "'trian.lr' is not a valid name. Did you mean 'train'?"),
        (BASE + '"train.epoch" = 1\n', "training: no option 'epoch'. Did you mean 'epochs'?"),
        (BASE + '"train." = 1\n', "'train.' is not a valid name"),
        (BASE + "when = 2026-01-01\n", "must be a number, a text, true, false, or a list"),
        (BASE.replace("erm", "emr"), "Unknown method 'emr'. Did you mean 'erm'?"),
        (BASE.replace("toy", "tooy"), "Unknown dataset 'tooy'. Did you mean 'toy'?"),
        (
            BASE.replace('method = "erm"', ""),
            "a run has no method, only dataset, train.epochs: add",
        ),
        (BASE.replace("method", "metod"), "Did you mean 'method' instead of 'metod'?"),
        (BASE.replace('"erm"', "1"), "method = 1: must be a name"),
        (BASE + 'model = "mpl"\n', "Unknown model 'mpl'. Did you mean 'mlp'?"),
        (BASE + 'sparse = "rigel"\n', "Unknown sparsifier 'rigel'. Did you mean 'rigl'?"),
        (BASE + 'sparse = "rigl:density=0.1"\n', 'write sparse = "rigl" and each option'),
        (BASE + '"sparse.density" = 0.1\n', "sparse.density needs a sparsifier: --sparse NAME"),
        (BASE + '[grid]\n"dataset.ratio" = [0.1, 1.5]\n', "ratio='1.5': input should be less"),
        (BASE + "seed = 1\n" + SEEDS, "seed is given twice"),
        (BASE + SEEDS + '"seed, train.lr" = [[1, 2]]\n', "seed is given twice"),
        (BASE + '[grid]\n"seed, train.lr" = [[1, 2], [3]]\n', "the values must be a list of 2"),
        (BASE + '[grid]\n"seed, train.lr" = [1]\n', "the values must be a list of 2, not 1"),
        ("base = 1\n", "base = 1 is not a table: write [base]"),
        ("runs = 1\n", "runs is not a list of tables: write [[runs]]"),
        (BASE + "[stand_in.toy]\ninputs = [3]\n", "stand_in.toy has no key 'inputs'. Did you mean"),
        (BASE + "[stand_in.toy]\ninput = 3\n", "classes = None, must be a number above 0"),
        (BASE + "[stand_in.toy]\ninput = [0]\n", "input = [0], must be a shape such as"),
        ("seed = \n", "is not valid TOML (Invalid value (at line 4"),
    ],
)
def test_each_mistake_in_a_file_is_one_error_that_names_the_file(
    text: str, complaint: str, debiasbench: Cli
) -> None:
    result = debiasbench("sweep", write(text), "--dry-run")
    assert result.exit_code == 2, (result.output, result.exception)
    (line,) = result.stderr.splitlines()
    assert "mine.toml" in line
    assert complaint in line


@pytest.mark.parametrize("key", ["name", "description", "source"])
def test_a_suite_says_its_name_what_it_is_and_where_it_is_from(key: str) -> None:
    head = "".join(f"{line}\n" for line in HEAD.splitlines() if not line.startswith(key))
    with pytest.raises(OptionError, match=f"mine.toml: {key} is missing"):
        read(write(BASE, head=head))


def test_a_suite_that_is_not_there_is_an_error_with_the_way_out() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'rest-cmnist'.*ends in .toml"):
        read("rest-cmnst")
    with pytest.raises(OptionError, match=r"none.toml cannot be read: No such file"):
        read("none.toml")
