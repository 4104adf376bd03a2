"""Texts of a table become a data set as images do: bad rows, splits, alignment and checksum."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.core.data import Task
from debiasbench.core.texts import Texts
from debiasbench.files import importing
from debiasbench.files.importing import BadRows, Finished, Source, import_data
from tests.files.importing.birds import problems, write

HEAD = ("review", "reply", "stars", "brand")
Row = tuple[str, ...]


def rows(count: int = 60) -> list[Row]:
    """Reviews whose stars follow the brand, apart from every fifth."""
    made = []
    for i in range(count):
        good = i % 2
        brand = ("plain", "fancy")[good if i % 5 else 1 - good]
        made.append((f"Review {i}, “fine”\nnext", f"Reply {i}", str(good), brand))
    return made


def source(folder: Path, made: list[Row], **more: object) -> Source:
    table = write(folder / "reviews.csv", [HEAD, *made])
    values = {"text": ("review",), **more}
    return Source(table=table, label="stars", bias=("brand",), **values)  # type: ignore[arg-type]


def samples(task: Task) -> set[tuple[str, tuple[str, ...], str, str]]:
    found = set()
    for name, split in task.splits().items():
        assert isinstance(split.x, Texts)
        for texts, y, b in zip(split.x, split.y.tolist(), split.bias.tolist(), strict=True):
            found.add((name, texts, task.classes[y], task.biases[b]))
    return found


def imported(folder: Path, made: list[Row], **more: object) -> Finished:
    return import_data("reviews", source(folder, made, **more), folder, replace=True)


def test_texts_keep_their_labels_and_are_split_by_group(tmp_path: Path) -> None:
    task = imported(tmp_path, rows()).task
    expected = {((review,), stars, brand) for review, _, stars, brand in rows()}
    assert {sample[1:] for sample in samples(task)} == expected
    sizes = [len(split) for split in task.splits().values()]
    assert sizes == [42, 6, 12]
    assert task.aligned.tolist() == [[False, True], [True, False]]  # fancy, plain


def test_pairs_of_texts_stay_together(tmp_path: Path) -> None:
    task = imported(tmp_path, rows(), text=("review", "reply")).task
    expected = {((review, reply), stars, brand) for review, reply, stars, brand in rows()}
    assert {sample[1:] for sample in samples(task)} == expected


def test_the_split_depends_on_the_texts_and_the_seed_and_not_on_the_order(tmp_path: Path) -> None:
    usual = samples(imported(tmp_path, rows()).task)
    assert samples(imported(tmp_path, rows()[::-1]).task) == usual
    assert samples(imported(tmp_path, rows(), seed=1).task) != usual


def test_equal_texts_in_two_splits_are_a_warning(tmp_path: Path) -> None:
    head = (*HEAD, "split")
    made = [(*row, ("train", "val", "test")[i % 3]) for i, row in enumerate(rows())]
    made[1] = (made[0][0], *made[1][1:])
    table = write(tmp_path / "reviews.csv", [head, *made])
    split = Source(table=table, label="stars", bias=("brand",), split="split", text=("review",))
    done = import_data("reviews", split, tmp_path)
    assert done.warnings[0] == (
        "Texts that are equal to a text of another split: 1, such as line 4 (val) and line 2 "
        "(train)"
    )


def test_all_bad_rows_are_listed_with_their_lines_and_nothing_is_imported(tmp_path: Path) -> None:
    made = rows()
    made[3] = ("", *made[3][1:])
    made[5] = ("\u200b ", *made[5][1:])
    made[7] = (*made[7][:2], "", "plain")
    made[9] = (*made[9][:3], "nan")
    made[11] = ("one", "field", "less")
    found = problems("reviews", source(tmp_path, made), tmp_path)
    assert found == [
        "line 8: has no text (column 'review')",
        "line 11: has no text (column 'review')",
        "line 14: has no label (column 'stars')",
        "line 18: has no bias (column 'brand'): 'nan' stands for a missing value. If it is a name, "
        "rename it",
        "line 22: has 3 fields, but the header has 4",
    ]
    with pytest.raises(BadRows, match="5 of 60 texts cannot be imported"):
        import_data("reviews", source(tmp_path, made), tmp_path)
    done = import_data("reviews", source(tmp_path, made), tmp_path, skip_bad=True)
    assert sum(len(split) for split in done.task.splits().values()) == 55
    assert len(done.left_out) == 5


def test_a_text_may_be_as_long_as_a_book(tmp_path: Path) -> None:
    made = rows()
    made[3] = ("word " * 60_000, *made[3][1:])
    limit = csv.field_size_limit()
    task = imported(tmp_path, made).task
    assert max(len(sample[1][0]) for sample in samples(task)) > 200_000
    assert csv.field_size_limit() == limit


def test_a_text_without_letters_is_a_text(tmp_path: Path) -> None:
    made = rows()
    made[3] = ("?!", *made[3][1:])
    made[5] = ("\U0001f600", *made[5][1:])
    texts = {texts for _, texts, _, _ in samples(imported(tmp_path, made).task)}
    assert {("?!",), ("\U0001f600",)} <= texts


def test_a_balanced_test_split_has_as_many_texts_of_each_group(tmp_path: Path) -> None:
    task = imported(tmp_path, rows(200), balance_test=True).task
    assert len(set(task.group_counts(task.test).tolist())) == 1


def test_the_command_imports_shows_and_describes_texts(
    tmp_path: Path, debiasbench: Callable[..., Result]
) -> None:
    write(tmp_path / "reviews.csv", [HEAD, *rows()])
    words = ("--table", "reviews.csv", "--label", "stars", "--bias", "brand")
    pair = ("--text", "review", "--text-pair", "reply")
    result = debiasbench("data", "import", "reviews", *words, *pair)
    assert result.exit_code == 0, result.output
    assert "reviews: 60 pairs of texts, 2 classes, 2 bias values" in result.output
    assert "run --dataset reviews --method erm --model hf:bert-base-uncased" in result.output
    shown = debiasbench("show", "reviews")
    assert "pairs of texts." in shown.output
    assert "Text columns: review + reply" in shown.output
    assert "Images:" not in shown.output
    examples = debiasbench("data", "show", "reviews")
    assert "2: Reply 2" in examples.output
    assert "intact   reviews" in debiasbench("data", "check").output
    again = debiasbench("data", "import", "reviews", *words, "--text", "revew")
    assert (
        "Did you mean 'review'?"
        in debiasbench("data", "import", "other", *words, "--text", "revew").output
    )
    assert "is already imported" in again.output
    twice = debiasbench("data", "import", "other", *words, "--text", "stars")
    assert "Column 'stars' is used twice" in twice.output
    assert importing.names(tmp_path / "data") == ["reviews"]
    assert debiasbench("data", "remove", "reviews", "--yes").exit_code == 0
