"""`debiasbench data` as a user types it: what is there, made ready, checked, looked at."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from debiasbench.files import task_cache
from tests.datasets.test_datasets import write_mnist
from tests.files.test_task_cache import spoil_bit

Debiasbench = Callable[..., Result]


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    return write_mnist(tmp_path / "data")


def line(result: Result, name: str) -> str:
    return next(row for row in result.output.splitlines() if row.startswith(name))


def test_list_says_of_each_data_set_whether_it_is_there(
    debiasbench: Debiasbench, mnist: Path
) -> None:
    before = debiasbench("data", "list")
    assert before.exit_code == 0, before.output
    assert "carried along" in line(before, "digits")
    assert "there" in line(before, "cmnist")
    assert "4 MB" in line(before, "cmnist")
    assert "missing" in line(before, "bffhq")
    assert "to be fetched" in line(before, "cifar10c")
    assert debiasbench("data", "prepare", "cmnist").exit_code == 0
    assert "13 MB" in line(debiasbench("data", "list"), "cmnist")  # 5,400 images of 2,352 bytes


def test_prepare_makes_a_data_set_ready_and_shows_its_groups(
    debiasbench: Debiasbench, mnist: Path
) -> None:
    result = debiasbench("data", "prepare", "cmnist", "--set", "ratio=0.1")
    assert result.exit_code == 0, result.output
    assert "cmnist is ready: 3x28x28 samples" in result.output
    assert "train 200 (10 %)" in result.output
    [made] = task_cache.all_in(mnist)
    assert made.options["ratio"] == 0.1
    stamp = (made.folder / "train-x.npy").stat().st_mtime_ns
    assert debiasbench("data", "prepare", "cmnist", "--set", "ratio=0.1").exit_code == 0
    assert (made.folder / "train-x.npy").stat().st_mtime_ns == stamp


def test_what_may_not_be_fetched_is_said_with_where_to_put_it(debiasbench: Debiasbench) -> None:
    result = debiasbench("data", "prepare", "bffhq")
    assert result.exit_code == 4
    assert str(Path("data", "bffhq")) in result.output


def test_check_finds_damage_and_what_it_removes_is_made_again(
    debiasbench: Debiasbench, mnist: Path
) -> None:
    assert "Nothing is decoded" in debiasbench("data", "check").output
    debiasbench("data", "prepare", "cmnist")
    assert "sound    cmnist" in debiasbench("data", "check").output
    [made] = task_cache.all_in(mnist)
    spoil_bit(made.folder / "val-y.npy")
    result = debiasbench("data", "check", "cmnist")
    assert result.exit_code == 4
    assert "damaged  cmnist" in result.output
    assert "val-y.npy" in result.output
    assert task_cache.all_in(mnist) == []
    assert debiasbench("data", "prepare", "cmnist").exit_code == 0
    assert debiasbench("data", "check").exit_code == 0
    assert debiasbench("data", "check", "celeba").exit_code == 4


def test_a_damaged_cache_is_told_in_one_line_and_made_again(
    debiasbench: Debiasbench, mnist: Path
) -> None:
    debiasbench("data", "prepare", "cmnist")
    [made] = task_cache.all_in(mnist)
    spoil_bit(made.folder / "train-x.npy")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = debiasbench("data", "prepare", "cmnist")
    assert result.exit_code == 0
    [warning] = [row for row in result.stderr.splitlines() if "decoded again" in row]
    assert warning.startswith("Warning: ")
    assert warning.endswith("its checksum differs. The data set is decoded again")


def test_show_draws_a_contact_sheet_and_prints_the_groups(
    debiasbench: Debiasbench, tmp_path: Path
) -> None:
    result = debiasbench("data", "show", "digits", "--set", "ratio=0.2", "--split", "val")
    assert result.exit_code == 0, result.output
    assert "Contact sheet: digits-val.png" in result.output
    with Image.open(tmp_path / "digits-val.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 800
    assert debiasbench("data", "show", "digits", "--out", "here.png").exit_code == 0
    assert (tmp_path / "here.png").is_file()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("show", "digit"), 2, "Did you mean 'digits'"),
        (("show", "digits", "--set", "ration=1"), 2, "no option 'ration'. Did you mean 'ratio'"),
        (("show", "digits", "--set", "ratio"), 2, "write OPTION=VALUE"),
        (("prepare", "digits", "--set", "ratio=2"), 2, "ratio='2'"),
    ],
)
def test_what_is_mistyped_is_named(
    debiasbench: Debiasbench, words: tuple[str, ...], code: int, says: str
) -> None:
    result = debiasbench("data", *words)
    assert result.exit_code == code
    assert says in result.output


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A table and a folder of images: squares and stripes on two grounds."""
    folder = tmp_path / "images"
    folder.mkdir()
    rows = ["file,label,ground"]
    for i in range(120):
        label, ground = i % 2, (i // 2) % 2 if i % 10 == 0 else i % 2
        picture = Image.new("RGB", (12, 12), ((40, 80, 40), (40, 40, 120))[ground])
        picture.paste((250 - i, 250, 250), (2, 2, 10, 10) if label else (2, 4, 10, 6))
        picture.save(folder / f"{i}.png")
        rows.append(f"{i}.png,{('stripe', 'square')[label]},{('grass', 'water')[ground]}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    return tmp_path


IMPORT = ("data", "import", "shapes", "--images", "images", "--table", "own.csv",
          "--label", "label", "--bias", "ground")  # fmt: skip
RUN = (
    "run",
    "--dataset",
    "shapes",
    "--method",
    "erm",
    "--model",
    "mlp",
    "--epochs",
    "1",
    "--quiet",
)


def test_an_imported_data_set_runs_by_its_name(debiasbench: Debiasbench, own: Path) -> None:
    result = debiasbench(*IMPORT)
    assert result.exit_code == 0, result.output
    assert "shapes" in debiasbench("data", "list").output
    assert "sound    shapes" in debiasbench("data", "check", "shapes").output
    assert debiasbench("data", "show", "shapes").exit_code == 0
    ran = debiasbench(*RUN)
    assert ran.exit_code == 0, ran.output
    [record] = (own / "results").glob("*.json")
    spec = json.loads(record.read_text())["spec"]
    assert spec["dataset"]["name"] == "imported:shapes"
    assert spec["dataset"]["options"]["digest"]
    full = debiasbench(*("imported:shapes" if word == "shapes" else word for word in RUN))
    assert "Already done" in full.output


def test_other_data_under_the_same_name_are_another_spec(
    debiasbench: Debiasbench, own: Path
) -> None:
    debiasbench(*IMPORT)
    debiasbench(*RUN)
    table = own / "own.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-8]))
    replaced = debiasbench(*IMPORT, "--replace")
    assert replaced.exit_code == 0, replaced.output
    [first] = (own / "results").glob("*.json")
    assert debiasbench(*RUN).exit_code == 0
    assert len(list((own / "results").glob("*.json"))) == 2
    again = debiasbench("run", "--spec", first, "--results", "elsewhere")
    assert again.exit_code == 4  # the record's data are gone
