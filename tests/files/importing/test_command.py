"""The command `debiasbench data import`."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from debiasbench.cli.data_import import import_
from debiasbench.common.errors import OptionError
from debiasbench.files import importing
from debiasbench.files.importing import BadRows, Source
from debiasbench.specs.plugins import Plugins
from tests.conftest import ACME, ToyPlugin
from tests.files.importing.birds import (
    HEAD,
    bird_rows,
    split_rows,
    write,
)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call `debiasbench data import` without the main program."""
    monkeypatch.chdir(tmp_path)
    plugins = Plugins([(ToyPlugin(), ACME)])

    def call(*words: object) -> Result:
        return CliRunner().invoke(import_, [str(w) for w in words], obj=plugins)

    return call


TABLE = ("--images", "birds", "--table", "birds.csv", "--label", "species", "--bias", "place")


def test_the_command_shows_groups_alignment_and_the_next_command(
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
Column 'img' contains the file names.
Each group is split at random into train/val/test, 70/10/20 %. --seed gives another split.
Aligned (more frequent with the class than by chance in training, P(bias | class) > P(bias)): \
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
    first = result.stderr.removeprefix("decode: 40 images\n")
    assert first.startswith("Warning: The train split has fewer than 10 images of ")


def test_the_command_passes_its_options_on(
    birds: Source, command: Callable[..., Result], tmp_path: Path
) -> None:
    write(tmp_path / "birds.csv", [(*HEAD, "s", "other"), *((*r, r[0]) for r in split_rows())])
    words = (
        *TABLE,
        "--file",
        "other",
        "--split",
        "s",
        "--size",
        "6x4",
        "--data-root",
        "my data",
        "--aligned",
        "land:field",
        "--aligned",
        "water:lake",
        "--quiet",
    )
    result = command("mine", *words)
    assert result.exit_code == 0, result.output
    assert "40 images of 6x4 pixels" in result.stdout
    assert "Aligned (as given by --aligned): land with field; water with lake." in result.stdout
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
        "60 of 100 images cannot be imported. The first one: line 42, gone0.png: is missing. "
        "Nothing was imported. Fix these images, or skip them with --skip-bad"
    )
    lines = result.stderr.removeprefix("decode: 40 images\n").splitlines()
    assert lines[0] == "line 42, gone0.png: is missing"
    assert len(lines) == 51
    assert lines[-1] == "and 10 more. Use --report FILE to list all of them"
    done = command("birds", *TABLE, "--skip-bad", "--report", "bad.csv")
    assert done.exit_code == 0, done.output
    assert "Skipped bad images: 60." in done.stdout
    assert "and 10 more. bad.csv lists all of them" in done.stderr
    with Path("bad.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["line", "file", "problem"]
    assert rows[1] == ["42", "gone0.png", "is missing"]
    assert len(rows) == 61


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("birds",), "Use one of --images FOLDER, --text COLUMN and --features"),
        (("birds", *TABLE, "--text", "note"), "--features, not --images and --text"),
        (("birds", "--text", "note"), "--text and --features require --table"),
        (("birds", *TABLE, "--text-pair", "note"), "--text-pair requires --text"),
        (("birds", *TABLE, "--categorical", "note"), "--categorical requires --features"),
        (("birds", "--text", "note", *TABLE[2:], "--size", "8"), "--size requires --images"),
        (("birds", "--features", "a,,b", *TABLE[2:]), "write names of columns, separated by"),
        (("birds", "--images", "birds", "--label", "species"), "--split require --table"),
        (("birds", *TABLE[:6]), "--table requires --label COLUMN and --bias COLUMN"),
        (("birds", *TABLE, "--size", "0x4"), "--size 0x4: use N or HxW in pixels"),
        (("birds", *TABLE, "--size", "big"), "--size big: use N or HxW in pixels"),
    ],
)
def test_options_that_do_not_fit_are_usage_errors(
    words: tuple[str, ...], message: str, command: Callable[..., Result]
) -> None:
    result = command(*words)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("name", ["digits", "toy"])
def test_the_name_of_a_registered_data_set_is_taken(
    name: str, birds: Source, command: Callable[..., Result]
) -> None:
    result = command(name, *TABLE)
    assert isinstance(result.exception, OptionError)
    assert not Path("data").exists()
