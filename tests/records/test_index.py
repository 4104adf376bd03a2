"""The index of a folder: the same tables with it as without, and only changed files are read."""

from __future__ import annotations

import io
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard import render
from debiasbench.leaderboard.board import boards
from debiasbench.leaderboard.gather import Gathered, gather
from debiasbench.records import reading
from debiasbench.records.beside import PREDICTIONS
from debiasbench.records.index import folder, kept, places
from debiasbench.records.record import to_json
from debiasbench.specs.spec import Choice
from tests.records.test_record import SPEC, make_record
from tests.records.test_verify import edit, honest, inferring, set_at

PUBLISHED = Path(__file__).parents[2] / "leaderboard" / "records"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Index small folders, and files that have just been written, in a cache of the test."""
    monkeypatch.setattr(folder, "LEAST", 1)
    monkeypatch.setattr(folder, "SETTLED", -1e9)
    monkeypatch.setenv("DEBIASBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make records of each kind: two methods, a failed run, one without predictions, inferences."""
    place = tmp_path_factory.mktemp("made")
    for seed in range(3):
        for i, method in enumerate(("erm", "lff")):
            spec = replace(SPEC, method=Choice(method, {"flag": i == 0}), seed=seed)
            honest(place / method, spec, (9 - i, 5 + seed, 4, 10))
    failed = make_record(replace(SPEC, seed=7), failed=True)
    path = honest(place, replace(SPEC, seed=8))
    path.with_name(f"{failed.spec.stem}.json").write_text(to_json(failed))
    path.with_name(path.stem + PREDICTIONS).unlink()
    inferring(place / "deep" / "er", replace(SPEC, method=Choice("jtt"), seed=0))
    return place


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "results")


def tables(found: Gathered, select: str | None = None) -> str:
    made = boards(found.records, select=select, correct=found.correct, unverified=found.unverified)
    return render(made, "json") + render(made, "markdown")


def both(place: Path, select: str | None = None) -> tuple[Gathered, Gathered]:
    """Gather with the index and without; check that nothing differs."""
    known, plain = gather([place], select), gather([place], select, index=False)
    assert tables(known, select) == tables(plain, select)
    assert known.problems == plain.problems
    assert known.paths == plain.paths
    assert list(known.paths) == list(plain.paths)
    assert repr(known.records) == repr(plain.records)
    assert known.unverified == plain.unverified
    for rule, of in plain.correct.items():
        assert {i: (c.bits, c.group.tolist()) for i, c in of.items()} == {
            i: (c.bits, c.group.tolist()) for i, c in known.correct[rule].items()
        }
    return known, plain


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the names of the record files that are read."""
    names: list[str] = []
    real = reading.read

    def counting(path: Path) -> Any:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(reading, "read", counting)
    return names


def read_by(call: Callable[[], object], reads: list[str]) -> list[str]:
    reads.clear()
    call()
    return list(reads)


@pytest.mark.parametrize("select", [None, "last", "val_conflict"])
def test_tables_are_the_same_with_an_index_whichever_rule_filled_it(
    results: Path, select: str | None
) -> None:
    both(results)
    both(results, select)


@pytest.mark.parametrize("name", ["cmnist-h200", "cmnist-cpu"])
def test_tables_of_real_records_are_the_same_with_an_index(name: str) -> None:
    both(PUBLISHED / name)
    both(PUBLISHED / name)
    assert [one.place for one in kept()] == [str(PUBLISHED / name)]


def test_the_second_call_reads_no_file_that_has_not_changed(
    results: Path, reads: list[str]
) -> None:
    assert len(read_by(lambda: gather([results]), reads)) == 9
    assert read_by(lambda: gather([results]), reads) == []
    assert read_by(lambda: gather([results], "last"), reads) == []


def test_a_record_that_is_replaced_added_or_removed_is_seen_at_once(
    results: Path, reads: list[str]
) -> None:
    gather([results])
    spec = replace(SPEC, method=Choice("erm", {"flag": True}), seed=0)
    path = honest(results / "erm", spec, (1, 1, 1, 1))
    assert read_by(lambda: gather([results]), reads) == [path.name]
    both(results)
    added = honest(results / "erm", replace(spec, seed=5))
    assert read_by(lambda: gather([results]), reads) == [added.name]
    both(results)
    added.unlink()
    known, _ = both(results)
    assert added not in known.paths.values()


def test_a_change_that_keeps_size_and_modification_time_is_seen(results: Path) -> None:
    gather([results])
    path = next((results / "erm").glob("*.json"))
    status = path.stat()
    text = path.read_text()
    assert '"lr": 0.1' in text
    path.write_text(text.replace('"lr": 0.1', '"lr": 0.7'))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    known, _ = both(results)
    assert any("was changed by hand" in problem for problem in known.problems)


def test_a_file_that_has_just_been_written_is_read_again(
    results: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "SETTLED", 60.0)
    gather([results])
    assert len(read_by(lambda: gather([results]), reads)) == 9


def test_changed_removed_and_added_predictions_are_seen(results: Path) -> None:
    gather([results])
    file = next((results / "erm").glob(f"*{PREDICTIONS}"))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    known, _ = both(results)
    assert any("is not the file that" in problem for problem in known.problems)
    file.unlink()
    known, _ = both(results)
    assert len(known.unverified) == 2
    file.write_bytes(content)
    known, _ = both(results)
    assert len(known.unverified) == 1
    assert known.problems == []


def test_damaged_and_contradictory_records_keep_their_messages(results: Path) -> None:
    paths = sorted((results / "lff").glob("*.json"))
    edit(paths[0], set_at("outcomes", "last", "test", "hits", value=[10, 5, 4, 10]))
    paths[1].write_text("{")
    for _ in range(3):
        known, _ = both(results)
        assert len(known.problems) == 2


def test_two_files_of_one_spec_are_named_with_equal_or_different_results(results: Path) -> None:
    path = next((results / "erm").glob("*-0-*.json"))
    shutil.copy(path, results / "erm" / "zz.json")
    for _ in range(2):
        known, _ = both(results)
        assert "with equal results" in known.problems[0]
    spec = replace(SPEC, method=Choice("erm", {"flag": True}), seed=0)
    honest(results / "erm" / "again", spec, (1, 2, 3, 4))
    for _ in range(2):
        known, _ = both(results)
        assert sum("with different results" in problem for problem in known.problems) == 2


def _array() -> bytes:
    np.save(content := io.BytesIO(), np.zeros(3))
    return content.getvalue()


def _pickle() -> bytes:
    np.savez(content := io.BytesIO(), about=np.array([{}], dtype=object))
    return content.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"no archive"),
        lambda file: file.write_bytes(file.read_bytes()[:-40]),
        lambda file: file.write_bytes(file.read_bytes()[:700] + b"\0\1" + file.read_bytes()[702:]),
        lambda file: file.write_bytes(_array()),
        lambda file: file.write_bytes(_pickle()),
    ],
)
def test_a_damaged_index_is_ignored_and_written_again(
    results: Path, reads: list[str], damage: Callable[[Path], object]
) -> None:
    gather([results])
    (one,) = kept()
    damage(one.path)
    both(results)
    both(results)
    assert read_by(lambda: gather([results]), reads) == []


@pytest.mark.parametrize("rule", ["last", "val_unbiased"])
def test_every_flipped_byte_of_an_index_is_noticed_or_changes_nothing(
    results: Path, rule: str
) -> None:
    expected = tables(gather([results], rule), rule)
    (one,) = kept()
    content = one.path.read_bytes()
    for place in np.random.default_rng(0).integers(len(content), size=25).tolist():
        one.path.write_bytes(
            content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]
        )
        assert tables(gather([results], rule), rule) == expected


def test_an_index_of_other_code_is_ignored(
    results: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gather([results])
    monkeypatch.setattr(folder, "version", lambda: "other")
    assert len(read_by(lambda: gather([results]), reads)) == 9
    assert read_by(lambda: gather([results]), reads) == []


def test_the_version_follows_from_the_code_that_verifies() -> None:
    assert places.ROOT.name == "debiasbench"
    names = {file for name in places.CODE for file in (places.ROOT / name).rglob("*.py")}
    names |= {places.ROOT / name for name in places.CODE if name.endswith(".py")}
    assert all(file.exists() for file in names)
    assert places.ROOT / "records" / "verify.py" in names


def test_an_index_is_written_again_only_after_enough_changes(
    results: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gather([results])
    monkeypatch.setattr(folder, "REWRITTEN", 4)
    path = honest(results, replace(SPEC, seed=20))
    for _ in range(2):
        assert read_by(lambda: gather([results]), reads) == [path.name]
    more = [honest(results, replace(SPEC, seed=seed)) for seed in (21, 22)]
    assert len(read_by(lambda: gather([results]), reads)) == 1 + len(more)
    assert read_by(lambda: gather([results]), reads) == []


def test_a_small_folder_has_no_index(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "LEAST", 10)
    gather([results])
    assert kept() == []


def test_an_unwritable_cache_and_none_change_no_table(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for cache in (str(tmp_path / "file" / "in"), "0"):
        monkeypatch.setenv("DEBIASBENCH_CACHE", cache)
        both(results)
        assert kept() == []


def test_the_folder_of_records_gets_no_other_files(results: Path) -> None:
    before = sorted(results.rglob("*"))
    gather([results])
    assert sorted(results.rglob("*")) == before


def test_two_processes_at_once_leave_a_whole_index(results: Path, reads: list[str]) -> None:
    threads = [threading.Thread(target=gather, args=([results],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_by(lambda: gather([results]), reads) == []
    assert len(kept()) == 1
    assert [file.suffix for file in kept()[0].path.parent.iterdir()] == [".npz"]


def test_links_and_several_places_are_read_once(results: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    path = next((results / "erm").glob("*.json"))
    (linked / "a.json").symlink_to(path)
    expected = tables(gather([results, linked], index=False))
    for _ in range(2):
        assert tables(gather([results, linked])) == expected
        assert len(gather([linked, results]).records) == 9


def test_indexes_of_folders_that_are_gone_are_removed_alone(results: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(results, other)
    gather([results])
    gather([other])
    shutil.rmtree(other)
    assert [one.place for one in places.remove(only_orphans=True)] == [str(other)]
    assert [one.place for one in kept()] == [str(results)]
    assert len(places.remove()) == 1
    with pytest.raises(RecordError):
        gather([other])


def test_a_new_reference_of_the_labels_is_seen_by_records_that_are_known(results: Path) -> None:
    from safetensors.numpy import load_file, save_file

    gather([results])
    file = next((results / "erm").glob(f"*{PREDICTIONS}"))
    stored = {k: v for k, v in load_file(file).items() if k.endswith((".y", ".group"))}
    stored["test.y"] = 1 - stored["test.y"]
    (results / "references").mkdir()
    save_file(stored, results / "references" / "f00d.safetensors")
    known, _ = both(results)
    assert len(known.problems) == 6  # references are beside a record or in the folder above
    shutil.rmtree(results / "references")
    known, _ = both(results)
    assert known.problems == []
