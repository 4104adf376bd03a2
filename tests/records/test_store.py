"""Records are written completely or not at all, and one process at a time runs a spec."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debiasbench import Supervision
from debiasbench.common.errors import BusyError, RecordError, StoreError
from debiasbench.records import store
from debiasbench.records.record import to_json
from debiasbench.records.store import (
    PREDICTIONS,
    Store,
    digest,
    read,
    read_all,
    read_predictions,
    write_text,
)
from tests.records.test_record import SPEC, make_record

PREDICTED = {
    "test.y": np.array([1, 1, 2], dtype=np.uint8),
    "test.group": np.array([3, 2, 5], dtype=np.uint8),
    "test.epoch_1": np.array([1, 0, 2], dtype=np.uint8),
}


def saved(folder: Path, **changes: Any) -> Path:
    facts = {"file": SPEC.stem + PREDICTIONS, "sha256": digest(PREDICTED)}
    return Store(folder).save(make_record(predictions=facts, **changes), PREDICTED)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_saved_record_loads_equal_with_its_predictions_beside_it(tmp_path: Path) -> None:
    path = saved(tmp_path)
    loaded = Store(tmp_path).load(SPEC)
    assert loaded is not None
    assert to_json(loaded) == path.read_text()
    assert files(tmp_path) == [SPEC.stem + ".json", SPEC.stem + PREDICTIONS]
    stored = read_predictions(path, loaded, "val_conflict", "test")
    assert {name: values.tolist() for name, values in stored.items()} == {
        "y": [1, 1, 2],
        "group": [3, 2, 5],
        "predicted": [1, 0, 2],
    }


def test_predictions_of_another_record_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    record = read(path)
    (tmp_path / (SPEC.stem + PREDICTIONS)).write_bytes(b"other")
    with pytest.raises(RecordError, match="is not the file that"):
        read_predictions(path, record, "last", "test")
    (tmp_path / (SPEC.stem + PREDICTIONS)).unlink()
    with pytest.raises(RecordError, match="cannot be read"):
        read_predictions(path, record, "last", "test")


def test_a_write_that_fails_leaves_the_old_record_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device.*--results"):
        saved(tmp_path, supervision=Supervision(train="groups"))
    assert path.read_bytes() == before
    assert files(tmp_path) == [SPEC.stem + ".json", SPEC.stem + PREDICTIONS]


def test_a_second_claim_on_a_spec_is_refused_while_the_first_lasts(tmp_path: Path) -> None:
    with Store(tmp_path).claim(SPEC):
        second = Store(tmp_path).claim(SPEC)
        with pytest.raises(BusyError, match="being run by another process"):
            second.__enter__()
        with Store(tmp_path).claim(replace(SPEC, seed=1)):
            pass
    with Store(tmp_path).claim(SPEC):
        pass


def test_a_claim_leaves_no_file_and_removes_none_of_another_spec(tmp_path: Path) -> None:
    other = replace(SPEC, seed=1)
    with Store(tmp_path).claim(other):
        with Store(tmp_path).claim(SPEC):
            pass
        assert [p.name for p in (tmp_path / ".locks").iterdir()] == [f"{other.stem}.lock"]
    assert list((tmp_path / ".locks").iterdir()) == []


def test_an_unfinished_file_that_vanishes_does_not_disturb_a_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f".{SPEC.stem}.json").write_text("{")
    found = store.entries(tmp_path)
    (tmp_path / f".{SPEC.stem}.json").unlink()
    monkeypatch.setattr(store, "entries", lambda _: found)
    with Store(tmp_path).claim(SPEC):
        pass


def test_a_record_that_vanishes_while_it_is_read_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reading = saved(tmp_path), store.read

    def removed_before_reading(path: Path) -> Any:
        path.unlink()
        return reading(path)

    monkeypatch.setattr(store, "read", removed_before_reading)
    assert Store(tmp_path).load(SPEC) is None
    assert not path.exists()


def test_the_error_about_a_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    Store(tmp_path).path(SPEC).write_text("{")
    with pytest.raises(RecordError, match=r"is not valid JSON.*--overwrite always"):
        Store(tmp_path).load(SPEC)


def test_an_error_inside_a_claim_is_not_blamed_on_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), Store(tmp_path).claim(SPEC):
        raise FileNotFoundError("data")


def test_unfinished_files_of_a_killed_process_are_removed_by_the_next_claim(tmp_path: Path) -> None:
    leftover = tmp_path / f".{SPEC.stem}.json"
    leftover.write_text("{")
    other = tmp_path / f".{replace(SPEC, seed=1).stem}.json"
    other.write_text("{")
    assert read_all([tmp_path]) == ([], [])
    with Store(tmp_path).claim(SPEC):
        assert not leftover.exists()
        assert other.exists()


def test_the_error_about_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    claim = Store(tmp_path / "file" / "results").claim(SPEC)
    with pytest.raises(StoreError, match="Choose another folder with --results"):
        claim.__enter__()


def test_reading_a_folder_names_every_bad_file_and_keeps_the_good_ones(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    (tmp_path / "package.json").write_text('{"name": "left-pad"}')
    (tmp_path / "half.json").write_text(to_json(make_record())[:500])
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    records, problems = read_all([tmp_path])
    assert [r.id for _, r in records] == [SPEC.id]
    assert [p.split()[0] for p in problems] == [
        str(tmp_path / n) for n in ("binary.json", "half.json", "package.json")
    ]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    path = saved(tmp_path)
    records, _ = read_all([tmp_path, path, tmp_path])
    assert len(records) == 1


def test_a_place_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="No results at"):
        read_all([tmp_path / "nothing"])


def test_text_is_written_completely_or_the_error_names_the_file(tmp_path: Path) -> None:
    write_text(tmp_path / "page.md", "hello\n")
    assert (tmp_path / "page.md").read_text() == "hello\n"
    with pytest.raises(StoreError, match="Cannot write"):
        write_text(tmp_path / "nowhere" / "page.md", "hello\n")
