"""Classes and bias values that read the same become one; markers of missing values are found."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from debiasbench.common.wording import counted
from debiasbench.files.importing.wording import few

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from debiasbench.files.importing.source import Row, Source

MISSING = {"nan", "nat", "<na>", "#n/a"}
"""Texts that programs write for a missing value, in lower case; a row with one has no label."""

PERHAPS_MISSING = {"-", "-1", "?", "n/a", "na", "none", "null", "undefined", "unknown"}
"""Texts that may mean a missing value, but may also be a label; a warning names them."""

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab and line breaks

_NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]*)?")
_IGNORABLE = re.compile("[\u034f\ufe00-\ufe0f]")  # invisible, although not of category Cf
_JOINERS = "\u200c\u200d"  # invisible, but they change letters of some scripts around them


@lru_cache(maxsize=10_000)
def plain(text: str) -> str:
    """Return what a reader sees of a label: labels with the same result read the same.

    Canonically equivalent characters (NFC) are equal, and so are all kinds of spaces. Invisible
    characters are removed. A decimal number is written without a "+" and without zeros at the end
    of its fraction, so "1.0" is "1"; "01" and "1e0" stay as they are.
    """
    text = unicodedata.normalize("NFC", text)
    visible = [
        c
        for i, c in enumerate(text)
        if (unicodedata.category(c) != "Cf" and not _IGNORABLE.match(c)) or _joins(text, i)
    ]
    text = " ".join("".join(visible).split())
    if _NUMBER.fullmatch(text):
        text = text.removeprefix("+")
        text = text.rstrip("0").removesuffix(".") if "." in text else text
        text = "0" if text == "-0" else text
    return text


def _joins(text: str, i: int) -> bool:
    around = text[max(0, i - 1) : i + 2]
    return text[i] in _JOINERS and len(around) == 3 and not (around[0] + around[2]).isascii()


def is_missing(text: str) -> bool:
    """Return whether a label is empty, or a marker that programs write for a missing value."""
    return plain(text).lower() in {"", *MISSING}


def is_label(text: str) -> bool:
    """Return whether a text can name a class or a bias value."""
    return not is_missing(text) and not CONTROL.search(text)


def checked(rows: Sequence[Row], source: Source) -> tuple[list[Row], list[str]]:
    """Give labels of a column that read the same one name; return the rows, and warnings.

    The name is the shortest spelling, so it does not depend on the order of the rows. Other labels
    are not changed. The warnings name labels that became one, that are hard to tell apart, and that
    may mean a missing value.
    """
    warnings: list[str] = []
    noun = source.noun
    classes = _names(rows, [row.label for row in rows], source.label or "class", noun, warnings)
    columns = source.bias or ("bias",)
    biases = [
        _names(rows, [row.bias[i] for row in rows], column, noun, warnings)
        for i, column in enumerate(columns)
    ]
    warnings += _doubts("classes", sorted(set(classes.values())), noun)
    for column, names in zip(columns, biases, strict=True):
        kind = "bias values" if len(columns) == 1 else f"bias values of {column!r}"
        warnings += _doubts(kind, sorted(set(names.values())), noun)
    renamed = [
        replace(
            row,
            label=classes[row.label],
            bias=tuple(names[value] for names, value in zip(biases, row.bias, strict=True)),
        )
        for row in rows
    ]
    return renamed, warnings


def _names(
    rows: Sequence[Row], values: Sequence[str], column: str, noun: str, warnings: list[str]
) -> Mapping[str, str]:
    """Return spelling -> name for the values of a column, with a warning for each that changes."""
    first: dict[str, Row] = {}
    for row, value in zip(rows, values, strict=True):
        first.setdefault(value, row)
    counts = Counter(values)
    names = {}
    for spellings in _alike(counts, plain):
        names.update(dict.fromkeys(spellings, spellings[0]))
        if len(spellings) > 1:
            listed = [
                f"{_shown(text)} ({counted(counts[text], noun)}, the first is {first[text]})"
                for text in spellings
            ]
            warnings.append(
                f"Values of {column!r} that read the same are used as one, "
                f"{_shown(spellings[0])}: {few(listed, 4, '; ')}"
            )
    return names


def _alike(texts: Iterable[str], key: Callable[[str], object]) -> list[list[str]]:
    """Group texts by a key; each group is sorted by length, then alphabetically."""
    groups: dict[object, list[str]] = defaultdict(list)
    for text in texts:
        groups[key(text)].append(text)
    return [sorted(group, key=lambda text: (len(text), text)) for group in groups.values()]


def _shown(text: str) -> str:
    """Return a label in quotes; characters that may be invisible are written as escapes."""
    return repr(text) if text == plain(text) else ascii(text)


def _doubts(kind: str, names: Sequence[str], noun: str) -> list[str]:
    """Return warnings about names that are hard to tell apart or may mean a missing value."""
    warnings, named = [], set[str]()
    for difference, key in (
        ("differ only in upper and lower case", str.lower),
        ("differ only in the form of letters or digits", _folded),
        ("are equal numbers", _number),
    ):
        alike = [group for group in _alike(names, key) if len(group) > 1]
        if new := [name for group in alike if not named.issuperset(group) for name in group]:
            named.update(new)
            warnings.append(f"Some {kind} {difference}: {few(new)}")
    if doubtful := [name for name in names if _may_be_missing(name, names)]:
        warnings.append(
            f"Some {kind} may mean that the value is not known: {few(doubtful)}. If so, leave out "
            f"these {noun}s: otherwise they are groups of their own"
        )
    return warnings


def _folded(text: str) -> str:
    """Return a text without differences in case, width and ligatures."""
    return unicodedata.normalize("NFKC", text).casefold()


def _number(text: str) -> object:
    """Return the value of a finite number; another text is equal to itself only."""
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def _may_be_missing(name: str, names: Collection[str]) -> bool:
    if name == "-1":  # an ordinary value beside 1 alone, as in CelebA, or beside other negatives
        others = set(names) - {name}
        return others != {"1"} and not any(other.startswith("-") for other in others)
    return name.lower() in PERHAPS_MISSING
