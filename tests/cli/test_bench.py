"""`debiasbench bench`: the table, the JSON, and errors before anything is measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from click.testing import Result

from debiasbench import Dataset, Method, Task, hookimpl
from debiasbench.cli.bench import report
from debiasbench.core.data import Split
from debiasbench.measure import bench as module
from debiasbench.measure.bench import Bench
from debiasbench.measure.image_files import is_image
from tests.conftest import offering
from tests.measure.benches import BENCH

Cli = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("small_products")

BENCH_TOY = ("bench", "--dataset", "toy", "--steps", 2, "--workers", 0, "--quiet")
QUICK = (*BENCH_TOY, "--rounds", 1)


@dataclass(frozen=True)
class Untrained(Method):
    """Returns a network as it is."""

    def fit(self, lab: Any) -> Any:
        return lab.model()


def test_a_method_that_trains_nothing_is_an_error(debiasbench: Cli) -> None:
    result = debiasbench(*QUICK, "--method", "untrained", extra=(offering(untrained=Untrained),))
    assert result.exit_code == 2
    assert "Method untrained trains no stage" in result.stderr


@dataclass(frozen=True)
class Rows(Dataset):
    """Vectors of five numbers."""

    training = {"epochs": 1, "batch_size": 8}  # noqa: RUF012 - as plugins write it
    model = "mlp"

    def load(self, root: Path) -> Task:
        rng = torch.Generator().manual_seed(0)

        def split(n: int) -> Split:
            y = torch.arange(n) % 2
            return Split(torch.rand(n, 5, generator=rng), y, (torch.arange(n) // 2) % 2, 2)

        names = ("a", "b")
        return Task(split(40), split(8), split(8), names, names, torch.eye(2, dtype=torch.bool))


class RowsPlugin:
    """Offers them."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("rows", Rows)


def test_vectors_have_no_data_loader_and_a_note_says_so(debiasbench: Cli) -> None:
    words = ("bench", "--dataset", "rows", "--steps", 2, "--rounds", 1)
    result = debiasbench(*words, extra=(RowsPlugin(),))
    assert result.exit_code == 0, result.output
    assert "bare loop" in result.stdout
    assert result.stdout.splitlines()[-1] == (
        "No DataLoader: samples are not 8-bit images of one or three channels."
    )
    assert not is_image(Rows().load(Path()))


def test_the_table_by_its_exact_words() -> None:
    assert (
        report(BENCH)
        == """\
mlp on toy with erm, sparse by static: batches of 50, fp32; torch 2.7.0, Python 3.11.7, abacus

Training, medians of 3 rounds with 4 steps each.
The ratio is the speed of debiasbench divided by the speed of the other loop.
               images/s    ms/step    ratio    min to max    peak MB
-----------  ----------  ---------  -------  ------------  ---------
debiasbench         100     500.00                                 3
bare loop           100     500.00    1.000  0.50 to 1.50          2
DataLoader           50    1000.00    2.000  1.00 to 4.00          2
In addition, debiasbench took 500 ms for 3 warm-up steps, and the start and the end of the stage.

Evaluation of 100 test images:
               images/s    ratio    min to max
-----------  ----------  -------  ------------
debiasbench         200
bare loop           400    0.500  0.50 to 2.00

Mean time of the parts of a step, with a wait for the device after each part:
                ms      %
---------  -------  -----
data        200.00   20.0
forward     200.00   20.0
backward    400.00   40.0
optimizer   100.00   10.0
sparsity    100.00   10.0
step       1000.00  100.0

A step has 3 GFLOP, so debiasbench reaches 6.0 GFLOP/s. This is 75.0 % of
8.0 GFLOP/s, the speed of fp32 products of 1000 x 1000 matrices.

A note."""
    )


def test_the_table_holds_what_the_json_holds(debiasbench: Cli) -> None:
    words = ("--sparse", "static:density=0.5", "--set", "train.lr=0.01", "--batch-size", 20)
    result = debiasbench(*BENCH_TOY, "--rounds", 3, *words, "--json", "found.json")
    assert result.exit_code == 0, result.output
    data = json.loads(Path("found.json").read_text())
    assert result.stdout == report(Bench(**data)) + "\n"
    seconds = zip(data["training"]["engine"], data["training"]["bare"], strict=True)
    ratios = sorted(bare / engine for engine, bare in seconds)
    assert len(ratios) == 3
    shown = next(line for line in result.stdout.splitlines() if "bare loop" in line).split()
    assert shown[4:] == [f"{median(ratios):.3f}", f"{ratios[0]:.2f}", "to", f"{ratios[2]:.2f}"]
    assert data["batch_size"] == 20
    assert data["spec"]["method"]["name"] == "erm"  # the first of all methods
    assert data["spec"]["sparse"]["options"]["density"] == 0.5
    assert data["spec"]["training"]["lr"] == 0.01


def test_a_dash_prints_json_alone(debiasbench: Cli) -> None:
    result = debiasbench(*QUICK, "--json", "-")
    assert result.exit_code == 0, result.output
    assert Bench(**json.loads(result.stdout)).stage == "train"
    assert result.stderr == ""


def test_an_unknown_method_is_the_usual_error(debiasbench: Cli) -> None:
    result = debiasbench(*QUICK, "--method", "groupdr")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: Unknown method 'groupdr'. Did you mean 'groupdro'? ")


def test_a_file_that_cannot_be_written_is_an_error_before_anything_is_measured(
    debiasbench: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "bench", None)  # not to be called
    result = debiasbench(*QUICK, "--json", "nowhere/found.json")
    assert result.exit_code == 2
    assert "--json nowhere/found.json: the folder nowhere does not exist" in result.stderr
