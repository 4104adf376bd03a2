"""`debiasbench data` as a user types it: list, prepare, check, show, import and remove."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from PIL import Image

from debiasbench import Dataset, Split, Task, hookimpl, option
from debiasbench.common.errors import DataError
from debiasbench.files import task_cache
from tests.datasets.corpora import civilcomments, multinli, nli_rows, released_split
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


def test_a_data_set_that_does_not_load_leaves_the_list_whole(debiasbench: Debiasbench) -> None:
    class Broken:
        @hookimpl
        def debiasbench_register_datasets(self, register: Any) -> None:
            register("broken", "debiasbench.datasets.digits:Missing")

    result = debiasbench("data", "list", extra=(Broken(),))
    assert result.exit_code == 0, result.output
    assert "Missing" in result.stderr
    assert "included" in line(result, "digits")


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


@pytest.mark.parametrize("name", ["cmnist", "cifar10c"])
def test_nothing_is_downloaded_that_the_options_do_not_read(
    name: str, debiasbench: Debiasbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download was begun")

    monkeypatch.setattr("debiasbench.files.download.fetch", refuse)
    result = debiasbench("data", "prepare", name, "--set", "variant=released")
    assert result.exit_code == DataError("").exit_code, result.output
    assert "Save the released folder as" in result.stderr


@pytest.mark.parametrize("name", ["cmnist", "cifar10c", "waterbirds", "multinli"])
def test_what_is_missing_is_downloaded(
    name: str, debiasbench: Debiasbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []
    monkeypatch.setattr("debiasbench.files.download.fetch", lambda *of, **_: begun.append(of))
    debiasbench("data", "prepare", name)
    assert len(begun) == 1


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


def test_an_imported_data_set_is_shown_listed_and_suggested(
    debiasbench: Debiasbench, own: Path
) -> None:
    debiasbench(*IMPORT)
    shown = debiasbench("show", "shapes")
    assert shown.exit_code == 0, shown.output
    for text in ("dataset shapes  (imported)", "3x12x12", "Bias column: ground", "* bias-aligned"):
        assert text in shown.stdout
    assert debiasbench("show", "imported:shapes").stdout == shown.stdout
    assert line(debiasbench("list", "datasets"), "shapes").split()[1] == "imported"
    for words in (("show", "shape"), ("data", "show", "shape"), (*RUN[:2], "shape", *RUN[3:])):
        misspelt = debiasbench(*words)
        assert misspelt.exit_code == 2, misspelt.output
        assert "Did you mean 'shapes'" in misspelt.stderr
    gone = debiasbench("show", "imported:shape")
    assert gone.exit_code == 4
    assert "Did you mean 'shapes'?" in gone.stderr


def test_the_leaderboard_takes_the_short_name_of_an_imported_data_set(
    debiasbench: Debiasbench, own: Path
) -> None:
    debiasbench(*IMPORT)
    debiasbench(*RUN)
    tables = {
        name: debiasbench("leaderboard", "results", "--dataset", name)
        for name in ("shapes", "imported:shapes", "shape")
    }
    assert tables["shapes"].exit_code == 0, tables["shapes"].output
    assert tables["shapes"].stdout == tables["imported:shapes"].stdout != ""
    assert tables["shape"].exit_code == 2
    assert "Did you mean 'shapes'?" in tables["shape"].stderr


@pytest.mark.parametrize("command", [("run", "--method", "erm"), ("compare", "erm"), ("bench",)])
def test_an_empty_name_of_a_data_set_is_an_error(
    debiasbench: Debiasbench, command: tuple[str, ...]
) -> None:
    result = debiasbench(*command, "--dataset", "")
    assert result.exit_code == 2
    assert "--dataset is empty" in result.stderr


def test_an_imported_data_set_is_removed_after_a_confirmation(
    debiasbench: Debiasbench, own: Path
) -> None:
    debiasbench(*IMPORT)
    asked = debiasbench("data", "remove", "shapes")
    assert asked.exit_code == 2
    assert "no terminal to ask. Add --yes" in asked.stderr
    assert (own / "data" / "imported" / "shapes").is_dir()
    removed = debiasbench("data", "remove", "shapes", "--yes")
    assert removed.exit_code == 0, removed.output
    assert removed.stdout == f"Removed {Path('data', 'imported', 'shapes')}\n"
    assert (own / "images" / "0.png").is_file()
    again = debiasbench("data", "remove", "shapes", "--yes")
    assert again.exit_code == 4
    assert "No data set 'shapes' is imported under data" in again.stderr
    assert debiasbench("data", "remove", "digits", "--yes").exit_code == 4


def test_a_balanced_test_split_says_how_many_images_are_left_out(
    debiasbench: Debiasbench, own: Path
) -> None:
    result = debiasbench(*IMPORT, "--balance-test")
    assert result.exit_code == 0, result.output
    assert "of each group. Left out of larger groups: " in result.stdout


@pytest.mark.parametrize(
    "words",
    [("list",), ("check",), ("prepare", "celeba"), ("show", "bffhq"), ("remove", "x")],
)
def test_a_data_root_that_cannot_exist_is_one_line(
    debiasbench: Debiasbench, words: tuple[str, ...]
) -> None:
    result = debiasbench("data", *words, "--data-root", "d" * 5000)
    assert result.exit_code == 4
    assert len(result.stderr) < 1000


@dataclass(frozen=True)
class Numbers(Dataset):
    """Numbers or named tensors, not images."""

    named: bool = option(False, "two tensors by name")

    def load(self, root: Path) -> Task:
        labels = torch.arange(40) % 2
        x = torch.zeros(40, 5)
        inputs = {"ids": x.long(), "mask": x.bool()} if self.named else x
        split = Split(inputs, labels, torch.arange(40) // 2 % 2, num_biases=2)
        eye = torch.eye(2, dtype=torch.bool)
        return Task(split, split, split, ("no", "yes"), ("here", "there"), eye)


class NumbersPlugin:
    """Offers the numbers."""

    @hookimpl
    def debiasbench_register_datasets(self, register: Callable[..., None]) -> None:
        register("numbers", Numbers)


@pytest.mark.parametrize(
    ("named", "samples"),
    [("false", "5 samples"), ("true", "samples with ids 5, mask 5")],
)
def test_show_prints_the_groups_of_data_that_are_not_images(
    debiasbench: Debiasbench, tmp_path: Path, named: str, samples: str
) -> None:
    def call(*words: str) -> Result:
        return debiasbench("data", *words, "--set", f"named={named}", extra=(NumbersPlugin(),))

    shown = call("show", "numbers")
    assert shown.exit_code == 0, shown.output
    assert "* bias-aligned; samples (conflicting): train 40 (50 %)" in shown.stdout
    assert f"No contact sheet: {samples} are not images" in shown.stdout
    drawn = call("show", "numbers", "--out", "sheet.png")
    assert drawn.exit_code == 4
    assert "* bias-aligned" in drawn.stdout
    assert not (tmp_path / "sheet.png").exists()
    assert f"numbers is ready: {samples}\n" in call("prepare", "numbers").stdout


def test_multinli_is_prepared_checked_and_shown(debiasbench: Debiasbench, tmp_path: Path) -> None:
    rows = nli_rows()
    folder = multinli(tmp_path / "data", rows)
    result = debiasbench("data", "prepare", "multinli")
    assert result.exit_code == 0, result.output
    assert "multinli is ready: pairs of texts" in result.output
    assert "split=seeded" in result.output
    assert "present" in line(debiasbench("data", "list"), "multinli")
    assert "intact   multinli" in debiasbench("data", "check").output
    released_split(folder, rows)
    result = debiasbench("data", "prepare", "multinli")
    assert "split=seeded" not in result.output
    assert {task.options["split"] for task in task_cache.all_in(tmp_path / "data")} == {
        "released",
        "seeded",
    }
    shown = debiasbench("data", "show", "multinli", "--split", "test")
    assert shown.exit_code == 0, shown.output
    assert "contradiction" in shown.output
    assert "1: Sentence" in shown.output
    assert "2: They know nothing" in shown.output
    assert not list(tmp_path.glob("*.html"))
    page = debiasbench("data", "show", "multinli", "--out", "page.html")
    assert page.exit_code == 0, page.output
    assert "They know nothing" in Path("page.html").read_text("utf-8")
    wrong = debiasbench("data", "show", "multinli", "--out", "page.png")
    assert wrong.exit_code == 2
    assert "use FILE.html" in wrong.output


def test_an_identity_of_civilcomments_is_chosen_by_an_option(
    debiasbench: Debiasbench, tmp_path: Path
) -> None:
    missing = debiasbench("data", "prepare", "civilcomments")
    assert missing.exit_code == 4
    assert "all_data_with_identities.csv is missing" in missing.output
    civilcomments(tmp_path / "data")
    result = debiasbench("data", "prepare", "civilcomments", "--set", "bias=LGBTQ")
    assert result.exit_code == 0, result.output
    assert "LGBTQ=1" in result.output
    wrong = debiasbench("data", "prepare", "civilcomments", "--set", "bias=lgbt")
    assert wrong.exit_code == 2
    assert "'LGBTQ'" in wrong.output
