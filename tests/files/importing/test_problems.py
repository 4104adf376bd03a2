"""Problems of rows and images, and of the data as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from debiasbench.common.errors import DataError
from debiasbench.files import images, importing
from debiasbench.files.importing import Source, import_data
from tests.files.importing.birds import (
    HEAD,
    bird_rows,
    changed,
    leftovers,
    picture,
    problems,
    split_rows,
)


def damaged(birds: Source) -> tuple[Source, list[str]]:
    """Return the birds with one row per kind of fault, and the expected messages in order."""
    base, rows = birds.images, split_rows()
    whole = (base / "000.png").read_bytes()
    (base / "text.png").write_text("not an image")
    (base / "torn.png").write_bytes(whole[: len(whole) * 2 // 3])
    (base / "empty.png").write_bytes(b"")
    (base / "folder.png").mkdir()
    (base / "loop.png").symlink_to("loop.png")
    picture(base.parent / "outside.png", (1, 2, 3))
    (base / "out.png").symlink_to(base.parent / "outside.png")
    picture(base / "large.png", (1, 2, 3), (9, 7))
    Image.new("P", (8, 8)).save(base / "palette.png")
    Image.new("RGBA", (8, 8)).save(base / "alpha.png")
    Image.new("CMYK", (8, 8)).save(base / "cmyk.jpg")
    Image.new("I;16", (8, 8)).save(base / "deep.png")
    absolute = str(base / "000.png")
    wrong = [
        (("gone.png", "land", "field", "train"), "is missing"),
        (("a\\gone.png", "land", "field", "train"), "is missing: use / between folders"),
        (("", "land", "field", "train"), "has no file name"),
        (("text.png", "land", "field", "train"), "is not an image"),
        (("torn.png", "land", "field", "train"), "is truncated or damaged"),
        (("empty.png", "land", "field", "train"), "is not an image"),
        (("folder.png", "land", "field", "train"), "is not a file"),
        (("loop.png", "land", "field", "train"), "is a symbolic link that points back to itself"),
        (("out.png", "land", "field", "train"), "is a symbolic link to a place outside "),
        (("../outside.png", "land", "field", "train"), "is outside "),
        ((absolute, "land", "field", "train"), "is an absolute path: write it relative to "),
        (("./000.png", "land", "field", "test"), "is the same file as line 2, 000.png"),
        (
            ("large.png", "land", "field", "train"),
            "is 7x9 (height x width), but others are 8x8.",
        ),
        (("palette.png", "land", "field", "train"), "has a palette. "),
        (("alpha.png", "land", "field", "train"), "has transparency. "),
        (("cmyk.jpg", "land", "field", "train"), "has CMYK colours. "),
        (("deep.png", "land", "field", "train"), "has 16 bits per channel. "),
    ]
    for i, (fields, _) in enumerate(wrong):
        rows.append(fields)
        assert len(rows) == 41 + i
    messages = [
        f"line {42 + i}, {f[0]}: {w}" if f[0] else f"line {42 + i}: {w}"
        for i, (f, w) in enumerate(wrong)
    ]
    for file in ("x.png", "y.png", "z.png", "text2.png"):
        picture(base / file, (ord(file[0]), 0, 0))
    (base / "text2.png").write_text("not an image either")
    rows += [
        ("x.png", "", "field", "train"),
        ("y.png", "land", "", "train"),
        ("z.png", "land", "field", "tset"),
        ("text2.png", "", "field", ""),
        ("w.png", "land"),  # type: ignore[list-item]
    ]
    messages += [
        "line 59, x.png: has no label (column 'species')",
        "line 60, y.png: has no bias (column 'place')",
        "line 61, z.png: has the unknown split 'tset'. Did you mean 'test'? Use train, val or test",
        "line 62, text2.png: has no label (column 'species')",
        "line 62, text2.png: has no split: use train, val or test",
        "line 62, text2.png: is not an image",
        "line 63: has 2 fields, but the header has 4",
    ]
    return changed(birds, [(*HEAD, "split"), *rows], split="split"), messages


def test_all_problems_are_listed_at_once_by_line(birds: Source, tmp_path: Path) -> None:
    source, messages = damaged(birds)
    actual = problems("birds", source, tmp_path)
    assert len(actual) == len(messages)
    for line, start in zip(actual, messages, strict=True):
        assert line.startswith(start)


def test_skipping_bad_rows_gives_the_same_data_as_without_them(
    birds: Source, tmp_path: Path
) -> None:
    assert birds.table is not None
    good = changed(birds, [(*HEAD, "split"), *split_rows()], split="split")
    clean = import_data("clean", good, tmp_path)
    source, messages = damaged(birds)
    done = import_data("birds", source, tmp_path, skip_bad=True)
    assert done.digest == clean.digest
    assert len({p.line for p in done.left_out}) == 22
    assert len([p for p in done.left_out if p.line != 62]) == len(messages) - 3


def test_images_of_other_kinds_are_converted_if_requested(birds: Source, tmp_path: Path) -> None:
    source, _ = damaged(birds)
    kinds = ("palette.png", "alpha.png", "cmyk.jpg", "deep.png")
    rows = [*bird_rows(), *((file, "land", "field") for file in kinds)]
    source = changed(birds, [HEAD, *rows])
    assert all("(--convert)" in line for line in problems("birds", source, tmp_path))
    done = import_data("birds", replace(source, convert=True), tmp_path)
    assert sum(len(s) for s in done.task.splits().values()) == 44


def test_the_most_frequent_size_is_expected(birds: Source, tmp_path: Path) -> None:
    picture(birds.images / "000.png", (1, 2, 3), (30, 20))
    assert problems("birds", birds, tmp_path) == [
        "line 2, 000.png: is 20x30 (height x width), but others are 8x8. "
        "Use --size 8x8 to scale all images"
    ]


def test_every_image_is_listed_if_every_image_is_bad(birds: Source, tmp_path: Path) -> None:
    for file in birds.images.iterdir():
        file.write_text("not an image")
    assert len(problems("birds", birds, tmp_path)) == 40
    with pytest.raises(DataError, match="Class 'land' has no image left"):
        import_data("birds", birds, tmp_path, skip_bad=True)


def test_a_class_without_any_image_left_is_an_error(birds: Source, tmp_path: Path) -> None:
    source = changed(birds, [HEAD, *bird_rows(), ("gone.png", "sea", "lake")])
    with pytest.raises(DataError, match="Class 'sea' has no image left"):
        import_data("birds", source, tmp_path, skip_bad=True)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: (r[0], "land", r[2]), "only one class, 'land' \\(species\\)"),
        (lambda r: (r[0], r[1], "sky"), "only one bias value, 'sky' \\(place\\)"),
        (lambda r: (r[0], r[1], r[1]), "All images are bias-aligned"),
        (lambda r: (r[0], r[0], r[2]), "val split has no image: there are too few images"),
    ],
)
def test_data_without_a_task_are_refused_before_images_are_read(
    change: Callable[[tuple[str, ...]], tuple[str, ...]],
    message: str,
    birds: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "decode", None)
    source = changed(birds, [HEAD, *map(change, bird_rows())])
    with pytest.raises(DataError, match=message):
        import_data("birds", source, tmp_path)


def test_a_class_without_training_images_is_refused(birds: Source, tmp_path: Path) -> None:
    rows = [r if r[1] == "land" or r[3] != "train" else (*r[:3], "test") for r in split_rows()]
    with pytest.raises(DataError, match="Class 'water' has no training image"):
        import_data("b", changed(birds, [(*HEAD, "s"), *rows], split="s"), tmp_path)


def test_too_many_groups_are_refused(
    birds: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing.groups, "MOST_GROUPS", 3)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"2 classes \(species\) and 2 bias values \(place\)"):
        import_data("birds", birds, tmp_path)
