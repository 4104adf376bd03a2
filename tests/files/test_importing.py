"""Your own images as a data set: what is read, what is refused, and what a crash leaves."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from debiasbench.cli.data_import import import_
from debiasbench.common.errors import BusyError, DataError, DebiasbenchError, OptionError
from debiasbench.datasets.imported import Imported
from debiasbench.files import images, importing, task_folder
from debiasbench.files.importing import BadRows, Finished, Source, import_data, place
from debiasbench.runs.run import run
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from tests.conftest import ACME, ToyPlugin

HEAD = ("img", "species", "place")
LABELS, PLACES = ("land", "water"), ("field", "lake")


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def write(table: Path, rows: Sequence[Sequence[object]]) -> Path:
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t" if table.suffix == ".tsv" else ",").writerows(rows)
    return table


def bird_rows(count: int = 40) -> list[tuple[str, str, str]]:
    """Rows of as many land as water birds; every fifth is in the wrong place."""
    rows = []
    for i in range(count):
        y = i % 2
        rows.append((f"{i:03}.png", LABELS[y], PLACES[y if i % 5 else 1 - y]))
    return rows


@pytest.fixture
def birds(tmp_path: Path) -> Source:
    """Forty images of 8x8 pixels, no two alike, in a folder, and a table of them."""
    rows = bird_rows()
    for i, (file, *_) in enumerate(rows):
        picture(tmp_path / "birds" / file, (5 * i, 100, i))
    table = write(tmp_path / "birds.csv", [HEAD, *rows])
    return Source(tmp_path / "birds", table, "species", ("place",))


def changed(source: Source, rows: Sequence[Sequence[object]], **more: Any) -> Source:
    """The same source with another table."""
    assert source.table is not None
    return replace(source, table=write(source.table, rows), **more)


def split_rows(count: int = 40) -> list[tuple[str, ...]]:
    """The rows of the birds, with a split each."""
    names = ("train", "train", "val", "test")
    return [(*row, names[i // 10 % 4]) for i, row in enumerate(bird_rows(count))]


def problems(name: str, source: Source, root: Path) -> list[str]:
    with pytest.raises(BadRows) as caught:
        import_data(name, source, root)
    assert importing.names(root) == []
    return [str(problem) for problem in caught.value.problems]


def pixels(done: Finished) -> list[int]:
    """The red of every image, by split."""
    return torch.cat([s.x[:, 0, 0, 0] for s in done.task.splits().values()]).tolist()


def leftovers(root: Path) -> list[str]:
    return sorted(p.name for p in (root / "imported").iterdir() if p.name != ".locks")


# What comes in -----------------------------------------------------------------------------------


def test_the_data_set_is_what_the_table_and_the_files_say(birds: Source, tmp_path: Path) -> None:
    rows = split_rows()
    source = changed(birds, [(*HEAD, "split"), *rows], split="split")
    done = import_data("birds", source, tmp_path)
    task = Imported(name="birds", digest=done.digest).load(tmp_path)
    assert (task.classes, task.biases) == (LABELS, PLACES)
    for name, split in task.splits().items():
        own = [row for row in rows if row[3] == name]
        assert [LABELS[y] for y in split.y] == [row[1] for row in own]
        assert [PLACES[b] for b in split.bias] == [row[2] for row in own]
        for x, row in zip(split.x, own, strict=True):
            with Image.open(birds.images / row[0]) as image:
                assert np.array_equal(x.permute(1, 2, 0), np.asarray(image))


def test_equal_input_gives_an_equal_digest_and_another_label_another(
    birds: Source, tmp_path: Path
) -> None:
    first = import_data("a", birds, tmp_path)
    assert import_data("b", birds, tmp_path).digest == first.digest
    rows = bird_rows()
    other = changed(birds, [HEAD, (rows[0][0], "water", rows[0][2]), *rows[1:]])
    assert import_data("c", other, tmp_path).digest != first.digest


def test_the_images_are_not_needed_afterwards(birds: Source, tmp_path: Path) -> None:
    import_data("birds", birds, tmp_path)
    shutil.rmtree(birds.images)
    assert len(Imported(name="birds").load(tmp_path).train) == 26


def test_a_tree_of_classes_and_biases_is_the_same_data(birds: Source, tmp_path: Path) -> None:
    for file, label, where in bird_rows():
        target = tmp_path / "tree" / label / where / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(birds.images / file, target)
    (tmp_path / "tree" / "README.md").write_text("mine")
    (tmp_path / "tree" / "land" / "field" / ".DS_Store").write_text("mine")
    done = import_data("tree", Source(tmp_path / "tree"), tmp_path)
    assert (done.task.classes, done.task.biases) == (LABELS, PLACES)
    table = import_data("table", birds, tmp_path)
    assert sorted(pixels(done)) == sorted(pixels(table))
    for name, split in done.task.splits().items():
        assert torch.equal(
            done.task.group_counts(split), table.task.group_counts(table.task.splits()[name])
        )


def test_a_tree_may_have_splits_at_its_top(birds: Source, tmp_path: Path) -> None:
    folders = {"train": "Train", "val": "validation", "test": "TEST"}
    for file, label, where, split in split_rows():
        target = tmp_path / "tree" / folders[split] / label / where / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(birds.images / file, target)
    done = import_data("tree", Source(tmp_path / "tree"), tmp_path)
    assert [len(s) for s in done.task.splits().values()] == [20, 10, 10]
    stray = picture(tmp_path / "tree" / "Train" / "land" / "x.png", (1, 1, 1))
    inside = tmp_path / "tree" / "TEST" / "land" / "there"
    inside.symlink_to(tmp_path / "birds")
    assert problems("two", Source(tmp_path / "tree"), tmp_path / "other") == [
        "TEST/land/there: is a symbolic link to a folder: move it there",
        "Train/land/x.png: does not lie at SPLIT/CLASS/BIAS/FILE, as others do",
    ]
    stray.unlink()
    inside.unlink()
    shutil.rmtree(tmp_path / "tree" / "validation")
    with pytest.raises(DataError, match=r"val split has no image.*the folders of splits away"):
        import_data("two", Source(tmp_path / "tree"), tmp_path)


def test_a_name_that_is_no_text_is_listed_as_it_can_be_read(tmp_path: Path) -> None:
    folder = picture(tmp_path / "tree" / "land" / "field" / "0.png", (0, 0, 0)).parent
    try:
        (folder / "0.png").rename(folder / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    assert problems("birds", Source(tmp_path / "tree"), tmp_path) == [
        "land/field/\\udcff.png: has a name that is not UTF-8: rename it"
    ]


def test_classes_called_like_splits_are_classes(tmp_path: Path) -> None:
    for i, place_ in enumerate([*"aaaaaaaaab", *"abbbbbbbbb"]):
        label = "train" if i < 10 else "test"
        picture(tmp_path / "tree" / label / place_ / f"{i}.png", (i, 0, 0))
    done = import_data("vehicles", Source(tmp_path / "tree"), tmp_path)
    assert done.task.classes == ("test", "train")


def test_several_bias_columns_are_one_bias_value(birds: Source, tmp_path: Path) -> None:
    seasons = ("winter", "summer")
    rows = [(*row, seasons[i % 3 == 0]) for i, row in enumerate(bird_rows())]
    source = changed(birds, [(*HEAD, "season"), *rows], bias=("place", "season"))
    task = import_data("birds", source, tmp_path).task
    assert task.biases == (
        "place=field,season=summer",
        "place=field,season=winter",
        "place=lake,season=summer",
        "place=lake,season=winter",
    )
    expected = [
        sum((r[1], f"place={r[2]},season={r[3]}") == (c, b) for r in rows)
        for c in task.classes
        for b in task.biases
    ]
    assert sum(task.group_counts(s) for s in task.splits().values()).tolist() == expected  # type: ignore[union-attr]


def test_numbers_are_sorted_as_numbers_and_other_text_as_text(
    birds: Source, tmp_path: Path
) -> None:
    numbers = {"land": "10", "water": "9", "field": "-1.5", "lake": "ten"}
    rows = [(f, numbers[label], numbers[where]) for f, label, where in bird_rows()]
    task = import_data("birds", changed(birds, [HEAD, *rows]), tmp_path).task
    assert (task.classes, task.biases) == (("9", "10"), ("-1.5", "ten"))


def test_images_are_scaled_to_the_size_that_is_asked_for(birds: Source, tmp_path: Path) -> None:
    picture(birds.images / "000.png", (9, 9, 9), (30, 20))
    task = import_data("birds", replace(birds, size=(6, 4)), tmp_path).task
    assert task.shape.input == (3, 6, 4)


def test_each_image_is_decoded_once(
    birds: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Path] = []
    decode = images.decode

    def counting(files: Sequence[Path], *more: Any, **options: Any) -> torch.Tensor:
        seen.extend(files)
        return decode(files, *more, **options)

    monkeypatch.setattr(images, "decode", counting)
    import_data("birds", birds, tmp_path)
    assert sorted(p.name for p in seen) == [row[0] for row in bird_rows()]


# Tables ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("t.csv", lambda text: "\ufeff" + text),
        ("t.csv", lambda text: text.replace("\n", "\r\n")),
        ("t.csv", lambda text: text.replace(",", " , ").replace("\n", "\n\n,,\n")),
        ("t.csv", lambda text: text.replace("land", '"land"').replace(",field", ', "field"')),
        ("t.tsv", lambda text: text.replace(",", "\t")),
        ("t.TSV", lambda text: text.replace(",", "\t")),
    ],
    ids=["mark", "crlf", "blank", "quoted", "tsv", "TSV"],
)
def test_a_table_may_be_written_as_programs_write_it(
    name: str, change: Callable[[str], str], birds: Source, tmp_path: Path
) -> None:
    birds = replace(birds, file="img")
    plain = import_data("plain", birds, tmp_path).digest
    assert birds.table is not None
    text = birds.table.read_text("utf-8").replace("\r\n", "\n")
    (tmp_path / name).write_bytes(change(text).encode())
    assert import_data("same", replace(birds, table=tmp_path / name), tmp_path).digest == plain


def test_labels_may_be_any_text(birds: Source, tmp_path: Path) -> None:
    odd = {"land": "Ländler, der", "water": 'a "b"\nc:d', "field": "水", "lake": "=1+1"}
    rows = [(f, odd[label], odd[where]) for f, label, where in bird_rows()]
    task = import_data("birds", changed(birds, [HEAD, *rows]), tmp_path).task
    assert set(task.classes) == {odd["land"], odd["water"]}
    assert set(task.biases) == {odd["field"], odd["lake"]}


def test_lines_are_counted_where_a_field_goes_over_several(birds: Source, tmp_path: Path) -> None:
    rows = [(f, label + "\n\nbird", where) for f, label, where in bird_rows()]
    rows[3] = ("gone.png", *rows[3][1:])
    # the header and three rows of three lines each stand before it
    assert problems("birds", changed(birds, [HEAD, *rows]), tmp_path) == [
        "line 11, gone.png: is missing"
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "has no rows"),
        (b"img,species,place\n", "has no rows"),
        (b"img,species,place\n000.png,land,\xe9t\xe9\n", "line 2, is not UTF-8"),
        (b'img,species,place\n0.png,land,a\n1.png,"land,b\n', "line 3 on .*close every quote"),
        (b"img;species;place\n0.png;land;field\n", "Commas part the fields of .csv"),
        (
            b"img,specie,plce\n0.png,land,field\n",
            "no column 'species', 'place'. Did you mean 'specie'\\? Did you mean 'plce'\\? "
            "Columns: img, specie, plce",
        ),
        (b"img,species,place,place\n0.png,a,b,c\n", "two columns 'place'"),
    ],
    ids=["empty", "header", "latin1", "quote", "semicolons", "columns", "twice"],
)
def test_a_table_that_cannot_be_read_says_why(
    content: bytes, complaint: str, birds: Source, tmp_path: Path
) -> None:
    assert birds.table is not None
    birds.table.write_bytes(content)
    with pytest.raises(DataError, match=complaint):
        import_data("birds", birds, tmp_path)


def test_what_is_not_there_is_named(birds: Source, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is no folder"):
        import_data("birds", replace(birds, images=tmp_path / "nowhere"), tmp_path)
    with pytest.raises(DataError, match=r"nothing\.csv cannot be read: No such file"):
        import_data("birds", replace(birds, table=tmp_path / "nothing.csv"), tmp_path)
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no image at CLASS/BIAS/FILE"):
        import_data("birds", Source(tmp_path / "hollow"), tmp_path)


def test_a_column_cannot_be_two_things(birds: Source, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'species' is given twice"):
        import_data("birds", replace(birds, bias=("species",)), tmp_path)


def test_the_column_of_files_is_found_by_name_then_by_what_is_there(
    birds: Source, tmp_path: Path
) -> None:
    rows = bird_rows()
    assert birds.table is not None

    def column(*heads: str, twin: bool = False) -> str:
        more = [(f, f if twin else f"gone-{f}") for f, *_ in rows]
        wide = [(f, a, b, other) for (f, a, b), (_, other) in zip(rows, more, strict=True)]
        source = changed(birds, [(heads[0], "species", "place", heads[1]), *wide])
        done = import_data("birds", source, tmp_path, replace=True)
        return done.notes[0]

    assert column("x", "y") == "Files are named by the column 'x'."
    assert column("path", "y", twin=True) == "Files are named by the column 'path'."
    assert column("path", "image") == "Files are named by the column 'path'."
    for heads in (("path", "image"), ("x", "y")):
        with pytest.raises(DataError, match=f"Say --file COLUMN: {', '.join(heads)}"):
            column(*heads, twin=True)


def test_a_split_column_that_is_not_asked_for_is_mentioned(birds: Source, tmp_path: Path) -> None:
    source = changed(birds, [(*HEAD, "Split"), *split_rows()])
    assert "--split Split would use it" in import_data("birds", source, tmp_path).notes[1]


# Splits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [("0", "1", "2"), ("Train", "VALID", "Test"), ("training", "dev", "testing")],
)
def test_a_split_has_several_names(words: tuple[str, ...], birds: Source, tmp_path: Path) -> None:
    named = dict(zip(("train", "val", "test"), words, strict=True))
    rows = [(*row[:3], named[row[3]]) for row in split_rows()]
    done = import_data("b", changed(birds, [(*HEAD, "s"), *rows], split="s"), tmp_path)
    assert [len(s) for s in done.task.splits().values()] == [20, 10, 10]


def test_without_a_column_each_group_is_split_whatever_the_order_of_rows(
    birds: Source, tmp_path: Path
) -> None:
    done = import_data("a", birds, tmp_path)
    # 16 aligned and 4 conflicting of each class
    counts = [done.task.group_counts(s).tolist() for s in done.task.splits().values()]
    assert counts == [[11, 2, 2, 11], [2, 1, 1, 2], [3, 1, 1, 3]]
    assert any("70/10/20 %" in note for note in done.notes)
    turned = import_data("b", changed(birds, [HEAD, *reversed(bird_rows())]), tmp_path)
    for one, other in zip(done.task.splits().values(), turned.task.splits().values(), strict=True):
        assert sorted(one.x[:, 0, 0, 0].tolist()) == sorted(other.x[:, 0, 0, 0].tolist())
    seeded = import_data("c", replace(birds, seed=1), tmp_path)
    assert sorted(pixels(seeded)) == sorted(pixels(done))
    assert seeded.digest != done.digest


def test_a_split_that_is_empty_is_an_error(birds: Source, tmp_path: Path) -> None:
    rows = [row for row in split_rows() if row[3] != "val"]
    with pytest.raises(DataError, match="val split has no image: add some, or leave out --split"):
        import_data("b", changed(birds, [(*HEAD, "s"), *rows], split="s"), tmp_path)
    with pytest.raises(DataError, match="too few to split"):
        import_data("b", changed(birds, [HEAD, *bird_rows(3)]), tmp_path)


# What is wrong with rows -------------------------------------------------------------------------


def damaged(birds: Source) -> tuple[Source, list[str]]:
    """The birds with one row of every fault, and what is to be said of them, in order."""
    base, rows = birds.images, split_rows()
    whole = (base / "000.png").read_bytes()
    (base / "text.png").write_text("no image")
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
        (("a\\gone.png", "land", "field", "train"), "is missing: write / between folders"),
        (("", "land", "field", "train"), "names no file"),
        (("text.png", "land", "field", "train"), "is not an image"),
        (("torn.png", "land", "field", "train"), "is truncated or damaged"),
        (("empty.png", "land", "field", "train"), "is not an image"),
        (("folder.png", "land", "field", "train"), "is no file"),
        (("loop.png", "land", "field", "train"), "is a symbolic link that leads back to itself"),
        (("out.png", "land", "field", "train"), "is a symbolic link out of "),
        (("../outside.png", "land", "field", "train"), "leads out of "),
        ((absolute, "land", "field", "train"), "is an absolute path: write it from "),
        (("./000.png", "land", "field", "test"), "is the same file as line 2, 000.png"),
        (("large.png", "land", "field", "train"), "is 7x9 (height x width), others are 8x8: --si"),
        (("palette.png", "land", "field", "train"), "has a palette. "),
        (("alpha.png", "land", "field", "train"), "has transparency. "),
        (("cmyk.jpg", "land", "field", "train"), "has CMYK colours. "),
        (("deep.png", "land", "field", "train"), "has 16 bits per channel. "),
    ]
    for i, (fields, _) in enumerate(wrong):
        rows.append(fields)
        assert len(rows) == 41 + i
    said = [f"line {42 + i}, {f[0]}: {w}" if f[0] else f"line {42 + i}: {w}"
            for i, (f, w) in enumerate(wrong)]  # fmt: skip
    for file in ("x.png", "y.png", "z.png", "text2.png"):
        picture(base / file, (ord(file[0]), 0, 0))
    (base / "text2.png").write_text("no image either")
    rows += [
        ("x.png", "", "field", "train"),
        ("y.png", "land", "", "train"),
        ("z.png", "land", "field", "tset"),
        ("text2.png", "", "field", ""),
        ("w.png", "land"),  # type: ignore[list-item]
    ]
    said += [
        "line 59, x.png: has no label (column 'species')",
        "line 60, y.png: has no bias (column 'place')",
        "line 61, z.png: has the unknown split 'tset'. Did you mean 'test'? Write train, val or te",
        "line 62, text2.png: has no label (column 'species')",
        "line 62, text2.png: has no split: write train, val or test",
        "line 62, text2.png: is not an image",
        "line 63: has 2 fields, the header has 4",
    ]
    return changed(birds, [(*HEAD, "split"), *rows], split="split"), said


def test_all_that_is_wrong_is_listed_at_once_by_line(birds: Source, tmp_path: Path) -> None:
    source, said = damaged(birds)
    found = problems("birds", source, tmp_path)
    assert len(found) == len(said)
    for line, start in zip(found, said, strict=True):
        assert line.startswith(start)


def test_bad_rows_can_be_left_out_and_the_rest_is_as_if_they_had_not_been(
    birds: Source, tmp_path: Path
) -> None:
    assert birds.table is not None
    good = changed(birds, [(*HEAD, "split"), *split_rows()], split="split")
    clean = import_data("clean", good, tmp_path)
    source, said = damaged(birds)
    done = import_data("birds", source, tmp_path, skip_bad=True)
    assert done.digest == clean.digest
    assert len({p.line for p in done.left_out}) == 22
    assert len([p for p in done.left_out if p.line != 62]) == len(said) - 3


def test_images_of_other_kinds_are_converted_if_asked(birds: Source, tmp_path: Path) -> None:
    source, _ = damaged(birds)
    kinds = ("palette.png", "alpha.png", "cmyk.jpg", "deep.png")
    rows = [*bird_rows(), *((file, "land", "field") for file in kinds)]
    source = changed(birds, [HEAD, *rows])
    assert all("(--convert)" in line for line in problems("birds", source, tmp_path))
    done = import_data("birds", replace(source, convert=True), tmp_path)
    assert sum(len(s) for s in done.task.splits().values()) == 44


def test_the_usual_size_is_the_right_one_even_if_the_first_image_has_another(
    birds: Source, tmp_path: Path
) -> None:
    picture(birds.images / "000.png", (1, 2, 3), (30, 20))
    assert problems("birds", birds, tmp_path) == [
        "line 2, 000.png: is 20x30 (height x width), others are 8x8: "
        "--size 8x8 scales all to one size"
    ]


def test_where_every_image_is_bad_every_image_is_listed(birds: Source, tmp_path: Path) -> None:
    for file in birds.images.iterdir():
        file.write_text("no image")
    assert len(problems("birds", birds, tmp_path)) == 40
    with pytest.raises(DataError, match="Class 'land' has no image left"):
        import_data("birds", birds, tmp_path, skip_bad=True)


def test_a_class_of_which_nothing_is_left_is_an_error(birds: Source, tmp_path: Path) -> None:
    source = changed(birds, [HEAD, *bird_rows(), ("gone.png", "sea", "lake")])
    with pytest.raises(DataError, match="Class 'sea' has no image left"):
        import_data("birds", source, tmp_path, skip_bad=True)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: (r[0], "land", r[2]), "one class only, 'land' \\(species\\)"),
        (lambda r: (r[0], r[1], "sky"), "one bias value only, 'sky' \\(place\\)"),
        (lambda r: (r[0], r[1], r[1]), "so nothing conflicts"),
        (lambda r: (r[0], r[0], r[2]), "val split has no image: there are too few"),
    ],
)
def test_what_is_no_task_is_refused_before_images_are_read(
    change: Callable[[tuple[str, ...]], tuple[str, ...]],
    complaint: str,
    birds: Source,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "decode", None)
    source = changed(birds, [HEAD, *map(change, bird_rows())])
    with pytest.raises(DataError, match=complaint):
        import_data("birds", source, tmp_path)


def test_a_class_without_training_images_is_refused(birds: Source, tmp_path: Path) -> None:
    rows = [r if r[1] == "land" or r[3] != "train" else (*r[:3], "test") for r in split_rows()]
    with pytest.raises(DataError, match="Class 'water' has no training image"):
        import_data("b", changed(birds, [(*HEAD, "s"), *rows], split="s"), tmp_path)


def test_more_groups_than_any_bias_has_are_refused(
    birds: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing.groups, "MOST_GROUPS", 3)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"2 classes \(species\) and 2 bias values \(place\)"):
        import_data("birds", birds, tmp_path)


# Alignment ---------------------------------------------------------------------------------------


def test_a_bias_is_aligned_if_training_has_it_more_often_than_by_chance(
    birds: Source, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i, (file, *_) in enumerate(bird_rows()):
        label = "abc"[rng.integers(3)]
        rows.append((file, label, "uvwxyz"[rng.integers(6)], ("train", "val", "test")[i // 4 % 3]))
    source = changed(birds, [(*HEAD, "s"), *rows], split="s")
    task = import_data("birds", source, tmp_path).task
    train = [row for row in rows if row[3] == "train"]
    for c, label in enumerate(task.classes):
        for b, where in enumerate(task.biases):
            own = [row for row in train if row[1] == label]
            with_it = sum(row[2] == where for row in own) / len(own)
            overall = sum(row[2] == where for row in train) / len(train)
            assert bool(task.aligned[c, b]) == (with_it > overall + 1e-12)


def test_alignment_can_be_said_and_is_found_in_names_with_commas_and_colons(
    birds: Source, tmp_path: Path
) -> None:
    odd = {"land": "a", "water": "a:b", "field": "b:c,a:b", "lake": "c"}
    rows = [(f, odd[label], odd[where]) for f, label, where in bird_rows()]
    source = changed(birds, [HEAD, *rows], aligned="a:b:c,a:b , a:b:b:c,a:b")
    with pytest.raises(DataError, match="'a' has no aligned bias value: name one in --aligned"):
        import_data("birds", replace(source, aligned="a:b:c"), tmp_path)
    task = import_data("birds", source, tmp_path).task
    assert (task.classes, task.biases) == (("a", "a:b"), ("b:c,a:b", "c"))
    assert task.aligned.tolist() == [[True, False], [True, False]]


def test_of_several_bias_columns_one_can_say_what_is_aligned(birds: Source, tmp_path: Path) -> None:
    rows = [(*row, "winter" if i % 3 else "summer") for i, row in enumerate(bird_rows())]
    source = changed(
        birds,
        [(*HEAD, "season"), *rows],
        bias=("place", "season"),
        aligned="land:place=field,water:place=lake,season=winter",
    )
    task = import_data("birds", source, tmp_path).task
    # field in summer and in winter, lake in summer and in winter
    assert task.aligned.tolist() == [[True, True, False, False], [False, False, False, True]]


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("land:field,watr:lake", "'watr:lake' is no CLASS:BIAS. Did you mean 'water'"),
        ("land:fild", "'land:fild' is no CLASS:BIAS. Did you mean 'field'"),
        ("land", "'land' is no CLASS:BIAS"),
        ("land:fields", "'land:fields' is no CLASS:BIAS"),
        ("land:field", "'water' has no aligned bias value: name one in --aligned"),
        ("land:field,land:lake,water:field,water:lake", "so nothing conflicts"),
    ],
)
def test_an_alignment_that_fits_no_group_is_refused(
    said: str, complaint: str, birds: Source, tmp_path: Path
) -> None:
    with pytest.raises(DebiasbenchError, match=complaint):
        import_data("birds", replace(birds, aligned=said), tmp_path)


def test_a_bias_that_says_nothing_about_the_class_is_refused(birds: Source, tmp_path: Path) -> None:
    rows = [(f, LABELS[i % 2], PLACES[i // 2 % 2], ("train", "val", "test")[i // 4 % 3])
            for i, (f, *_) in enumerate(bird_rows(36))]  # fmt: skip
    source = changed(birds, [(*HEAD, "s"), *rows], split="s")
    with pytest.raises(DataError, match="as often as by chance; --aligned says which go with it"):
        import_data("birds", source, tmp_path)
    import_data("birds", replace(source, aligned="land:field,water:lake"), tmp_path)


# What is odd -------------------------------------------------------------------------------------


def test_an_image_that_two_splits_show_is_a_warning(birds: Source, tmp_path: Path) -> None:
    shutil.copy(birds.images / "000.png", birds.images / "copy.png")
    shutil.copy(birds.images / "000.png", birds.images / "twin.png")  # harmless where it is
    rows = [
        *split_rows(),
        ("copy.png", "land", "lake", "test"),
        ("twin.png", "land", "lake", "train"),
    ]
    source = changed(birds, [(*HEAD, "split"), *rows], split="split")
    warnings = import_data("birds", source, tmp_path).warnings
    assert warnings[0] == (
        "Images that other splits hold too, pixel by pixel: 1, such as "
        "line 42, copy.png (test) and line 2, 000.png (train)"
    )
    source = changed(birds, [(*HEAD, "split"), *split_rows()], split="split")
    again = import_data("birds", source, tmp_path, replace=True).warnings
    assert not any("pixel by pixel" in warning for warning in again)


def test_small_and_absent_groups_and_names_that_differ_in_case_are_warnings(
    birds: Source, tmp_path: Path
) -> None:
    rows = [r for r in split_rows() if r[1:] != ("land", "lake", "val")]
    rows[1] = (rows[1][0], "water", "Lake", "train")
    source = changed(birds, [(*HEAD, "split"), *rows], split="split")
    warnings = import_data("birds", source, tmp_path).warnings
    assert "val has no image of land with lake; water with Lake" in warnings
    assert "test has no image of water with Lake" in warnings
    assert any(w.startswith("train has fewer than 10 images of ") for w in warnings)
    assert "Some bias values differ in case only: Lake, lake" in warnings


# Names, places and what goes wrong there ---------------------------------------------------------


@pytest.mark.parametrize("name", ["", "Birds", "../birds", ".birds", "a/b", "birds:", "b" * 101])
def test_a_name_that_is_none_is_refused(name: str, birds: Source, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot name a data set"):
        import_data(name, birds, tmp_path)


def test_a_name_that_is_taken_is_refused(birds: Source, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'digits' names another data set already"):
        import_data("digits", birds, tmp_path, taken={"digits"})
    import_data("birds", birds, tmp_path)
    with pytest.raises(DataError, match=r"'birds' is imported already.*--replace"):
        import_data("birds", birds, tmp_path)


def test_replacing_keeps_the_old_one_until_the_new_one_is_whole(
    birds: Source, tmp_path: Path
) -> None:
    old = import_data("birds", birds, tmp_path)
    bad = changed(birds, [HEAD, *bird_rows(), ("gone.png", "land", "field")])
    with pytest.raises(BadRows):
        import_data("birds", bad, tmp_path, replace=True)
    assert importing.find(tmp_path, "birds") == old.digest
    new = import_data("birds", bad, tmp_path, replace=True, skip_bad=True)
    assert new.digest == old.digest
    good = changed(birds, [HEAD, *bird_rows()], size=(4, 4))
    other = import_data("birds", good, tmp_path, replace=True)
    assert importing.find(tmp_path, "birds") == other.digest != old.digest
    # what is mapped outlives its name
    assert sorted(pixels(old)) == [5 * i for i in range(40)]
    assert leftovers(tmp_path) == ["birds"]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let writing fail beyond so many bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_is_one_error_and_leaves_nothing(
    birds: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        largest_file(5000),
        pytest.raises(DataError, match=r"Nothing was imported.*Free space"),
    ):
        import_data("birds", birds, tmp_path)
    assert leftovers(tmp_path) == []

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(task_folder, "save", full)
        with pytest.raises(DataError, match="No space left on device"):
            import_data("birds", birds, tmp_path)
    assert leftovers(tmp_path) == []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"needs 0.1 GB .*, and 0.0 GB are free"):
        import_data("birds", birds, tmp_path)
    assert leftovers(tmp_path) == []


def test_a_place_that_cannot_be_written_is_an_error(birds: Source, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written: Not a directory"):
        import_data("birds", birds, tmp_path / "file")


def test_the_same_name_is_imported_by_one_process_at_a_time(birds: Source, tmp_path: Path) -> None:
    with place.claimed(tmp_path / "imported" / "birds"):
        with pytest.raises(BusyError, match="'birds' is being imported by another process"):
            import_data("birds", birds, tmp_path)
        import_data("other", birds, tmp_path)


def test_what_dead_processes_left_of_other_names_is_cleared_away_too(
    birds: Source, tmp_path: Path
) -> None:
    done = import_data("old", birds, tmp_path)
    folder = tmp_path / "imported"
    (folder / ".gone.new").mkdir()
    (folder / ".gone.new" / "train-x.npy").write_text("half")
    (folder / "old").rename(folder / ".old.old")  # died while it replaced
    (folder / ".old.new").mkdir()
    assert importing.find(tmp_path, "old") == done.digest
    assert importing.names(tmp_path) == ["old"]
    assert len(Imported(name="old").load(tmp_path).train) == 26
    with place.claimed(folder / "busy"):
        (folder / ".busy.new").mkdir()
        import_data("birds", birds, tmp_path)
        assert leftovers(tmp_path) == [".busy.new", "birds", "old"]
    assert importing.names(tmp_path) == ["birds", "old"]
    assert importing.find(tmp_path, "old") == done.digest


KILLED = """
import json, os, random, shutil, signal, sys, time
from dataclasses import replace
from pathlib import Path

import torch
from debiasbench.files import images, importing, task_folder  # before any fork
from debiasbench.files.importing import Source, import_data
from debiasbench.datasets.imported import Imported

torch.set_num_threads(1)
os.fsync = lambda _: None  # what it is for is a power cut, not a kill
folder, root = Path(sys.argv[1]), Path(sys.argv[2])
source = Source(folder / "birds", folder / "birds.csv", "species", ("place",))
small = replace(source, table=folder / "few.csv")


def forked(work):
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def finished(work):
    assert os.waitpid(forked(work), 0)[1] == 0


def dies_at(step):
    # be killed just before the step-th change below the data root; of files, two stand for all
    count = 0

    def hook(event, args):
        nonlocal count
        path = str(args[0]) if args else ""
        folder = event in {"os.mkdir", "os.rename", "os.rmdir"} and "/imported" in path
        file = event in {"open", "os.remove"} and path.endswith(("train-x.npy", "task.json"))
        if folder or file:
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def tidy(name):
    return sorted(p.name for p in (root / "imported").iterdir()) == [".locks", name]


def clear():
    shutil.rmtree(root / "imported" / "birds")


begun = time.monotonic()
finished(lambda: import_data("birds", source, root))
span = time.monotonic() - begun
undisturbed = importing.find(root, "birds")
clear()

# at moments that chance picks
rng = random.Random(0)
torn = 0
for _ in range(4):
    child = forked(lambda: import_data("birds", source, root))
    time.sleep(rng.uniform(0.05, 0.95) * span)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if importing.find(root, "birds") is None:
        torn += 1
        finished(lambda: import_data("birds", source, root))
    finished(lambda: Imported(name="birds", digest=undisturbed).load(root))
    assert tidy("birds"), os.listdir(root / "imported")
    clear()

# at each step of replacing, one after the other
finished(lambda: import_data("birds", small, root))
old = importing.find(root, "birds")
step, seen = 0, []
bright = replace(small, size=(4, 4))
while True:
    step += 1

    def work():
        dies_at(step)
        import_data("birds", bright, root, replace=True)

    survived = os.waitpid(forked(work), 0)[1] == 0
    found = importing.find(root, "birds")
    seen.append(found)

    def again():
        Imported(name="birds", digest=found).load(root)
        import_data("birds", small, root, replace=True)

    finished(again)
    assert importing.find(root, "birds") == old
    assert tidy("birds"), os.listdir(root / "imported")
    if survived:
        break
print(json.dumps({"torn": torn, "old": old, "seen": seen}))
"""


def test_a_kill_at_any_moment_leaves_nothing_that_the_next_import_trips_over(
    tmp_path: Path,
) -> None:
    rows = bird_rows(300)
    for i, (file, *_) in enumerate(rows):
        picture(tmp_path / "birds" / file, (i % 256, i // 256, 7), (64, 64))
    write(tmp_path / "birds.csv", [HEAD, *rows])
    write(tmp_path / "few.csv", [HEAD, *rows[:20]])
    words = [sys.executable, "-c", KILLED, str(tmp_path), str(tmp_path / "root")]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["torn"] > 0
    seen = told["seen"]
    assert len(seen) > 10  # steps
    # the old one until some step, the new one from then on, and never neither
    assert seen[0] == told["old"] != seen[-1]
    change = seen.index(seen[-1])
    assert set(seen[:change]) == {told["old"]}
    assert set(seen[change:]) == {seen[-1]}


# What is imported --------------------------------------------------------------------------------


def test_finding_what_is_imported_imports_nothing_heavy(birds: Source, tmp_path: Path) -> None:
    done = import_data("birds", birds, tmp_path)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from debiasbench.files.importing import find, names\n"
        f"root = Path({str(tmp_path)!r})\n"
        "print(find(root, 'birds'), find(root, 'bird'), find(root, '../imported/birds'), "
        "names(root), names(root / 'x'))\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'PIL', 'pydantic'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", code]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert shown == [f"{done.digest} None None ['birds'] []", "[]"]


def test_other_data_missing_data_and_damaged_data_are_told_apart(
    birds: Source, tmp_path: Path
) -> None:
    done = import_data("birds", birds, tmp_path)
    with pytest.raises(DataError, match=r"holds other data .* leave dataset.digest out"):
        Imported(name="birds", digest="0" * 64).load(tmp_path)
    for name in ("birdz", "", "../birds"):
        with pytest.raises(DataError, match=r"No data set .* Imported: birds. Give the folder"):
            Imported(name=name).load(tmp_path)
    file = done.folder / "train-x.npy"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    with pytest.raises(DataError, match=r"train-x.npy was changed.*data import birds --replace"):
        Imported(name="birds").load(tmp_path)
    (done.folder / "task.json").write_text("{")
    for use in (importing.find, lambda root, name: Imported(name=name).load(root)):
        with pytest.raises(DataError, match=r"task.json .*data import birds --replace"):
            use(tmp_path, "birds")
    import_data("birds", birds, tmp_path, replace=True)
    assert importing.find(tmp_path, "birds") == done.digest


def test_the_folder_tells_where_the_data_came_from(birds: Source, tmp_path: Path) -> None:
    done = import_data("birds", birds, tmp_path)
    more = task_folder.facts(done.folder)["more"]
    assert (
        more["images"]
        == {"train": 26, "val": 6, "test": 8}
        == dict(zip(("train", "val", "test"), map(len, done.task.splits().values()), strict=True))
    )
    assert more["source"]["images"] == str(birds.images)
    assert more["source"]["bias"] == ["place"]
    assert more["left_out"] == 0


def test_what_was_imported_can_be_trained_on(
    birds: Source, tmp_path: Path, plugins: Plugins
) -> None:
    done = import_data("birds", birds, tmp_path)
    spec = make_spec(
        plugins,
        method="erm",
        dataset="imported:birds",
        model="mlp",
        dataset_options={"digest": done.digest},
        model_options={"hidden": [8]},
        training={"epochs": 1},
    )
    record = run(spec, plugins, results=tmp_path / "results", data_root=tmp_path).record
    assert record.status == "ok"
    assert record.task.fingerprint == done.task.fingerprint()
    assert sum(record.task.group_counts["test"]) == 8


# The command -------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`debiasbench data import` without the program around it."""
    monkeypatch.chdir(tmp_path)
    plugins = Plugins([(ToyPlugin(), ACME)])

    def call(*words: object) -> Result:
        return CliRunner().invoke(import_, [str(w) for w in words], obj=plugins)

    return call


TABLE = ("--images", "birds", "--table", "birds.csv", "--label", "species", "--bias", "place")


def test_the_command_shows_groups_alignment_and_what_to_type_next(
    birds: Source, command: Callable[..., Result]
) -> None:
    result = command("birds", *TABLE)
    assert result.exit_code == 0, result.output
    digest = importing.find(Path("data"), "birds")
    assert digest is not None
    assert (
        result.stdout
        == f"""\
birds: 40 images of 8x8 pixels, 2 classes, 2 bias values
Files are named by the column 'img'.
Split here, each group 70/10/20 % into train/val/test; --seed decides which images.
Aligned (in training more often with the class than by chance, P(bias | class) > P(bias)): \
land with field; water with lake.

split    class      field    lake
-------  -------  -------  ------
train    land        11 *       2
         water          2    11 *
val      land         2 *       1
         water          1     2 *
test     land         3 *       1
         water          1     3 *
* bias-aligned; samples (conflicting): train 26 (15.4 %), val 6 (33.3 %), test 8 (25 %)

Data: data/imported/birds, checksum {digest[:16]}…
Next: debiasbench run --dataset birds --method erm
"""
    )
    assert result.stderr.startswith("Warning: train has fewer than 10 images of ")


def test_the_command_passes_on_what_is_asked(
    birds: Source, command: Callable[..., Result], tmp_path: Path
) -> None:
    write(tmp_path / "birds.csv", [(*HEAD, "s", "other"), *((*r, r[0]) for r in split_rows())])
    words = (*TABLE, "--file", "other", "--split", "s", "--size", "6x4", "--data-root", "my data",
             "--aligned", "land:field", "--aligned", "water:lake", "--quiet")  # fmt: skip
    result = command("mine", *words)
    assert result.exit_code == 0, result.output
    assert "40 images of 6x4 pixels" in result.stdout
    assert "Aligned (as told): land with field; water with lake." in result.stdout
    last = "Next: debiasbench run --dataset mine --method erm --data-root 'my data'"
    assert result.stdout.splitlines()[-1] == last
    assert importing.names(Path("my data")) == ["mine"]


def test_the_command_lists_fifty_bad_rows_and_writes_all_to_a_report(
    birds: Source, command: Callable[..., Result], tmp_path: Path
) -> None:
    gone = [(f"gone{i}.png", "land", "field") for i in range(60)]
    write(tmp_path / "birds.csv", [HEAD, *bird_rows(), *gone])
    result = command("birds", *TABLE)
    assert isinstance(result.exception, BadRows)
    assert str(result.exception) == (
        "60 of 100 images cannot be imported, the first: line 42, gone0.png: is missing. "
        "Nothing was imported: mend them, or leave them out with --skip-bad"
    )
    lines = result.stderr.splitlines()
    assert lines[0] == "line 42, gone0.png: is missing"
    assert len(lines) == 51
    assert lines[-1] == "and 10 more: --report FILE lists them"
    done = command("birds", *TABLE, "--skip-bad", "--report", "bad.csv")
    assert done.exit_code == 0, done.output
    assert "Left out as bad: 60." in done.stdout
    assert "and 10 more: bad.csv lists them" in done.stderr
    with Path("bad.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["line", "file", "problem"]
    assert rows[1] == ["42", "gone0.png", "is missing"]
    assert len(rows) == 61


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("birds",), "Missing option '--images'"),
        (("birds", "--images", "birds", "--label", "species"), "give --table too"),
        (("birds", *TABLE[:6]), "--table needs --label COLUMN and --bias COLUMN"),
        (("birds", *TABLE, "--size", "0x4"), "--size 0x4: write N or HxW in pixels"),
        (("birds", *TABLE, "--size", "big"), "--size big: write N or HxW in pixels"),
    ],
)
def test_words_that_do_not_fit_are_usage_errors(
    words: tuple[str, ...], complaint: str, command: Callable[..., Result]
) -> None:
    result = command(*words)
    assert result.exit_code == 2
    assert complaint in result.stderr


@pytest.mark.parametrize("name", ["digits", "toy"])
def test_the_name_of_a_registered_data_set_is_taken(
    name: str, birds: Source, command: Callable[..., Result]
) -> None:
    result = command(name, *TABLE)
    assert isinstance(result.exception, OptionError)
    assert not Path("data").exists()
