"""`debiasbench data` as a user types it: list, prepare, check, show and import."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from debiasbench.files import task_cache
from tests.datasets.mnist import write_mnist
from tests.files.test_task_cache import spoil_bit

Debiasbench = Callable[..., Result]


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    return write_mnist(tmp_path / "data")


def line(result: Result, name: str) -> str:
    return next(row for row in result.output.splitlines() if row.startswith(name))


def test_list_shows_the_state_of_each_data_set(debiasbench: Debiasbench, mnist: Path) -> None:
    before = debiasbench("data", "list")
    assert before.exit_code == 0, before.output
    assert "included" in line(before, "digits")
    assert "present" in line(before, "cmnist")
    assert "4 MB" in line(before, "cmnist")
    assert "manual download" in line(before, "bffhq")
    assert "not downloaded" in line(before, "cifar10c")
    assert debiasbench("data", "prepare", "cmnist").exit_code == 0
    assert "13 MB" in line(debiasbench("data", "list"), "cmnist")  # 5,400 images of 2,352 bytes


def test_prepare_decodes_a_data_set_and_shows_its_groups(
    debiasbench: Debiasbench, mnist: Path
) -> None:
    result = debiasbench("data", "prepare", "cmnist", "--set", "ratio=0.1")
    assert result.exit_code == 0, result.output
    assert "cmnist is ready: 3x28x28 samples" in result.output
    assert "train 200 (10 %)" in result.output
    [task] = task_cache.all_in(mnist)
    assert task.options["ratio"] == 0.1
    stamp = (task.folder / "train-x.npy").stat().st_mtime_ns
    assert debiasbench("data", "prepare", "cmnist", "--set", "ratio=0.1").exit_code == 0
    assert (task.folder / "train-x.npy").stat().st_mtime_ns == stamp


def test_a_manual_download_is_an_error_with_the_folder(debiasbench: Debiasbench) -> None:
    result = debiasbench("data", "prepare", "bffhq")
    assert result.exit_code == 4
    assert str(Path("data", "bffhq")) in result.output


def test_check_finds_and_removes_a_damaged_data_set(debiasbench: Debiasbench, mnist: Path) -> None:
    assert "No data set is decoded" in debiasbench("data", "check").output
    debiasbench("data", "prepare", "cmnist")
    assert "intact   cmnist" in debiasbench("data", "check").output
    [task] = task_cache.all_in(mnist)
    spoil_bit(task.folder / "val-y.npy")
    result = debiasbench("data", "check", "cmnist")
    assert result.exit_code == 4
    assert "damaged  cmnist" in result.output
    assert "val-y.npy" in result.output
    assert task_cache.all_in(mnist) == []
    assert debiasbench("data", "prepare", "cmnist").exit_code == 0
    assert debiasbench("data", "check").exit_code == 0
    assert debiasbench("data", "check", "celeba").exit_code == 4


def test_a_damaged_data_set_is_reported_in_one_line_and_decoded_again(
    debiasbench: Debiasbench, mnist: Path
) -> None:
    debiasbench("data", "prepare", "cmnist")
    [task] = task_cache.all_in(mnist)
    spoil_bit(task.folder / "train-x.npy")
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
    ("words", "code", "message"),
    [
        (("show", "digit"), 2, "Did you mean 'digits'"),
        (("show", "digits", "--set", "ration=1"), 2, "no option 'ration'. Did you mean 'ratio'"),
        (
            ("show", "digits", "--set", "ratio"),
            2,
            "write NAME=VALUE. Valid names are the options of the dataset",
        ),
        (("prepare", "digits", "--set", "ratio=2"), 2, "ratio='2'"),
    ],
)
def test_typing_errors_are_named(
    debiasbench: Debiasbench, words: tuple[str, ...], code: int, message: str
) -> None:
    result = debiasbench("data", *words)
    assert result.exit_code == code
    assert message in result.output


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Write a table and a folder of images: squares and stripes on two backgrounds."""
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


TABLE = ("--table", "own.csv", "--label", "label", "--bias", "ground")
IMPORT = ("data", "import", "shapes", "--images", "images", *TABLE)
QUICK = ("--method", "erm", "--model", "mlp", "--epochs", "1", "--quiet")
RUN = ("run", "--dataset", "shapes", *QUICK)


def test_an_imported_data_set_runs_by_its_name(debiasbench: Debiasbench, own: Path) -> None:
    result = debiasbench(*IMPORT)
    assert result.exit_code == 0, result.output
    assert "shapes" in debiasbench("data", "list").output
    assert "intact   shapes" in debiasbench("data", "check", "shapes").output
    assert debiasbench("data", "show", "shapes").exit_code == 0
    ran = debiasbench(*RUN)
    assert ran.exit_code == 0, ran.output
    [record] = (own / "results").glob("*.json")
    spec = json.loads(record.read_text())["spec"]
    assert spec["dataset"]["name"] == "imported:shapes"
    assert spec["dataset"]["options"]["digest"]
    full = debiasbench(*("imported:shapes" if word == "shapes" else word for word in RUN))
    assert "Already done" in full.output


def test_other_data_of_the_same_name_are_another_spec(debiasbench: Debiasbench, own: Path) -> None:
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
    assert again.exit_code == 4  # the data of the record were replaced
