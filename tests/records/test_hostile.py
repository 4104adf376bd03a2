"""Folders that hold anything: each bad file is named and left out, and the others are read."""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard import FORMATS, boards, distinct, render
from debiasbench.leaderboard.panel import as_json, panels
from debiasbench.leaderboard.panel import grid as panel_grid
from debiasbench.records import reading
from debiasbench.records.beside import PREDICTIONS, digest
from debiasbench.records.inference import Inference
from debiasbench.records.reading import read, read_all
from debiasbench.records.record import from_json, to_json
from debiasbench.records.store import Store
from debiasbench.records.upgrade import spec_id
from debiasbench.records.verify import Together, verify
from tests.records.test_record import SPEC, altered, make_record
from tests.records.test_verify import honest, predictions

Cli = Callable[..., Result]
GOOD = replace(SPEC, seed=7)


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def inferred(stages: int = 1, **changes: Any) -> str:
    """Return a record with an inference, as it may have been changed by hand."""
    data = json.loads(to_json(make_record()))
    return json.dumps({**data, "inference": {"stages": stages, **changes}})


BAD = {
    "NaN in the spec": (altered("spec", training={"lr": float("nan")}), "it holds NaN"),
    "infinity by overflow": (
        altered("spec", training={"lr": 0.1}).replace("0.1}", "1e999}"),
        "the number inf",
    ),
    "infinity through nulls": (
        json.dumps({**json.loads(to_json(make_record())), "nulls": {"spec.training.lr": "inf"}}),
        "the number inf",
    ),
    "5,000 digits": (
        altered("spec", seed=0).replace('"seed": 0', '"seed": ' + "9" * 5000),
        "digits",
    ),
    "100 digits": (altered("spec", seed=10**100), "whole number of more than 64 bits"),
    "600 deep": (
        altered("spec", training={"lr": 1}).replace('"lr": 1', f'"lr": {deep(600)}'),
        "more than 32 lists",
    ),
    "100,000 deep": (deep(100_000), "is not valid JSON"),
    "a lone surrogate": (altered("spec", training={"lr": "\ud800"}), "half of a character"),
    "a list as precision": (
        altered("provenance", arithmetic={"precision": ["fp32"]}),
        "the precision in the provenance is not a name",
    ),
    "no classes": (
        altered(
            "task",
            classes=[],
            biases=[],
            aligned=[],
            group_counts={"train": [], "val": [], "test": []},
        ),
        "group counts of train",
    ),
    "too many samples": (
        altered("task", group_counts={"train": [2**63] * 4, "val": [10] * 4, "test": [10] * 4}),
        "group counts of train",
    ),
    "infinite cost": (
        altered("cost", training_flops=5.5).replace("5.5", "1e999"),
        "training_flops is inf",
    ),
    "more samples taken for conflicting than there are": (
        inferred(conflict=[0, 6, 0, 0]),
        "taken for conflicting do not fit the group counts",
    ),
    "a negative number of samples taken for conflicting": (
        inferred(conflict=[0, -1, 0, 0]),
        "taken for conflicting do not fit the group counts",
    ),
    "conflict of another number of groups": (
        inferred(conflict=[0, 0]),
        "taken for conflicting do not fit the group counts",
    ),
    "pseudo-groups of another number of groups": (
        inferred(groups=[[95, 5, 5, 95], []]),
        "pseudo-groups do not add up to the group counts",
    ),
    "pseudo-groups that do not add up": (
        inferred(groups=[[95, 5, 5, 94]]),
        "pseudo-groups do not add up to the group counts",
    ),
    "a negative pseudo-group": (
        inferred(groups=[[95, 5, 6, 95], [0, 0, -1, 0]]),
        "pseudo-groups do not add up to the group counts",
    ),
    "no pseudo-groups": (inferred(groups=[]), "pseudo-groups do not add up"),
    "an impossible AUC": (inferred(auc=1.5), r"the AUC is 1\.5"),
    "an infinite AUC": (inferred(auc=5.5).replace("5.5", "1e999"), "the AUC is inf"),
    "an empty inference": (inferred(), "the inference is empty"),
    "an inference after more stages than there are": (
        inferred(stages=2, auc=0.5),
        "after 2 of 1 stages",
    ),
    "a file name with a null byte": (
        json.dumps(
            {
                **json.loads(to_json(make_record())),
                "predictions": {"file": "a\0b", "sha256": "0"},
            }
        ),
        "predictions have no valid file name",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_record_with_an_impossible_value_is_refused_with_the_reason(kind: str) -> None:
    text, complaint = BAD[kind]
    with pytest.raises(RecordError, match=complaint):
        from_json(text)


def fill(folder: Path) -> list[str]:
    """Put a good record and everything bad into a folder; return the names of what is bad."""
    folder.mkdir(exist_ok=True)
    honest(folder, GOOD)
    for name, (text, _) in BAD.items():
        (folder / f"{name}.json").write_text(text)
    os.mkfifo(folder / "fifo.json")
    (folder / "loop.json").symlink_to("loop.json")
    (folder / "zero.json").symlink_to("/dev/zero")
    (folder / "dangling.json").symlink_to("nothing")
    with (folder / "huge.json").open("wb") as sparse:
        sparse.truncate(1 << 40)
    (folder / os.fsdecode(b"\xff\x1b[2J.json")).write_text("{")
    return sorted(p.name for p in folder.glob("*.json") if p.name != f"{GOOD.stem}.json")


def test_a_folder_of_bad_files_gives_the_good_record_and_names_the_others(tmp_path: Path) -> None:
    bad = fill(tmp_path / "results")
    records, problems = read_all([tmp_path / "results"])
    assert [record.id for _, record in records] == [GOOD.id]
    assert len(problems) == len(bad)
    for name, problem in zip(bad, problems, strict=True):
        assert problem.startswith(f"{tmp_path / 'results' / name} ")
        assert len(problem) < 700 + len(str(tmp_path))


@pytest.mark.parametrize("words", [("leaderboard",), ("verify",)])
def test_bad_files_are_warnings_and_control_characters_are_not_printed(
    debiasbench: Cli, words: tuple[str, ...]
) -> None:
    bad = fill(Path("results"))
    result = debiasbench(*words)
    named = [line for line in result.output.splitlines() if "results/" in line]
    assert len(named) == len(bad)
    assert "\x1b" not in result.output
    assert "results/\\udcff\\x1b[2J.json is not valid JSON" in result.output
    assert "erm" in result.output or "1 verified" in result.output
    assert result.exit_code == (0 if words == ("leaderboard",) else 9)


def test_a_fifo_as_predictions_is_a_contradiction(debiasbench: Cli) -> None:
    path = honest(Path("results"), GOOD)
    beside = path.with_name(path.stem + PREDICTIONS)
    beside.unlink()
    os.mkfifo(beside)
    result = debiasbench("verify")
    assert result.exit_code == 9
    assert "cannot be read: It is not a regular file" in result.stdout


def test_labels_that_become_negative_as_signed_numbers_are_not_labels(tmp_path: Path) -> None:
    values = {**predictions(), "test.group": np.full(40, 2**64 - 1, dtype=np.uint64)}
    entry = {"file": GOOD.stem + PREDICTIONS, "sha256": digest(values)}
    path = Store(tmp_path).save(make_record(GOOD, predictions=entry), values)
    assert "the predictions lack the labels of the 40 samples of test" in verify(path, read(path))


def test_a_folder_that_cannot_be_searched_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest(tmp_path, GOOD)
    honest(tmp_path / "closed", SPEC)
    scandir = os.scandir

    def closed(path: Any) -> Any:  # permissions do not stop the superuser
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    records, problems = read_all([tmp_path])
    assert [record.id for _, record in records] == [GOOD.id]
    assert problems == [f"{tmp_path / 'closed'} cannot be searched: Permission denied"]


def test_a_record_that_vanishes_while_the_folder_is_read_is_not_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest(tmp_path, GOOD)
    other = honest(tmp_path, SPEC)

    def removing(path: Path) -> Any:
        other.unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(reading, "read", removing)
    records, problems = read_all([tmp_path])
    assert ([record.id for _, record in records], problems) == ([GOOD.id], [])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every value inside a JSON value."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value[:2]):
            yield from places(item, (*path, i))


INFERENCE = Inference(1, conflict=[3, 4, 4, 3], groups=[[90, 1, 1, 0], [5, 4, 4, 95]], auc=0.75)
GOOD_DATA = json.loads(to_json(make_record(GOOD, inference=INFERENCE)))
PLACES = list(places(GOOD_DATA))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**31, 2**53, -(2**63), 2**63, 2**64, 10**400]),
    st.floats(allow_nan=False),
    st.text(),
    st.sampled_from(["\ud800", "\x1b[31m", "=1+1", "auto", "nan", "", "..", "/", "\0", "train.x"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def mutated(place: tuple[Any, ...], value: Any, *, key: str | None, forged: bool) -> str:
    """Replace, or add under a new key, one value of a good record; `forged`: with its right id."""
    data = copy.deepcopy(GOOD_DATA)
    inner = data
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1] if key is None or isinstance(inner, list) else key] = value
    if forged:
        # what is no spec has no id
        with suppress(AttributeError, TypeError, ValueError, KeyError):
            data["id"] = spec_id(data["spec"])
    return json.dumps(data)


@settings(max_examples=100)
@given(st.sampled_from(PLACES), VALUES, st.none() | st.text(), st.booleans())
def test_a_changed_record_is_read_or_named_and_never_ends_a_table(
    place: tuple[Any, ...], value: Any, key: str | None, forged: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        honest(folder)
        (folder / "changed.json").write_text(mutated(place, value, key=key, forged=forged))
        records, problems = read_all([folder])
        assert len(records) + len(problems) == 2
        together = Together()
        sound = [r for path, r in records if not together.examine(path, r).messages]
        assert sound
        compared, _ = distinct(sound)
        for form in FORMATS:
            text = render(boards(compared), form)
            text.encode()
            assert "\x1b" not in text
        with suppress(RecordError):  # nothing was inferred
            for board in panels(compared):
                panel_grid(board, "text")
                as_json([board]).encode()
