"""Records are merged between places: equal ones once, conflicts named, nothing half."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from debiasbench.common.errors import Interrupted, RecordError
from debiasbench.common.locks import locked
from debiasbench.common.progress import Progress
from debiasbench.records.beside import PREDICTIONS, WEIGHTS, digest, read_predictions, sha256
from debiasbench.records.held import Choice
from debiasbench.records.places.copying import Copying, Tally
from debiasbench.records.places.folder import FolderShelf
from debiasbench.records.places.place import shelf
from debiasbench.records.places.shelf import Shelf
from debiasbench.records.reading import read, read_all
from debiasbench.records.record import to_json
from debiasbench.records.store import Store
from tests.records.places import servers
from tests.records.test_record import SPEC, make_record
from tests.records.test_upgrade import schema_1
from tests.records.test_verify import HITS, edit, honest, predictions, set_at


@pytest.fixture(scope="module")
def server() -> Iterator[servers.S3]:
    with servers.s3() as running:
        yield running


@pytest.fixture(params=servers.KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        request.getfixturevalue("server")
    return servers.url(request.param, tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make three records with predictions, one of a failed run, and other files."""
    folder = tmp_path_factory.mktemp("made")
    for seed in range(3):
        honest(folder, replace(SPEC, seed=seed))
    Store(folder).save(make_record(replace(SPEC, seed=7), failed=True), None)
    for name in (".stages/abc/finished", ".locks/x.lock", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not a record")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "here")


def copied(source: str | Path, target: str | Path, **options: Any) -> Tally:
    return Copying(shelf(str(source)), shelf(str(target)), **options).run(Progress())


def numbers(tally: Tally) -> tuple[int, int, int]:
    assert not tally.bad
    return tally.copied, tally.there, len(tally.conflicts)


def files(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder that are no hidden ones."""
    found = servers.contents(str(folder))
    return {name: content for name, content in found.items() if not name.startswith(".")}


def test_records_come_back_as_they_were_with_their_predictions(
    here: Path, place: str, tmp_path: Path
) -> None:
    assert numbers(copied(here, place)) == (4, 0, 0)
    assert len(servers.contents(place)) == 7
    assert numbers(copied(place, tmp_path / "back")) == (4, 0, 0)
    expected = files(here)
    del expected["notes.txt"]
    assert files(tmp_path / "back") == expected


def test_equal_records_are_not_copied_again(here: Path, place: str) -> None:
    copied(here, place)
    before = servers.contents(place)
    assert numbers(copied(here, place)) == (0, 4, 0)
    assert numbers(copied(place, here)) == (0, 4, 0)
    assert servers.contents(place) == before


def test_places_are_merged(here: Path, place: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for seed in (2, 3):
        honest(other, replace(SPEC, seed=seed))
    copied(here, place)
    assert numbers(copied(other, place)) == (1, 1, 0)
    assert numbers(copied(place, other)) == (3, 2, 0)
    assert {record.spec.seed for _, record in read_all([other])[0]} == {0, 1, 2, 3, 7}


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_two_different_records_of_a_spec_are_a_conflict_that_changes_nothing(
    here: Path, place: str, tmp_path: Path, direction: str
) -> None:
    copied(here, place)
    other = tmp_path / "other"
    honest(other, SPEC, (9, 5, 5, 10))
    edit(other / f"{SPEC.stem}.json", set_at("provenance", "hardware", value="another machine"))
    before = servers.contents(place), files(other)
    ends = (other, place) if direction == "push" else (place, other)
    tally = copied(*ends)
    (message,) = tally.conflicts
    assert f"{SPEC.stem}: " in message
    assert message.endswith("They differ in provenance.hardware, predictions, outcomes")
    after = files(other)
    assert servers.contents(place) == before[0]
    assert before[1].items() <= after.items()
    assert len(after) == (2 if direction == "push" else 7)  # the others are copied all the same


def test_a_conflict_says_that_the_results_are_equal(here: Path, tmp_path: Path) -> None:
    copied(here, tmp_path / "there")
    edit(here / f"{SPEC.stem}.json", set_at("provenance", "hardware", value="another machine"))
    (message,) = copied(here, tmp_path / "there").conflicts
    assert "different records of one spec, with equal results. They differ in provenance.har" in (
        message
    )


def test_records_that_differ_in_times_only_are_equal(here: Path, place: str) -> None:
    copied(here, place)
    before = servers.contents(place)
    path = here / f"{SPEC.stem}.json"
    edit(path, set_at("provenance", "started", value="2026-11-27T00:00:00+00:00"))
    edit(path, set_at("cost", "wall_seconds", value=11.0))
    assert numbers(copied(here, place)) == (0, 4, 0)
    assert servers.contents(place) == before


def test_a_run_that_succeeded_replaces_one_that_failed_and_never_the_other_way_round(
    here: Path, place: str, tmp_path: Path
) -> None:
    copied(here, place)
    spec, fixed = replace(SPEC, seed=7), tmp_path / "fixed"
    honest(fixed, spec)
    assert numbers(copied(fixed, place)) == (1, 0, 0)
    assert (
        servers.contents(place)[f"{spec.stem}.json"] == (fixed / f"{spec.stem}.json").read_bytes()
    )
    assert numbers(copied(here, place)) == (0, 4, 0)
    assert numbers(copied(place, here)) == (1, 3, 0)
    assert read(here / f"{spec.stem}.json").status == "ok"
    assert (here / f"{spec.stem}{PREDICTIONS}").exists()


def test_weights_are_only_copied_if_asked_for_also_later(place: str, tmp_path: Path) -> None:
    predicted, weights = predictions(), b"weights" * 1000
    record = make_record(
        predictions={"file": SPEC.stem + PREDICTIONS, "sha256": digest(predicted)},
        weights={"file": SPEC.stem + WEIGHTS, "sha256": sha256(weights), "rule": "last"},
    )
    Store(tmp_path / "here").save(record, predicted, weights)
    assert numbers(copied(tmp_path / "here", place)) == (1, 0, 0)
    assert f"{SPEC.stem}{WEIGHTS}" not in servers.contents(place)
    assert numbers(copied(tmp_path / "here", place, with_weights=True)) == (1, 0, 0)
    assert numbers(copied(tmp_path / "here", place, with_weights=True)) == (0, 1, 0)
    assert numbers(copied(place, tmp_path / "back", with_weights=True)) == (1, 0, 0)
    assert files(tmp_path / "back") == files(tmp_path / "here")
    servers.put(place, f"{SPEC.stem}{WEIGHTS}", b"forged")
    tally = copied(place, tmp_path / "third", with_weights=True)
    assert "is not the file that" in tally.bad[0]
    assert f"{SPEC.stem}.json" not in servers.contents(str(tmp_path / "third"))


def test_only_chosen_records_are_copied(here: Path, place: str) -> None:
    assert numbers(copied(here, place, wanted=Choice(seeds=frozenset({1})))) == (1, 0, 0)
    assert numbers(copied(here, place, wanted=Choice(failed=True))) == (1, 0, 0)
    assert numbers(copied(here, place, wanted=Choice(method="lff"))) == (0, 0, 0)
    assert {name.partition("-")[0] for name in servers.contents(place)} == {"toy"}
    assert len(servers.contents(place)) == 3


# --- what others wrote ------------------------------------------------------------------------


def forged(name: str, change: Callable[[dict[str, Any]], object]) -> tuple[str, bytes]:
    data = json.loads(to_json(make_record()))
    change(data)
    return name, json.dumps(data).encode()


BAD = {
    "another id": forged("a.json", lambda d: d.update(id="0" * 16)),
    "another spec": forged("a.json", lambda d: d["spec"].update(seed=9)),
    "no record": ("a.json", b"{}"),
    "no JSON": ("a.json", b"\xff"),
    "too large": ("a.json", b" " * ((64 << 20) + 1)),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_valid_record_is_named_and_not_stored(
    here: Path, tmp_path: Path, bad: str
) -> None:
    place = servers.url("memory", tmp_path)
    copied(here, place)
    name, content = BAD[bad]
    servers.put(place, name, content)
    tally = copied(place, tmp_path / "back")
    assert (tally.copied, len(tally.bad)) == (4, 1)
    assert tally.bad[0].startswith(f"{place}/{name} ")
    assert len(files(tmp_path / "back")) == 7


def test_predictions_that_are_not_those_of_the_record_are_refused_with_the_record(
    here: Path, place: str, tmp_path: Path
) -> None:
    copied(here, place)
    servers.put(place, f"{SPEC.stem}{PREDICTIONS}", b"forged")
    tally = copied(place, tmp_path / "back")
    assert (tally.copied, len(tally.bad)) == (3, 1)
    assert f"{SPEC.stem}{PREDICTIONS} is not the file that {SPEC.stem}.json was" in tally.bad[0]
    assert not [name for name in files(tmp_path / "back") if name.startswith(SPEC.stem)]


def test_names_at_the_place_never_decide_a_name_here(tmp_path: Path) -> None:
    place = servers.url("memory", tmp_path)
    predicted = predictions()
    entry = {"file": "../../outside.safetensors", "sha256": digest(predicted)}
    record = make_record(SPEC, HITS, predictions=entry)
    honest(tmp_path / "made", SPEC)
    content = (tmp_path / "made" / f"{SPEC.stem}{PREDICTIONS}").read_bytes()
    servers.put(place, "sub/whatever;*[a].json", to_json(record).encode())
    servers.put(place, "sub/outside.safetensors", content)
    back = tmp_path / "deep" / "down" / "back"
    assert numbers(copied(place, back)) == (1, 0, 0)
    assert set(files(back)) == {f"{SPEC.stem}.json", f"{SPEC.stem}{PREDICTIONS}"}
    path = back / f"{SPEC.stem}.json"
    assert (read_predictions(path, read(path), "last", "test")["y"] == predicted["test.y"]).all()
    assert not list(tmp_path.glob("deep/*.safetensors"))


@pytest.mark.parametrize(
    "name", ["../a.json", "/etc/a.json", "a/../../b", ".hidden", "a//b", "a\0"]
)
def test_a_folder_refuses_names_that_lead_out_of_it(tmp_path: Path, name: str) -> None:
    for call in (FolderShelf(tmp_path).read, FolderShelf(tmp_path).remove):
        with pytest.raises(RecordError, match="cannot be the name of a file"):
            call(name)


def test_a_record_of_an_older_schema_is_copied_in_the_current_one(
    place: str, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    data = schema_1({"precision": "auto"}, {"precision": "bf16"})
    (old / f"toy-erm-0-{data['id']}.json").write_text(json.dumps(data))
    assert numbers(copied(old, place)) == (1, 0, 0)
    spec = replace(SPEC, training={**SPEC.training, "precision": "bf16"})
    (name,) = servers.contents(place)
    assert name == f"{spec.stem}.json"
    assert numbers(copied(old, place)) == (0, 1, 0)
    assert numbers(copied(place, old)) == (0, 1, 0)  # it has it under its former name


def test_records_whose_predictions_are_missing_are_copied_with_a_warning(
    here: Path, place: str
) -> None:
    (here / f"{SPEC.stem}{PREDICTIONS}").unlink()
    tally = copied(here, place)
    assert numbers(tally) == (4, 0, 0)
    assert tally.warnings == [f"{here}/{SPEC.stem}.json: its predictions are missing"]


# --- interruptions and races ------------------------------------------------------------------


class Watched:
    """A place that fails before one of its writes, and remembers in which order they come."""

    def __init__(self, inner: Shelf, fails_at: float = math.inf) -> None:
        self._inner, self._fails_at = inner, fails_at
        self.written: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, name: str, content: bytes | Path, *, new: bool) -> None:
        self.written.append(name)
        if len(self.written) > self._fails_at:
            raise Interrupted(resumable=False)
        self._inner.write(name, content, new=new)


def test_what_is_beside_a_record_is_written_before_it(here: Path, place: str) -> None:
    there = Watched(shelf(place))
    Copying(shelf(str(here)), there).run(Progress())
    for name in there.written:
        if name.endswith(PREDICTIONS):
            record = name.replace(PREDICTIONS, ".json")
            assert there.written.index(name) < there.written.index(record)


@pytest.mark.parametrize("fails_at", range(8))
def test_an_interrupted_copy_leaves_complete_records_and_goes_on_later(
    here: Path, place: str, tmp_path: Path, fails_at: int
) -> None:
    there = Watched(shelf(place), fails_at)
    if fails_at < 7:
        with pytest.raises(Interrupted) as stopped:
            Copying(shelf(str(here)), there).run(Progress())
        records = [n for n in servers.contents(place) if n.endswith(".json")]
        assert stopped.value.resumable == bool(records)
    else:
        Copying(shelf(str(here)), there).run(Progress())
    tally = copied(place, tmp_path / "part")
    assert not tally.bad
    assert not tally.warnings
    assert sum(numbers(copied(here, place))) == 4
    assert numbers(copied(place, tmp_path / "part"))[2] == 0
    assert len(files(tmp_path / "part")) == 7


def test_a_file_that_no_record_names_is_replaced_even_if_it_is_larger(
    here: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    own = next(here.glob(f"*{PREDICTIONS}"))
    (target / own.name).write_bytes(own.read_bytes() + b"x" * 100)
    assert numbers(copied(here, target)) == (4, 0, 0)
    assert (target / own.name).read_bytes() == own.read_bytes()


def test_a_request_to_stop_ends_it_after_the_transfers_that_have_begun(
    here: Path, place: str
) -> None:
    for seed in range(10, 60):
        honest(here, replace(SPEC, seed=seed))
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise Interrupted(resumable=False)

    with pytest.raises(Interrupted) as stopped:
        Copying(shelf(str(here)), shelf(place)).run(Progress(), check)
    assert stopped.value.exit_code == 75
    number = sum(name.endswith(".json") for name in servers.contents(place))
    assert number > 0
    assert f"Interrupted after {number} copies: run the same command again" in str(stopped.value)
    assert numbers(copied(here, place)) == (54 - number, number, 0)


class Raced:
    """A place to which another process writes its own record just before each write of this one."""

    def __init__(self, inner: Shelf, other: Path) -> None:
        self._inner, self._other = inner, other

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, name: str, content: bytes | Path, *, new: bool) -> None:
        other = self._other / name
        if other.exists() and name.endswith(".json"):
            content_of_other = other.read_bytes()
            other.unlink()
            self._inner.write(name, content_of_other, new=True)
        self._inner.write(name, content, new=new)


def test_a_record_that_another_process_writes_meanwhile_is_a_conflict_too(
    here: Path, place: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    honest(other, SPEC)
    edit(other / f"{SPEC.stem}.json", set_at("provenance", "hardware", value="another machine"))
    theirs = (other / f"{SPEC.stem}.json").read_bytes()
    tally = Copying(shelf(str(here)), Raced(shelf(place), other)).run(Progress())
    assert numbers(tally) == (3, 0, 1)
    assert servers.contents(place)[f"{SPEC.stem}.json"] == theirs


def test_a_record_whose_spec_is_being_run_is_left_to_the_run(here: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    with locked(there, SPEC.stem):
        tally = copied(here, there)
    assert (tally.copied, len(tally.busy)) == (3, 1)
    assert tally.busy[0].startswith(f"{SPEC.stem} is being run by another process")


def test_files_that_are_incomplete_are_never_visible_on_a_shared_disk(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = servers.url("shared", tmp_path)

    def broken(self: Any, path: str, value: bytes, **_: Any) -> None:
        with self.open(path, "wb") as file:
            file.write(value[: len(value) // 2])
        raise OSError("the disk was removed")

    monkeypatch.setattr(servers.Shared, "pipe_file", broken)
    with pytest.raises(Exception, match="the disk was removed"):
        copied(here, place)
    monkeypatch.undo()
    assert servers.contents(place) == {}


# --- searches ---------------------------------------------------------------------------------


def test_the_files_of_searches_are_copied_under_checked_names(
    here: Path, place: str, tmp_path: Path
) -> None:
    trial = json.loads(to_json(make_record()))
    trial["predictions"] = {"file": "t-1.predictions.safetensors", "sha256": sha256(b"x")}
    good = {
        "search/s-1.search.json": b'{"trials": []}',
        "search/t-1.trial.json": json.dumps(trial).encode(),
        "search/t-1.predictions.safetensors": b"x",
    }
    for name, content in good.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content)
    for name in ("search/a/b/c.json", "search/x.pkl", "search/.hidden.json"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(b"{}")
    tally = copied(here, place)
    assert (tally.copied, tally.searches, tally.bad) == (4, 2, [])
    assert copied(place, tmp_path / "back").searches == 2
    assert copied(place, tmp_path / "back").searches == 0
    found = files(tmp_path / "back")
    assert {name: found[name] for name in found if name.startswith("search")} == good
    (here / "search/s-1.search.json").write_bytes(b"{}")
    assert copied(here, place).conflicts == [f"search/s-1.search.json is another file in {place}"]
    assert copied(here, servers.url("memory", tmp_path), wanted=Choice(method="erm")).searches == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predictions": {"file": "../../x.safetensors", "sha256": ""}}, "no valid name"),
        ({"predictions": {"file": "t.safetensors", "sha256": "0"}}, "is not the file that"),
        ({"id": "0" * 16}, "its id is not that of its spec"),
        ({"predictions": 3}, "is not a file of a search"),
    ],
)
def test_a_trial_that_contradicts_itself_is_not_stored(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    place = servers.url("memory", tmp_path)
    data = json.loads(to_json(make_record())) | change
    servers.put(place, "search/t.trial.json", json.dumps(data).encode())
    servers.put(place, "search/t.safetensors", b"x")
    tally = copied(place, tmp_path / "back")
    assert tally.searches == 0
    assert message in tally.bad[0]
    assert files(tmp_path / "back") == {}
