"""Suites, sweeps over their runs, and forecasts of the time that they take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from debiasbench import Dataset, Method, Task, hookimpl
from debiasbench.cli.suite import report
from debiasbench.common.errors import DataError, OptionError, UnknownNameError
from debiasbench.core.weights import PUBLISHED
from debiasbench.measure.forecast import forecast
from debiasbench.measure.rehearsal import STEPS, StageTime
from debiasbench.measure.stopwatch import WARM_UP
from debiasbench.records.store import Store, read_all
from debiasbench.runs.session import Session
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.specs.spec import Spec
from debiasbench.specs.suites import names, read
from tests.conftest import ACME, ToyPlugin, offering
from tests.runs.test_run import Diverges, Raises

Cli = Callable[..., Result]

HEAD = 'name = "mine"\ndescription = "A test"\nsource = "here"\n'
BASE = '[base]\ndataset = "toy"\nmethod = "erm"\ntrain.epochs = 1\n'
SEEDS = "[grid]\nseed = [1, 2, 3]\n"


def write(text: str, path: str = "mine.toml", *, head: str = HEAD) -> str:
    Path(path).write_text(head + text)
    return path


def specs(text: str, plugins: Plugins) -> list[Spec]:
    return read(write(text)).specs(plugins)


def records() -> list[Path]:
    return sorted(Path("results").glob("*.json"))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    assert sorted({spec.method.options["density"] for spec in found}) == [
        0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9,
    ]  # fmt: skip


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
        (BASE.replace("method", "metod"), "a run has no method, only dataset, metod, train.epochs"),
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
)  # fmt: skip
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
    with pytest.raises(OptionError, match=r"none.toml cannot be read .*No such file"):
        read("none.toml")


# --- sweep ------------------------------------------------------------------------------------


def test_a_sweep_trains_every_run_and_the_second_none(debiasbench: Cli) -> None:
    file = write(BASE + SEEDS)
    first = debiasbench("sweep", file)
    assert (first.exit_code, first.stderr) == (0, "")
    lines = first.stdout.splitlines()
    for n, line in enumerate(lines[:3], 1):
        assert re.fullmatch(rf"{n}/3  seed={n}  \d+ s  unbiased \d+\.\d %", line)
    assert lines[3:] == ["3 runs: 3 trained, 0 already done"]
    before = {path: path.stat().st_mtime_ns for path in records()}
    assert len(before) == 3
    second = debiasbench("sweep", file)
    assert (second.exit_code, second.stdout) == (0, "3 runs: 0 trained, 3 already done\n")
    assert {path: path.stat().st_mtime_ns for path in records()} == before
    assert "3 trained" in debiasbench("sweep", file, "--overwrite", "always").stdout


def test_a_sweep_reports_the_accuracy_that_the_record_holds(debiasbench: Cli) -> None:
    line = debiasbench("sweep", write(BASE)).stdout.splitlines()[0]
    ((_, record),), _ = read_all([Path("results")])
    value = record.outcomes["val_unbiased"].test.metrics["unbiased"]
    assert line.startswith("1/1  mine  ")
    assert line.endswith(f"unbiased {100 * value:.1f} %")


def test_a_sweep_that_is_all_done_imports_no_torch(debiasbench: Cli, tmp_path: Path) -> None:
    file = write(BASE.replace("toy", "digits") + 'model = "mlp"\n')
    assert debiasbench("sweep", file).exit_code == 0
    code = (
        "import sys\nfrom debiasbench.cli import main\n"
        f"try:\n    main(['sweep', {file!r}])\n"
        "except SystemExit:\n    print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 runs: 0 trained, 1 already done\nFalse\n"


def test_a_run_that_fails_is_reported_and_the_others_go_on(debiasbench: Cli) -> None:
    blocks = '[[runs]]\nmethod = "diverges"\n[[runs]]\nmethod = "raises"\n[[runs]]\n'
    file = write(BASE + blocks)
    extra = (offering(diverges=Diverges, raises=Raises),)
    result = debiasbench("sweep", file, extra=extra)
    assert result.exit_code == 6  # of the first
    first, second = result.stderr.splitlines()
    assert first.startswith("1/3  method=diverges  failed: The loss of stage 'second' became NaN")
    assert second.startswith("2/3  method=raises  failed: method 'raises' of acme 1.0 raised Index")
    third, summary = result.stdout.splitlines()
    assert third.startswith("3/3  mine  ")
    assert summary == "3 runs: 1 trained, 0 already done, 2 failed"
    stopped = debiasbench("sweep", file, "--stop-at-first-error", extra=extra)
    assert (stopped.exit_code, len(stopped.stderr.splitlines())) == (6, 1)
    assert stopped.stdout == "3 runs: 0 trained, 0 already done, 1 failed, 2 left\n"


@dataclass(frozen=True)
class Fragile(Method):
    """Fails for seed 2 while a file exists."""

    def fit(self, lab: Any) -> Any:
        if Path("broken").exists() and lab.seed == 2:
            raise DataError("broken is there")
        return lab.train(lab.model(), name="train")


def test_a_run_that_failed_is_taken_up_by_the_next_sweep(debiasbench: Cli) -> None:
    file = write(BASE.replace("erm", "fragile") + SEEDS)
    extra = (offering(fragile=Fragile),)
    Path("broken").touch()
    failed = debiasbench("sweep", file, extra=extra)
    assert (failed.exit_code, len(records())) == (4, 2)
    assert failed.stderr == "2/3  seed=2  failed: broken is there\n"
    Path("broken").unlink()
    again = debiasbench("sweep", file, extra=extra)
    assert again.exit_code == 0
    assert again.stdout.splitlines()[-1] == "3 runs: 1 trained, 2 already done"
    assert len(records()) == 3


def test_a_run_that_another_process_has_is_passed_over(debiasbench: Cli, plugins: Plugins) -> None:
    file = write(BASE + SEEDS)
    with Store(Path("results")).claim(read(file).specs(plugins)[1]):
        result = debiasbench("sweep", file)
    assert result.exit_code == 0, result.stderr
    said = result.stdout.splitlines()
    assert "2/3  seed=2  is being trained by another process" in said
    assert said[-1] == "3 runs: 2 trained, 0 already done, 1 running in other processes"
    assert "1 trained, 2 already done" in debiasbench("sweep", file).stdout


@dataclass(frozen=True)
class Impatient(Method):
    """Is interrupted for seed 2 while a file exists."""

    def fit(self, lab: Any) -> Any:
        if Path("waiting").exists() and lab.seed == 2:
            raise KeyboardInterrupt
        return lab.train(lab.model(), name="train")


def test_an_interrupted_sweep_keeps_what_is_done_and_says_so(debiasbench: Cli) -> None:
    file = write(BASE.replace("erm", "impatient") + SEEDS)
    extra = (offering(impatient=Impatient),)
    Path("waiting").touch()
    result = debiasbench("sweep", file, extra=extra)
    assert result.exit_code == 130
    assert result.stderr == (
        "Interrupted; finished runs are kept. 3 runs: 1 trained, 0 already done, 2 left\n"
    )
    assert len(records()) == 1
    Path("waiting").unlink()
    again = debiasbench("sweep", file, extra=extra)
    assert again.stdout.splitlines()[-1] == "3 runs: 2 trained, 1 already done"


def test_a_failed_run_shows_its_traceback_if_asked(debiasbench: Cli) -> None:
    file = write(BASE.replace("erm", "raises"))
    result = debiasbench("sweep", file, "--debug", extra=(offering(raises=Raises),))
    assert result.exit_code == 3
    assert "Traceback (most recent call last)" in result.stderr
    assert "IndexError" in result.stderr


def test_a_dry_run_names_what_is_left_and_trains_nothing(debiasbench: Cli) -> None:
    file = write(BASE + SEEDS)
    debiasbench("sweep", file, "--limit", 1)
    result = debiasbench("sweep", file, "--dry-run")
    assert result.stdout == (
        "2/3  seed=2\n3/3  seed=3\n3 runs: 0 trained, 1 already done, 2 left\n"
    )
    assert len(records()) == 1


def test_a_limit_counts_runs_that_are_begun_and_not_those_that_are_done(debiasbench: Cli) -> None:
    file = write(BASE + SEEDS)
    summaries = [debiasbench("sweep", file, "--limit", 1).stdout.splitlines()[-1] for _ in range(3)]
    assert summaries == [
        "3 runs: 1 trained, 0 already done, 2 left",
        "3 runs: 1 trained, 1 already done, 1 left",
        "3 runs: 1 trained, 2 already done",
    ]


def test_a_folder_that_cannot_be_written_ends_the_sweep_at_once(debiasbench: Cli) -> None:
    Path("file").touch()
    result = debiasbench("sweep", write(BASE + SEEDS), "--results", "file/results")
    assert result.exit_code == 7
    assert len(result.stderr.splitlines()) == 1
    assert "Choose a folder with --results" in result.stderr


# --- suite list, suite show, and the forecast -------------------------------------------------


def test_suite_list_names_the_suites_and_what_they_are(debiasbench: Cli) -> None:
    lines = debiasbench("suite", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["suite", *names()]
    assert lines[2].endswith("REST on BFFHQ: 14 densities, three seeds")


def test_suite_show_says_what_it_is_how_much_is_done_and_what_the_rest_takes(
    debiasbench: Cli,
) -> None:
    file = write(BASE + SEEDS)
    debiasbench("sweep", file, "--limit", 1)
    result = debiasbench("suite", "show", file)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:3] == ["mine: A test", "", "Source: here"]
    assert [line.split() for line in lines[4:8]] == [
        ["every", "run", "dataset", "toy"],
        ["method", "erm"],
        ["train.epochs", "1"],
        ["seed", "1,", "2,", "3", "(3)"],
    ]
    assert lines[9] == "3 runs, 1 of them done in results"
    assert lines[11].startswith("Forecast for ")
    # 160 samples in batches of 16
    assert lines[15].split()[:6] == ["2", "erm", "toy", "mlp", "16", "10"]
    assert lines[17].startswith("2 runs will take about ")
    assert "multiplies the time of 20 steps and one validation" in result.stdout
    assert len(records()) == 1


def test_suite_show_measures_nothing_if_told_or_if_nothing_is_left(debiasbench: Cli) -> None:
    file = write(BASE)
    shown = debiasbench("suite", "show", file, "--no-forecast").stdout
    assert shown.splitlines()[-1] == "1 run, 0 of them done in results"
    debiasbench("sweep", file)
    shown = debiasbench("suite", "show", file).stdout
    assert shown.splitlines()[-1] == "1 run, 1 of them done in results"


def test_suite_show_says_what_each_block_adds(debiasbench: Cli) -> None:
    blocks = '[[runs]]\nmethod = "rest"\ngrid.density = [0.5]\n[[runs]]\n'
    shown = debiasbench("suite", "show", write(BASE + blocks), "--no-forecast").stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "runs 1 method rest" in lines
    assert "density 0.5 (1)" in lines


def test_suite_show_counts_what_failed(debiasbench: Cli) -> None:
    extra = (offering(diverges=Diverges),)
    file = write(BASE.replace("erm", "diverges"))
    debiasbench("sweep", file, extra=extra)
    result = debiasbench("suite", "show", file, "--no-forecast", extra=extra)
    assert "1 run, 0 of them done in results, 1 to run again after a failure" in result.stdout


@dataclass(frozen=True)
class Absent(Dataset):
    """A data set whose files are missing."""

    model = "mlp"

    def load(self, root: Path) -> Task:
        raise DataError("absent.bin is missing")


class AbsentPlugin:
    """Registers the data set without files."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("absent", Absent)


STAND_IN = (
    "[stand_in.absent]\ninput = [3, 4, 4]\nclasses = 2\nbiases = 3\ntrain = 96\nval = 7\ntest = 9\n"
)


def test_without_data_random_images_stand_in_and_it_is_said(debiasbench: Cli) -> None:
    base = BASE.replace("toy", "absent") + "train.batch_size = 8\n"
    result = debiasbench("suite", "show", write(base + STAND_IN), extra=(AbsentPlugin(),))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == (
        "Random images without augmentation were used for 1 run of erm on absent: "
        "absent.bin is missing"
    )
    row = next(line for line in result.stdout.splitlines() if " erm " in line)
    assert row.split()[:6] == ["1", "erm", "absent", "mlp", "8", "12"]


def test_without_data_and_without_a_shape_there_is_no_forecast_and_it_says_why(
    debiasbench: Cli,
) -> None:
    blocks = '[[runs]]\ndataset = "absent"\n[[runs]]\n'
    result = debiasbench("suite", "show", write(BASE + blocks), extra=(AbsentPlugin(),))
    assert result.exit_code == 0, result.output
    last = result.stdout.splitlines()[-1]
    assert last == "No forecast for 1 run of erm on absent: absent.bin is missing"
    assert "\n1 run will take about " in result.stdout  # the other one


@dataclass(frozen=True)
class Counting(Method):
    """Two stages that count the steps they really take."""

    def fit(self, lab: Any) -> Any:
        from torch import Tensor

        from debiasbench import Batch
        from debiasbench.core.objective import CrossEntropy

        class Counted(CrossEntropy):
            def forward(self, batch: Batch) -> Tensor:
                taken.append(len(batch))
                return super().forward(batch)

        lab.train(Counted(lab.model()), name="short", steps=35, select=False)
        return lab.train(Counted(lab.model()), name="long", epochs=50, data="train")


taken: list[int] = []


def test_a_forecast_counts_every_stage_whole_and_trains_but_a_part(tmp_path: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(counting=Counting), ACME)])
    runs = [make_spec(plugins, method="counting", dataset="toy", seed=s) for s in (1, 2)]
    taken.clear()
    (found,) = forecast(Session(plugins, data_root=tmp_path, device="cpu"), runs)
    assert len(taken) == 2 * (WARM_UP + STEPS)
    assert [(s.name, s.steps, s.looks) for s in found.stages] == [
        ("short", 35, 0),
        ("long", 500, 50),
    ]
    assert all(s.step > 0 and s.look > 0 for s in found.stages)
    assert (found.runs, found.spec, found.problem) == (2, runs[0], "")
    assert found.seconds == pytest.approx(found.around + sum(s.seconds for s in found.stages))
    assert found.memory > 0


def test_a_stage_takes_its_steps_and_its_looks_at_validation() -> None:
    assert StageTime("train", steps=1000, looks=10, step=0.25, look=2.0).seconds == 270.0


@dataclass(frozen=True)
class Slow(Method):
    """Waits for a known time in each step and in each validation."""

    def fit(self, lab: Any) -> Any:
        import time

        from torch import Tensor

        from debiasbench import Batch
        from debiasbench.core.objective import CrossEntropy

        class Waiting(CrossEntropy):
            def forward(self, batch: Batch) -> Tensor:
                time.sleep(0.01)
                return super().forward(batch)

            def predict(self, x: Tensor) -> Tensor:
                time.sleep(0.4)
                return super().predict(x)

        return lab.train(Waiting(lab.model()), name="train")


def test_a_look_at_validation_between_steps_is_not_taken_for_a_step(tmp_path: Path) -> None:
    plugins = Plugins([(ToyPlugin(), ACME), (offering(slow=Slow), ACME)])
    spec = make_spec(plugins, method="slow", dataset="toy", training={"epochs": 50})
    (found,) = forecast(Session(plugins, data_root=tmp_path, device="cpu"), [spec])
    (stage,) = found.stages  # 10 steps an epoch: the steps timed go over two ends of epochs
    assert 0.01 <= stage.step < 0.045
    assert 0.4 <= stage.look < 0.8


def test_runs_of_another_size_are_measured_apart_and_others_are_not(plugins: Plugins) -> None:
    text = '[base]\ndataset = "toy"\nmethod = "rest"\n[grid]\ndensity = [0.5, 0.2]\n' + (
        '"train.lr" = [0.1, 0.2]\n"model.hidden" = [[8], [16]]\n"train.batch_size" = [16, 32]\n'
    )
    found = forecast(Session(plugins, data_root=Path(), device="cpu"), specs(text, plugins))
    assert [
        (f.runs, f.spec.model.options["hidden"], f.spec.training["batch_size"]) for f in found
    ] == [(4, [8], 16), (4, [8], 32), (4, [16], 16), (4, [16], 32)]
    assert all(f.differ == ("density", "train.lr") for f in found)
    assert "take the same time for all values of density, train.lr, seed." in report(found)


def test_a_sparse_topology_keeps_the_pace_of_the_whole_training(plugins: Plugins) -> None:
    from debiasbench.sparsity import component

    text = BASE.replace("epochs = 1", "epochs = 100") + 'sparse = "rigl"\n'
    (spec,) = specs(text, plugins)
    totals = []
    make = component.SparseTraining

    def watched(*args: Any, **more: Any) -> Any:
        totals.append(more["total_steps"])
        return make(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(component, "SparseTraining", watched)
        forecast(Session(plugins, data_root=Path(), device="cpu"), [spec])
    assert totals == [1000]


def test_what_cannot_be_trained_has_a_reason_instead_of_a_forecast(plugins: Plugins) -> None:
    text = BASE + 'model = "cnn"\nsparse = "rigl"\n"sparse.density" = 1e-6\n'
    (found,) = forecast(Session(plugins, data_root=Path(), device="cpu"), specs(text, plugins))
    assert "smallest feasible density" in found.problem
    assert report([found]).startswith("No forecast for 1 run of erm on toy: ")


def test_a_device_that_is_not_there_is_an_error_of_suite_show(debiasbench: Cli) -> None:
    result = debiasbench("suite", "show", write(BASE), "--device", "nonsense")
    assert result.exit_code == 2
    assert "Use --device auto for an available device" in result.stderr


def test_several_processes_train_every_run_once(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(
        'name = "grid"\ndescription = "d"\nsource = "s"\n'
        '[base]\ndataset = "digits"\nmodel = "mlp"\nmethod = "erm"\n"train.epochs" = 1\n'
        "[grid]\nseed = [0, 1, 2, 3, 4]\n"
    )
    command = [sys.executable, "-m", "debiasbench", "sweep", "grid.toml", "--jobs", "2"]

    def sweep() -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = sweep()
    assert "5 runs: 5 trained, 0 already done" in first
    assert sum(line.endswith("%") for line in first.splitlines()) == 5  # each was said once
    assert len(list((tmp_path / "results").glob("*.json"))) == 5
    assert "5 runs: 0 trained, 5 already done" in sweep()
