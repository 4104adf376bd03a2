"""Tables: what is read, and which errors are reported."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from debiasbench.common.errors import DataError, OptionError
from debiasbench.files.importing import Source, import_data
from tests.files.importing.birds import (
    HEAD,
    bird_rows,
    changed,
    problems,
    split_rows,
)


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
def test_tables_of_different_programs_are_read_alike(
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


def test_line_numbers_count_fields_of_several_lines(birds: Source, tmp_path: Path) -> None:
    rows = [(f, label + "\n\nbird", where) for f, label, where in bird_rows()]
    rows[3] = ("gone.png", *rows[3][1:])
    # after the header and three rows of three lines each
    assert problems("birds", changed(birds, [HEAD, *rows]), tmp_path) == [
        "line 11, gone.png: is missing"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"img,species,place\n", "has no rows"),
        (b"img,species,place\n000.png,land,\xe9t\xe9\n", "line 2, is not UTF-8"),
        (b'img,species,place\n0.png,land,a\n1.png,"land,b\n', "line 3 on .*Close every quote"),
        (b"img;species;place\n0.png;land;field\n", "Fields are separated by commas in .csv"),
        (
            b"img,specie,plce\n0.png,land,field\n",
            "no column 'species', 'place'. Did you mean 'specie'\\? Did you mean 'plce'\\? "
            "Columns: img, specie, plce",
        ),
        (b"img,species,place,place\n0.png,a,b,c\n", "two columns 'place'"),
    ],
    ids=["empty", "header", "latin1", "quote", "semicolons", "columns", "twice"],
)
def test_a_table_that_cannot_be_read_is_an_error_with_the_reason(
    content: bytes, message: str, birds: Source, tmp_path: Path
) -> None:
    assert birds.table is not None
    birds.table.write_bytes(content)
    with pytest.raises(DataError, match=message):
        import_data("birds", birds, tmp_path)


def test_missing_files_are_named(birds: Source, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        import_data("birds", replace(birds, images=tmp_path / "nowhere"), tmp_path)
    with pytest.raises(DataError, match=r"nothing\.csv cannot be read: No such file"):
        import_data("birds", replace(birds, table=tmp_path / "nothing.csv"), tmp_path)
    (tmp_path / "hollow" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="contains no image at CLASS/BIAS/FILE"):
        import_data("birds", Source(tmp_path / "hollow"), tmp_path)


@pytest.mark.parametrize(("table", "disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_file_name_may_be_in_another_unicode_form_than_on_the_disk(
    table: str, disk: str, birds: Source, tmp_path: Path
) -> None:
    rows = bird_rows()
    (birds.images / rows[0][0]).rename(birds.images / unicodedata.normalize(disk, "été.png"))
    rows[0] = (unicodedata.normalize(table, "été.png"), *rows[0][1:])
    done = import_data("birds", changed(birds, [HEAD, *rows]), tmp_path)
    assert sum(len(split) for split in done.task.splits().values()) == 40


def test_a_column_cannot_be_used_twice(birds: Source, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'species' is used twice"):
        import_data("birds", replace(birds, bias=("species",)), tmp_path)


def test_the_column_of_file_names_is_found_by_title_then_by_existing_files(
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

    assert column("x", "y") == "Column 'x' contains the file names."
    assert column("path", "y", twin=True) == "Column 'path' contains the file names."
    assert column("path", "image") == "Column 'path' contains the file names."
    for heads in (("path", "image"), ("x", "y")):
        with pytest.raises(DataError, match=f"Use --file COLUMN with one of: {', '.join(heads)}"):
            column(*heads, twin=True)


def test_an_unused_split_column_is_mentioned(birds: Source, tmp_path: Path) -> None:
    source = changed(birds, [(*HEAD, "Split"), *split_rows()])
    assert (
        "To use it as the split, add --split Split"
        in import_data("birds", source, tmp_path).notes[1]
    )
