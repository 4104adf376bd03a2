"""Suites: those that come with debiasbench, and the way from a file to specs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from debiasbench.common.canonical import canonical
from debiasbench.common.errors import OptionError, UnknownNameError
from debiasbench.core.weights import PUBLISHED
from debiasbench.records.store import Store
from debiasbench.specs.maker import Maker
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.spec import Spec
from debiasbench.specs.suites import example, names, read
from debiasbench.specs.words import arguments
from tests.cli.calls import only
from tests.suites import BASE, HEAD, SEEDS, records, specs, write

Cli = Callable[..., Result]


pytestmark = pytest.mark.usefixtures("empty_folder")


# --- the suites that come with debiasbench ----------------------------------------------------


@cache
def published(name: str) -> list[Spec]:
    return read(name).specs(Plugins())


def test_suites_are_named_after_their_files() -> None:
    field = ["bffhq-resnet18", "celeba-resnet50", "cifar10c-resnet18", "civilcomments-bert"]
    field += ["cmnist-mlp", "cmnist-short", "cmnist-trio"]
    rest = ["rest-ablation", "rest-bffhq", "rest-cifar10c", "rest-cmnist", "waterbirds-resnet50"]
    digits = [
        f"digits-{name}" for name in ("ablation", "biased-val", "density", "methods", "ratios")
    ]
    rest.insert(0, "multinli-bert")
    assert names() == [*field, *digits, *rest]
    assert [read(name).name for name in names()] == names()


def test_the_suite_of_all_methods_has_all_of_them_five_times() -> None:
    specs = published("digits-methods")
    assert {spec.method.name for spec in specs} == set(Plugins([]).methods)
    assert len(specs) == 5 * len(Plugins([]).methods)
    assert all(spec.training == specs[0].training for spec in specs)


def test_the_ablation_of_rest_has_all_combinations_of_its_parts() -> None:
    specs = published("rest-ablation")
    assert len(specs) == 8 * 4 * 3
    assert len({spec.id for spec in specs}) == len(specs)
    kinds = {
        (spec.method.name, spec.sparse and spec.sparse.name, *parts_of(spec)) for spec in specs
    }
    assert len(kinds) == 8
    settings = {canonical(spec.training) for spec in specs}
    assert len(settings) == 1
    assert settings == {canonical(spec.training) for spec in published("cmnist-trio")}


def test_the_short_suite_has_the_parts_and_densities_of_rest_in_8_epochs() -> None:
    specs = published("cmnist-short")
    assert len({spec.id for spec in specs}) == len(specs) == 12 * 3
    assert {spec.training["epochs"] for spec in specs} == {8}
    assert len({canonical(spec.training) for spec in specs}) == 1
    densities = {spec.method.options.get("density") for spec in specs} - {None}
    assert densities == {0.01, 0.02, 0.05, 0.1, 0.2, 0.5}


def parts_of(spec: Spec) -> tuple[object, ...]:
    return tuple(spec.method.options.get(name) for name in ("reweight", "grow"))


def test_the_suite_of_published_tables_trains_for_50000_steps() -> None:
    specs = published("cmnist-mlp")
    assert len(specs) == 6 * 4 * 3
    assert {spec.model.name for spec in specs} == {"mlp"}
    assert {spec.training["lr"] for spec in specs} == {0.01}
    steps = {spec.training["epochs"] * -(-55000 // spec.training["batch_size"]) for spec in specs}
    assert steps == {233 * 215}  # 50,095


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
        (BASE + "[stand_in.toy]\ntexts = 2\n", "words = None, must be a number above 0"),
        (BASE + "[stand_in.toy]\ntexts = 2\ninput = [3]\n", "keep input for images, or texts"),
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


# --- the example, and many runs ---------------------------------------------------------------


def test_a_new_suite_is_valid_and_its_runs_work(debiasbench: Cli) -> None:
    result = debiasbench("suite", "new", "mine.toml")
    assert result.exit_code == 0, result.output
    assert "debiasbench sweep mine.toml" in result.stdout
    suite = read("mine.toml")
    assert suite.name == "mine"
    found = suite.specs(Plugins())
    assert len(found) == 12
    assert {spec.method.name for spec in found} == {"erm", "upweight", "rest"}
    swept = debiasbench("sweep", "mine.toml", "--limit", 1, "--quiet")
    assert swept.stdout.endswith("12 runs: 1 trained, 0 already done, 11 left\n")


def test_a_new_suite_replaces_no_file(debiasbench: Cli) -> None:
    Path("mine.toml").write_text("text")
    result = debiasbench("suite", "new", "mine.toml")
    assert result.exit_code == 2
    assert "mine.toml exists already: choose another name" in result.stderr
    assert Path("mine.toml").read_text() == "text"
    assert "ends in .toml" in debiasbench("suite", "new", "mine").stderr


def test_what_the_example_has_as_comments_is_valid_too(plugins: Plugins) -> None:
    lines = example("x").splitlines()
    begin = lines.index('# method = "upweight"') - 1
    block = "\n".join(line.removeprefix("# ") for line in lines[begin : begin + 3])
    base = [line for line in lines if line.startswith(('# "', "# sparse"))]
    text = (
        '[base]\ndataset = "toy"\nmodel = "mlp"\n'
        + "\n".join(line.removeprefix("# ") for line in base)
        + f"\n{block}\n"
    )
    assert len(specs(text, plugins)) == 2


def test_all_missing_keys_are_named_at_once(debiasbench: Cli) -> None:
    file = write('[base]\ndataset = "toy"\n', head='name = "a"\n')
    assert only(debiasbench("sweep", file), 2) == (
        'mine.toml: description is missing: add description = "..."; source is missing: add '
        'source = "..."; a run has no method, only dataset: add method = "NAME" to [base]'
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '[grid]\nmethods = ["erm"]\nseeds = [0, 1]\n',
            "a run has no method. Did you mean 'method' instead of 'methods' and 'seed' instead of",
        ),
        (BASE + "[grid]\nseeds = [0, 1]\n", "no option 'seeds'. Did you mean 'seed'?"),
        (BASE + "[grid]\nlr = [0.1]\n", "no option 'lr'. Did you mean 'train.lr'?"),
        (
            '[base]\ndataset = "toy"\n[grid]\nmethod = ["erm", "rest"]\ndensity = [0.5]\n',
            "density is an option of rest, but not of erm. Write a block for each method: [[runs]] "
            'with method = "rest" and density = 0.5, or grid.density = [...] for several values, '
            'and [[runs]] with method = "erm"',
        ),
        ("[train]\nlr = 1\n", "a suite has no key 'train'. Write train below [base] or [grid]."),
        ('method = "erm"\n', "a suite has no key 'method'. Write method below [base] or [grid]."),
        (BASE + "x = " + "[" * 3000, "the file is nested too deeply"),
        (BASE + "x = " + "9" * 5000, "the file is not valid TOML (Exceeds the limit"),
        (BASE + f"seed = {2**63}\n", "seed = 9223372036854775808: must be a whole number from 0"),
        (BASE + '"train.lr" = nan\n', "lr='NaN': input should be a finite number"),
        (BASE + f"density = {[[1]] * 999}\n", "]]: must be a number, a text"),
        (
            BASE + "[grid]\n" + "".join(f'"train.x{i}" = {list(range(1000))}\n' for i in range(3)),
            "this grid has 1,000,000,000 runs, more than 100,000. Give fewer values",
        ),
    ],
)
def test_a_mistake_in_a_file_has_the_right_words(
    text: str, complaint: str, debiasbench: Cli
) -> None:
    line = only(debiasbench("sweep", write(text), "--dry-run"), 2)
    assert complaint in line
    assert len(line) < 600


def test_each_row_has_its_own_preset_whatever_the_rows_before(plugins: Plugins) -> None:
    head = '[base]\ndataset = "waterbirds"\n[grid]\nseed = [0, 1]\n'
    pairs = [["jtt", "waterbirds"], ["dfr", "waterbirds"]]
    found = specs(f'{head}"method, preset" = {pairs}', plugins)
    assert len(found) == 4
    for spec in found:
        words = {"dataset": "waterbirds", "method": spec.method.name, "preset": "waterbirds"}
        assert spec == make_spec(plugins, **arguments(words, plugins), seed=spec.seed)
    rows = '[[runs]]\nmethod = "jtt"\n[[runs]]\nmethod = "jtt"\npreset = "waterbirds"\n'
    assert len(specs(head + rows, plugins)) == 4


def test_a_grid_of_many_runs_is_read_fast(plugins: Plugins) -> None:
    text = f'{BASE}[grid]\nseed = {list(range(200))}\n"train.lr" = {[n / 50 for n in range(1, 51)]}'
    suite = read(write(text))
    begun = time.process_time()
    found = suite.named(plugins)
    assert time.process_time() - begun < 3  # 0.3 s on an idle machine
    assert len(found) == suite.runs == 10_000
    title, spec = list(found.items())[4321]
    assert title == "seed=86 train.lr=0.44"
    alone = make_spec(
        plugins, method="erm", dataset="toy", seed=86, training={"lr": "0.44", "epochs": "1"}
    )
    assert spec == alone


VALUES = st.lists(
    st.sampled_from([0.1, 0.10, 1, 1.0, True, "1", "none", 2]), min_size=1, max_size=3
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rates=VALUES, norms=VALUES, densities=VALUES)
def test_a_grid_has_the_specs_of_its_words(rates: Any, norms: Any, densities: Any) -> None:
    plugins = Plugins()
    maker = Maker(plugins)
    found: list[Spec] = []
    for rate, norm, density in product(rates, norms, densities):
        words = {"method": "rest", "train.lr": rate, "train.clip_norm": norm}
        words["method.density"] = density
        try:
            expected = make_spec(plugins, **arguments(words, plugins))
        except OptionError:
            with pytest.raises(OptionError):
                maker.new(words)
            continue
        assert maker.new(words) == (None if expected in found else expected)
        found.append(expected)
