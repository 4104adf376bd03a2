"""`debiasbench compare`: the runs that are left, and the leaderboard of exactly these runs."""

from __future__ import annotations

import csv
import io
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from debiasbench import Method
from debiasbench.files.importing import import_data
from debiasbench.records.store import Store, read
from tests.cli.calls import only, records
from tests.conftest import offering
from tests.failing import Diverges, Raises
from tests.files.importing.birds import birds_in

Cli = Callable[..., Result]

FAST = ("--dataset", "toy", "--model", "mlp", "--epochs", 1, "--device", "cpu")


def compare(debiasbench: Cli, *words: object, extra: tuple[object, ...] = ()) -> Result:
    return debiasbench("compare", *words, *FAST, "--quiet", extra=extra)


def names(table: str) -> list[str]:
    """Return the method column of a Markdown table, without the lines between sections."""
    cells = [line.split("|") for line in table.splitlines() if line.startswith("|")]
    first = [row[1].strip().strip("*") for row in cells[2:] if row[2].strip()]
    return sorted(first)


def test_each_method_is_run_with_each_seed_and_the_table_has_exactly_these(
    debiasbench: Cli,
) -> None:
    debiasbench("run", "--method", "lff", *FAST)  # in the same folder, and not in the table
    result = compare(debiasbench, "erm", "upweight")
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert [line.split("  ")[:2] for line in lines[:-1]] == [
        [f"{n}/6", f"{method} seed={seed}"]
        for n, (method, seed) in enumerate(
            [(method, seed) for method in ("erm", "upweight") for seed in (0, 1, 2)], 1
        )
    ]
    assert lines[-1] == "6 runs: 6 trained, 0 already done"
    assert names(result.stdout) == ["erm", "upweight"]
    assert len(records()) == 7


def test_the_second_call_trains_nothing_and_prints_the_same(debiasbench: Cli) -> None:
    first = compare(debiasbench, "erm", "upweight", "--seeds", "0-1")
    times = {path: path.stat().st_mtime_ns for path in records()}
    second = compare(debiasbench, "erm", "upweight", "--seeds", "0-1")
    assert second.stderr == "4 runs: 0 trained, 4 already done\n"
    assert second.stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in records()} == times
    more = compare(debiasbench, "erm", "upweight", "--seeds", "0-2")
    assert more.stderr.splitlines()[-1] == "6 runs: 2 trained, 4 already done"
    again = compare(debiasbench, "erm", "--seeds", "0", "--overwrite", "always")
    assert again.stderr.splitlines()[-1] == "1 run: 1 trained, 0 already done"


def test_several_values_of_one_methods_option_leave_the_other_alone(debiasbench: Cli) -> None:
    words = ("upweight", "rest", "--seeds", 0, "--set", "rest.density=0.1,0.3")
    result = compare(debiasbench, *words)
    heads = [line.split("  ")[1] for line in result.stderr.splitlines()[:-1]]
    assert heads == ["upweight seed=0", "rest density=0.1 seed=0", "rest density=0.3 seed=0"]
    assert names(result.stdout) == ["rest (density=0.1)", "rest (density=0.3)", "upweight"]
    (upweight,) = (read(path) for path in Path("results").glob("toy-upweight-*.json"))
    debiasbench("run", "--method", "upweight", *FAST, "--results", "plain")
    (plain,) = records("plain")
    assert read(plain).id == upweight.id


def test_a_setting_without_a_method_goes_to_all_that_have_it(debiasbench: Cli) -> None:
    words = ("erm", "upweight", "rest", "--seeds", 0, "--set", "weight=5,10")
    result = compare(debiasbench, *words, "--set", "train.lr=0.01")
    assert result.stderr.splitlines()[-1] == "5 runs: 5 trained, 0 already done"
    assert {read(path).spec.training["lr"] for path in records()} == {0.01}


def test_a_sparsifier_is_named_with_its_options(debiasbench: Cli) -> None:
    result = compare(debiasbench, "erm", "--seeds", 0, "--sparse", "rigl:density=0.2")
    assert names(result.stdout) == ["erm + rigl"]
    (path,) = records()
    sparse = read(path).spec.sparse
    assert sparse is not None
    assert sparse.options["density"] == 0.2
    words = ("erm", "--seeds", 0, "--sparse", "rigl", "--set", "sparse.density=0.2,0.4")
    assert "2 runs: 1 trained, 1 already done" in compare(debiasbench, *words).stderr


def test_failing_methods_are_named_the_others_are_compared_and_the_first_code_is_returned(
    debiasbench: Cli,
) -> None:
    extra = (offering(diverges=Diverges, raises=Raises),)
    result = compare(debiasbench, "diverges", "erm", "raises", "--seeds", 0, extra=extra)
    assert result.exit_code == 6  # of the first
    first, _, third, summary = result.stderr.splitlines()
    assert first.startswith("1/3  diverges seed=0  failed: The loss of stage 'second' became NaN")
    assert third.startswith("3/3  raises seed=0  failed: method 'raises' of acme 1.0 raised Index")
    assert summary == "3 runs: 1 trained, 0 already done, 2 failed"
    assert names(result.stdout) == ["diverges", "erm"]
    assert "diverges: seed 0 does not count: NonFiniteLoss at step 2" in result.stdout
    alone = compare(debiasbench, "raises", "--seeds", 0, extra=extra)
    assert (alone.exit_code, alone.stdout) == (3, "")
    debugged = compare(debiasbench, "raises", "--seeds", 0, "--debug", extra=extra)
    assert "Traceback (most recent call last)" in debugged.stderr


@dataclass(frozen=True)
class Impatient(Method):
    """Is interrupted for seed 1 while a file exists."""

    def fit(self, lab: Any) -> Any:
        if Path("waiting").exists() and lab.seed == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return lab.train(lab.model(), name="train")


def test_an_interrupted_comparison_continues_with_the_same_command(debiasbench: Cli) -> None:
    extra = (offering(impatient=Impatient),)
    Path("waiting").touch()
    result = compare(debiasbench, "impatient", extra=extra)
    assert (result.exit_code, result.stdout) == (75, "")
    assert result.stderr.splitlines()[-1] == (
        "Interrupted. The records of finished runs are stored, and the same command continues the "
        "others. "
        "3 runs: 1 trained, 0 already done, 2 left"
    )
    Path("waiting").unlink()
    again = compare(debiasbench, "impatient", extra=extra)
    assert again.stderr.splitlines()[-1] == "3 runs: 2 trained, 1 already done"
    assert names(again.stdout) == ["impatient"]


def test_a_run_of_another_process_is_passed_over(debiasbench: Cli) -> None:
    compare(debiasbench, "erm", "--seeds", "0-1")
    taken = records()[0]
    spec = read(taken).spec
    taken.unlink()
    with Store(Path("results")).claim(spec):
        result = compare(debiasbench, "erm", "--seeds", "0-1")
    assert result.exit_code == 0, result.output
    assert "2 runs: 0 trained, 1 already done, 1 " in result.stderr.splitlines()[-1]
    assert names(result.stdout) == ["erm"]


def test_imported_data_are_compared_by_their_short_name(debiasbench: Cli, tmp_path: Path) -> None:
    import_data("birds", birds_in(tmp_path), Path("data"))
    words = ("--dataset", "birds", "--model", "mlp", "--epochs", 1, "--device", "cpu")
    result = debiasbench("compare", "erm", "--seeds", 0, *words)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("### imported:birds")


def test_a_batch_that_is_fitted_to_memory_is_the_record_of_the_whole(debiasbench: Cli) -> None:
    for trained, done in ((1, 0), (0, 1)):
        result = compare(debiasbench, "erm", "--seeds", 0, "--batch-size", "auto")
        assert result.exit_code == 0, result.output
        summary = f"1 run: {trained} trained, {done} already done"
        assert result.stderr.splitlines()[-1] == summary
        assert names(result.stdout) == ["erm"]
    whole = compare(debiasbench, "erm", "--seeds", 0)
    assert whole.stderr == "1 run: 0 trained, 1 already done\n"


def test_the_table_takes_metric_rule_baseline_and_format(debiasbench: Cli) -> None:
    words = ("erm", "upweight", "--seeds", "0-1", "--metric", "conflict", "--select", "last")
    table = compare(debiasbench, *words, "--baseline", "erm").stdout
    header = [cell.strip() for cell in table.splitlines()[2].split("|")[1:6]]
    assert header == ["method", "conflict %", "95 % interval", "seeds", "minus erm, points"]
    assert "after the last epoch" in table
    text = compare(debiasbench, *words, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert sorted((row["method"], row["metric"], row["select"]) for row in rows) == [
        ("erm", "conflict", "last"),
        ("upweight", "conflict", "last"),
    ]


def test_the_leaderboard_can_be_a_page_of_exactly_these_runs(debiasbench: Cli) -> None:
    compare(debiasbench, "lff", "--seeds", 0)
    words = ("erm", "upweight", "--seeds", "0-1", "--baseline", "erm", "--page", "out.html")
    result = compare(debiasbench, *words, "--format", "csv")
    assert result.exit_code == 0, result.output
    assert "out.html: from 4 records" in result.stderr
    assert len(list(csv.DictReader(io.StringIO(result.stdout)))) == 2
    page = Path("out.html").read_text()
    assert "upweight" in page
    assert "lff" not in page


def test_the_baseline_may_be_written_as_the_method_was(debiasbench: Cli) -> None:
    words = ("debiasbench:erm", "upweight", "--seeds", "0-1", "--baseline", "debiasbench:erm")
    result = compare(debiasbench, *words)
    assert result.exit_code == 0, result.stderr
    assert "minus erm, points" in result.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("erm", "rset"), "Unknown method 'rset'. Did you mean 'rest'?"),
        (("erm", "erm"), "A method is named twice: erm, erm"),
        (("erm", "--seeds", "2-0"), "Seeds '2-0': the last seed of the range 2-0 is less than"),
        (("erm", "--seeds", "0,"), "'' is not a whole number from 0"),
        (("erm", "--seeds", "1,1"), "Seeds '1,1': 1 is given 2 times"),
        (("erm", "--model", "mpl"), "Did you mean 'mlp'?"),
        (("erm", "--dataset", "tooy"), "Did you mean 'toy'?"),
        (("erm", "--sparse", "rigel"), "Unknown sparsifier 'rigel'. Did you mean 'rigl'?"),
        (("erm", "rest", "--set", "rest.dense=1"), "no option 'dense'. Did you mean 'density'?"),
        (("erm", "--set", "lff.q=1"), "'lff.q' is not a valid name"),
        (("erm", "--set", "train.lr=1,fast"), "lr='fast': input should be a valid number"),
        (("erm", "--set", "train.lr=1,1"), "the value 1 is given 2 times"),
        (
            ("erm", "--set", "train.epochs=2"),
            "train.epochs is given twice: by --epochs",
        ),
        (("erm", "--metric", "unbaised"), "Unknown metric 'unbaised'. Did you mean 'unbiased'?"),
        (("erm", "--select", "best"), "Unknown selection rule 'best'"),
        (("erm", "--baseline", "rest (density=0.1)"), "Unknown baseline 'rest"),
        (
            ("erm", "rest", "--set", "rest.density=0.1,0.2", "--baseline", "rest"),
            "Unknown baseline 'rest'. Available: erm, rest (density=0.1), rest (density=0.2)",
        ),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_trained(
    words: tuple[str, ...], complaint: str, debiasbench: Cli
) -> None:
    own = [
        word
        for name, value in zip(FAST[::2], FAST[1::2], strict=True)
        if name not in words
        for word in (name, value)
    ]
    assert complaint in only(debiasbench("compare", *own, *words), 2)
    assert records() == []


def test_a_folder_that_cannot_be_written_ends_the_comparison_at_once(debiasbench: Cli) -> None:
    Path("file").touch()
    result = compare(debiasbench, "erm", "--results", "file/results")
    assert "Choose another folder with --results" in only(result, 7)
