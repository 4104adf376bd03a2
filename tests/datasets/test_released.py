"""The layout in which DisEnt released its data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from debiasbench.common.errors import DataError
from debiasbench.datasets._released import released_sources, token
from tests.datasets.folders import (
    empty,
    picture,
    release,
    two,
    values,
)


def test_labels_are_read_from_the_file_names(tmp_path: Path) -> None:
    task = two(release(tmp_path))
    train, val, test = (values(split) for split in task.splits().values())
    assert (train, val, test) == ([0, 10, 20, 30, 40], [50, 60], [70, 80, 90])
    assert task.train.y.tolist() == [0, 0, 1, 0, 1]
    assert task.train.bias.tolist() == [0, 0, 1, 1, 0]
    assert task.conflict(task.train).tolist() == [False, False, False, True, True]
    assert (task.metric, task.select) == ("unbiased", "val_unbiased")
    assert (task.classes, task.biases) == (("a", "b"), ("c", "d"))


@pytest.mark.parametrize(
    ("rename", "shared_valid"),
    [
        (lambda name: name.replace("conflict", "conlict"), False),
        (lambda name: name.replace("valid/", "valid/0/"), False),
        (lambda name: name.replace("1pct/valid", "valid"), True),
        (lambda name: name.replace("1pct/valid", "valid/x"), True),
        (lambda name: name.replace("test/1", "test").replace("test/0", "test"), False),
        (lambda name: name.replace(".png", ".PNG"), False),
    ],
    ids=["misspelt", "deep valid", "shared valid", "deep shared valid", "flat test", "capitals"],
)
def test_the_variants_of_the_layout_give_the_same_task(
    tmp_path: Path, rename: Callable[[str], str], shared_valid: bool
) -> None:
    usual = two(release(tmp_path / "usual"))
    other = two(release(tmp_path / "other", rename=rename), shared_valid=shared_valid)
    assert other.fingerprint() == usual.fingerprint()


def test_files_of_file_managers_are_ignored(tmp_path: Path) -> None:
    before = two(release(tmp_path)).fingerprint()
    for litter in ("1pct/align/.DS_Store", "1pct/valid/._5_0_0.png", "test/1/Thumbs.db"):
        (tmp_path / litter).write_bytes(b"\0")
    (tmp_path / "test" / ".cache").mkdir()
    assert two(tmp_path).fingerprint() == before


@pytest.mark.parametrize(
    ("ratio", "name"),
    [
        (0.005, "0.5pct"),
        (0.01, "1pct"),
        (0.015, "1.5pct"),
        (0.02, "2pct"),
        (0.05, "5pct"),
        (0.07, "7pct"),
        (0.2, "20pct"),
    ],
)
def test_the_ratio_names_the_folder(ratio: float, name: str) -> None:
    assert token(ratio) == name
    assert released_sources(Path("x"), ratio) == [Path("x", name), Path("x/test")]
    assert Path("x/valid") in released_sources(Path("x"), ratio, shared_valid=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1pct/align/0/notes.txt", "is not named <index>_<label>_<bias>.png"),
        ("1pct/align/0/3.png", "is not named"),
        ("1pct/conflict/0/3_0_x.png", "is not named"),
        ("test/0/3_0.png", "is not named"),
        ("test/0/3_0_0.gif", "is not named"),
        ("test/0/3_0_٣.png", "is not named"),  # a digit, but not one from 0 to 9
        ("1pct/valid/3_2_0.png", "has label 2, must be 0 to 1"),
        ("1pct/valid/3_0_2.png", "has bias 2, must be 0 to 1"),
        ("1pct/align/1/3_1_0.png", "does not belong under align"),
        ("1pct/conflict/1/3_1_1.png", "does not belong under conflict"),
    ],
)
def test_a_file_that_does_not_fit_the_layout_is_named(
    tmp_path: Path, name: str, message: str
) -> None:
    path = picture(release(tmp_path) / "x.png").rename(tmp_path / name)
    with pytest.raises(DataError, match=message) as error:
        two(tmp_path)
    assert str(error.value).startswith(str(path))


def test_the_first_offending_file_in_order_is_named(tmp_path: Path) -> None:
    release(tmp_path)
    for name in ("2", "10", "1"):
        (tmp_path / "1pct/align" / name).mkdir(exist_ok=True)
        (tmp_path / "1pct/align" / name / "bad.txt").touch()
    with pytest.raises(DataError, match=r"align/1/bad\.txt"):
        two(tmp_path)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    release(tmp_path)
    (tmp_path / "1pct/conflict/0/3_0_1.png").write_text("<html>")
    with pytest.raises(DataError, match=r"conflict/0/3_0_1\.png is not an image"):
        two(tmp_path)


@pytest.mark.parametrize("part", ["1pct/align", "1pct/conflict", "1pct/valid", "test"])
def test_an_empty_or_missing_part_is_named_with_advice(tmp_path: Path, part: str) -> None:
    empty(release(tmp_path) / part)
    with pytest.raises(DataError, match="contains no image") as error:
        two(tmp_path)
    assert str(error.value).startswith(str(tmp_path / part))
    (tmp_path / part).rmdir()
    with pytest.raises(DataError, match=r"is not a folder.*1pct/align, 1pct/conflict.*--data-root"):
        two(tmp_path)


def test_a_missing_ratio_is_an_error_with_the_existing_ones(tmp_path: Path) -> None:
    for name in ("5pct", "0.5pct", "tmp.pct"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        DataError, match=r"0\.5pct, 5pct\. To use 0\.5pct, add --set dataset\.ratio=0\.005"
    ):
        two(tmp_path)
    with pytest.raises(DataError, match=r"nowhere/1pct is not a folder\. Save"):
        two(tmp_path / "nowhere")


def test_both_spellings_at_once_are_refused(tmp_path: Path) -> None:
    (release(tmp_path) / "1pct/conlict").mkdir()
    with pytest.raises(DataError, match="keep one"):
        two(tmp_path)


@pytest.mark.parametrize("where", ["1pct/align/loop", "1pct/align/0/loop", "1pct/valid/loop"])
@pytest.mark.parametrize("target", ["itself", ".", ".."])
def test_a_loop_of_links_is_an_error(tmp_path: Path, where: str, target: str) -> None:
    link = release(tmp_path) / where
    link.symlink_to(link.name if target == "itself" else target)
    with pytest.raises(DataError, match=r"broken link|a folder where an image is expected"):
        two(tmp_path)


@pytest.mark.parametrize("where", ["1pct/align/0/9_0_0.png", "1pct/valid/9_0_0.png", "test/9"])
def test_a_link_to_a_place_outside_the_folder_is_refused(tmp_path: Path, where: str) -> None:
    link = release(tmp_path / "inside") / where
    outside = picture(tmp_path / "outside" / "9_0_0.png")
    link.symlink_to(outside if link.suffix else outside.parent)
    with pytest.raises(DataError, match=r"is a link to .*, outside ") as error:
        two(tmp_path / "inside")
    assert str(error.value).startswith(str(link))


@pytest.mark.parametrize("part", ["1pct", "1pct/align", "test"])
def test_a_part_outside_the_folder_is_refused(tmp_path: Path, part: str) -> None:
    where = release(tmp_path / "inside") / part
    where.rename(tmp_path / "elsewhere")
    where.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"is a link to .*, outside "):
        two(tmp_path / "inside")


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    folder = release(tmp_path / "real")
    (folder / "test/0/20_0_0.png").symlink_to(folder / "1pct/align/0/1_0_0.png")
    (tmp_path / "link").symlink_to(folder)
    assert sorted(values(two(tmp_path / "link").test)) == [10, 70, 80, 90]
