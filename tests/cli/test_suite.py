"""`debiasbench suite`: what a suite has, how much of it is done, and what the rest takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from click.testing import Result

from debiasbench import Dataset, Task, hookimpl
from debiasbench.common.errors import DataError
from debiasbench.specs.suites import names
from tests.conftest import offering
from tests.failing import Diverges
from tests.runs.test_texts import TextPlugin
from tests.suites import BASE, SEEDS, records, write

Cli = Callable[..., Result]


def test_suite_list_names_the_suites_and_what_they_are(debiasbench: Cli) -> None:
    lines = debiasbench("suite", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["suite", *names()]
    (bffhq,) = [line for line in lines if line.startswith("rest-bffhq ")]
    assert bffhq.endswith("REST on BFFHQ: 14 densities, three seeds")


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
    settings = "batch_size=16, clip_norm=none, epochs=1, lr=0.05, momentum=0.9, optimizer=sgd"
    assert lines[9].startswith(f"Training of all runs: {settings}")
    lines = lines[2:]
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
    assert "1 run, 0 of them done in results, 1 to run again after a failure" in (result.stdout)


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


def test_without_data_random_samples_stand_in_and_it_is_said(debiasbench: Cli) -> None:
    base = BASE.replace("toy", "absent") + "train.batch_size = 8\n"
    result = debiasbench("suite", "show", write(base + STAND_IN), extra=(AbsentPlugin(),))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == (
        "Artificial samples without augmentation were used for 1 run of erm on absent: "
        "absent.bin is missing"
    )
    row = next(line for line in result.stdout.splitlines() if " erm " in line)
    assert row.split()[:6] == ["1", "erm", "absent", "mlp", "8", "12"]


def test_without_data_texts_of_the_stand_in_are_tokenised(debiasbench: Cli) -> None:
    base = BASE.replace("toy", "absent").replace("train.epochs", 'model = "words"\ntrain.epochs')
    texts = STAND_IN.replace("input = [3, 4, 4]", "texts = 1\nwords = 12")
    plugins = (AbsentPlugin(), TextPlugin())
    result = debiasbench("suite", "show", write(base + texts), extra=plugins)
    assert result.exit_code == 0, result.output
    assert "Artificial samples without augmentation were used for 1 run" in result.stdout
    row = next(line for line in result.stdout.splitlines() if " erm " in line)
    assert row.split()[:4] == ["1", "erm", "absent", "words"]
    without = debiasbench(
        "suite", "show", write(base.replace("words", "mlp") + texts), extra=plugins
    )
    assert "this model has no tokenizer to read them" in without.stdout


def test_without_data_and_without_a_shape_there_is_no_forecast_and_it_says_why(
    debiasbench: Cli,
) -> None:
    blocks = '[[runs]]\ndataset = "absent"\n[[runs]]\n'
    result = debiasbench("suite", "show", write(BASE + blocks), extra=(AbsentPlugin(),))
    assert result.exit_code == 0, result.output
    last = result.stdout.splitlines()[-1]
    assert last == "No forecast for 1 run of erm on absent: absent.bin is missing"
    assert "\n1 run will take about " in result.stdout  # the other one


def test_a_device_that_is_not_there_is_an_error_of_suite_show(debiasbench: Cli) -> None:
    result = debiasbench("suite", "show", write(BASE), "--device", "nonsense")
    assert result.exit_code == 2
    assert "Use --device auto for an available device" in result.stderr
