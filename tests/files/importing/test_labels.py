"""Labels that read the same, that are hard to tell apart, and that stand for a missing value."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from debiasbench.files.importing import Finished, Source, import_data
from debiasbench.files.importing.labels import plain
from tests.files.importing.birds import HEAD, bird_rows, changed, problems, split_rows

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def relabelled(birds: Source, root: Path, *words: str, column: int = 1) -> Finished:
    """Import the birds with other classes (or bias values): a quarter has each of four words."""
    rows = []
    for i, row in enumerate(bird_rows()):
        kind = ("land", "water").index(row[1]) if column == 1 else ("field", "lake").index(row[2])
        cells = list(row)
        cells[column] = words[2 * (i // 2 % 2) + kind]
        rows.append(tuple(cells))
    return import_data("birds", changed(birds, [HEAD, *rows]), root)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((NFC, "dog", NFD, "dog"), (NFC, "dog")),
        (("0", "1", "0.0", "1.0"), ("0", "1")),
        (("0.0", "1.50", "-0", "+1.5"), ("-0", "+1.5")),
        (("cat", "dog", "cat\u200b", "\ufeffdog"), ("cat", "dog")),
        (("cat", "dog", "c\u00adat", "dog"), ("cat", "dog")),
        (("a cat", "dog", "a\u00a0cat", "dog"), ("a cat", "dog")),
        (("a cat", "dog", "a  cat", "dog"), ("a cat", "dog")),
    ],
)
def test_labels_that_read_the_same_are_one_and_the_warning_names_them(
    words: tuple[str, ...], names: tuple[str, str], birds: Source, tmp_path: Path
) -> None:
    done = relabelled(birds, tmp_path, *words)
    assert set(done.task.classes) == set(names)
    said = " ".join(w for w in done.warnings if "'species' that read the same are used as" in w)
    assert "10 images, the first is line 2, 000.png" in said
    assert all(ascii(word) in said or repr(word) in said for word in {*words} - {"dog"})


def test_bias_values_that_read_the_same_are_one(birds: Source, tmp_path: Path) -> None:
    done = relabelled(birds, tmp_path, "0", "1", "0.0", "1.0", column=2)
    assert done.task.biases == ("0", "1")
    assert len([w for w in done.warnings if w.startswith("Values of 'place'")]) == 2


def test_labels_in_one_spelling_keep_it(birds: Source, tmp_path: Path) -> None:
    done = relabelled(birds, tmp_path, NFD, "1.0", NFD, "1.0")
    assert set(done.task.classes) == {NFD, "1.0"}
    assert not any("used as one" in warning for warning in done.warnings)


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (("cat", "dog", "Cat", "dog"), "differ only in upper and lower case: Cat, cat"),
        (("True", "False", "true", "false"), "case: False, false, True, true"),
        (("x2", "dog", "x²", "dog"), "differ only in the form of letters or digits: x2, x²"),
        (("1", "2", "01", "2"), "are equal numbers: 1, 01"),
        (("100", "2", "1e2", "2"), "are equal numbers: 100, 1e2"),
    ],
)
def test_classes_that_are_hard_to_tell_apart_are_a_warning(
    words: tuple[str, ...], difference: str, birds: Source, tmp_path: Path
) -> None:
    done = relabelled(birds, tmp_path, *words)
    assert set(done.task.classes) == set(words)
    [said] = [w for w in done.warnings if w.startswith("Some classes ")]
    assert said.endswith(difference)


@pytest.mark.parametrize("word", ["nan", "NaN", "<NA>", "NaT", "#N/A", "\u200b"])
@pytest.mark.parametrize(("column", "kind"), [(1, "label"), (2, "bias")])
def test_a_marker_of_a_missing_value_is_no_label(
    word: str, column: int, kind: str, birds: Source, tmp_path: Path
) -> None:
    rows: list[tuple[str, ...]] = list(bird_rows())
    rows[3] = tuple(word if i == column else cell for i, cell in enumerate(rows[3]))
    source = changed(birds, [HEAD, *rows])
    [problem] = problems("birds", source, tmp_path)
    assert problem.startswith(f"line 5, 003.png: has no {kind} (column {HEAD[column]!r})")
    done = import_data("birds", source, tmp_path, skip_bad=True)
    assert (done.task.classes, done.task.biases) == (("land", "water"), ("field", "lake"))


@pytest.mark.parametrize(
    ("words", "doubtful"),
    [
        (("in", "out", "-1", "out"), "-1"),
        (("0", "1", "-1", "1"), "-1"),
        (("hat", "none", "hat", "Unknown"), "Unknown, none"),
        (("-1", "1", "-1", "1"), None),
        (("-2", "-1", "0", "1"), None),
    ],
)
def test_a_value_that_may_be_missing_is_a_warning(
    words: tuple[str, ...], doubtful: str | None, birds: Source, tmp_path: Path
) -> None:
    done = relabelled(birds, tmp_path, *words, column=2)
    said = [w for w in done.warnings if "the value is not known" in w]
    expected = f"Some bias values may mean that the value is not known: {doubtful}. "
    assert [w.startswith(expected) for w in said] == ([] if doubtful is None else [True])


def test_joiners_between_letters_that_they_join_are_kept() -> None:
    persian = "می\u200cخواهم"
    assert plain(persian) == persian
    assert plain("ca\u200dt\u200c") == "cat"


@pytest.mark.parametrize("words", [("0.0", "1.0", "2.0"), ("0", "1.", "2.00")])
def test_a_split_may_be_a_number_with_zeros_behind_the_point(
    words: tuple[str, ...], birds: Source, tmp_path: Path
) -> None:
    named = dict(zip(("train", "val", "test"), words, strict=True))
    rows = [(*row[:3], named[row[3]]) for row in split_rows()]
    done = import_data("b", changed(birds, [(*HEAD, "s"), *rows], split="s"), tmp_path)
    assert [len(s) for s in done.task.splits().values()] == [20, 10, 10]
    rows[0] = (*rows[0][:3], "0.5")
    bad = changed(birds, [(*HEAD, "s"), *rows], split="s")
    assert "unknown split '0.5'" in problems("b", bad, tmp_path / "other")[0]
