"""Boards that are kept: the same tables as without them, and none after anything has changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from debiasbench.leaderboard import board, kept, table
from debiasbench.records import index
from debiasbench.records.beside import PREDICTIONS, sha256
from debiasbench.records.index import folder, places
from debiasbench.specs.spec import Choice
from tests.records.test_record import SPEC
from tests.records.test_verify import edit, honest, set_at

PUBLISHED = Path(__file__).parents[2] / "leaderboard" / "records"


@pytest.fixture(autouse=True, params=["boards", "boards and texts"])
def at_once(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Index small folders, and files that have just been written, in a cache of the test."""
    if request.param != "boards":
        monkeypatch.setattr(kept, "MANY", 0)
    monkeypatch.setattr(folder, "LEAST", 1)
    monkeypatch.setattr(folder, "SETTLED", -1e9)
    monkeypatch.setenv("DEBIASBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make records of two methods on two data sets, one of which contradicts itself."""
    place = tmp_path_factory.mktemp("made")
    for name in ("digits", "other"):
        for seed in range(3):
            for i, method in enumerate(("erm", "lff")):
                spec = replace(
                    SPEC, dataset=Choice(name), method=Choice(method, {"flag": i == 0}), seed=seed
                )
                honest(place / name / method, spec, (9 - i, 5 + seed, 4, 10))
    bad = honest(place, replace(SPEC, seed=8))
    edit(bad, set_at("outcomes", "last", "test", "hits", value=[10, 5, 4, 10]))
    return place


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "results")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the data sets of the boards that are computed."""
    names: list[str] = []
    real = board._board

    def counting(asked: board.Asked, *arguments: Any, **more: Any) -> board.Board:
        names.append(asked.dataset)
        return real(asked, *arguments, **more)

    monkeypatch.setattr(board, "_board", counting)
    return names


def both(place: Path, form: str = "json", **asked: Any) -> tuple[str, list[str]]:
    """Write tables with the index and without; check that nothing differs."""
    found, plain = table([place], form, **asked), table([place], form, index=False, **asked)
    assert found == plain
    return found


def computed_by(call: Callable[[], object], computed: list[str]) -> list[str]:
    computed.clear()
    call()
    return list(computed)


@pytest.mark.parametrize("form", ["markdown", "json", "csv", "latex", "text"])
def test_kept_boards_give_the_same_tables_in_every_format(results: Path, form: str) -> None:
    for _ in range(2):
        _, problems = both(results, form)
        assert len(problems) == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"baseline": "erm"},
        {"baseline": "lff", "metric": "worst_group"},
        {"select": "val_conflict", "sort": "seeds"},
        {"dataset": "other"},
    ],
)
def test_boards_are_kept_for_everything_that_can_be_asked(
    results: Path, computed: list[str], asked: dict[str, Any]
) -> None:
    both(results)
    first = both(results, **asked)
    assert computed_by(lambda: table([results], "json", **asked), computed) == []
    assert table([results], "json", **asked) == first


@pytest.mark.parametrize("name", ["cmnist-h200", "cmnist-cpu", "digits"])
def test_kept_boards_of_real_records_are_equal_field_by_field(name: str) -> None:
    asked = {"dataset": None, "metric": None, "select": None, "baseline": "erm"}
    place = PUBLISHED / name
    plain = table([place], "json", baseline="erm")
    found = kept.known([place], **asked)
    assert found is not None
    assert found.problems == plain[1]
    boards = found.boards()
    assert boards is not None
    from debiasbench.leaderboard.gather import gather

    gathered = gather([place], index=False)
    made = board.boards(gathered.records, baseline="erm", **gathered.evidence)
    for one, other in zip(boards, made, strict=True):
        rows = [replace(row, tables={}) for row in other.rows]
        assert repr(one) == repr(replace(other, rows=rows))


def test_an_unchanged_folder_reads_no_record_and_computes_nothing(
    results: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = table([results], "markdown")
    monkeypatch.setattr("debiasbench.records.reading.read", None)
    monkeypatch.setattr("debiasbench.records.verify.examine", None)
    assert computed_by(lambda: table([results], "markdown"), computed) == []
    assert table([results], "markdown") == first


def test_an_unchanged_folder_needs_no_library_but_numpy(results: Path) -> None:
    expected, _ = table([results], "markdown")
    code = (
        "import sys; from pathlib import Path; from debiasbench.leaderboard import table;"
        "print(table([Path(sys.argv[1])], 'markdown')[0]);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    words = [sys.executable, "-c", code, str(results)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    text, _, modules = done.stdout.rstrip().rpartition("\n")
    assert text.rstrip() == expected.rstrip()
    heavy = {"filelock", "pandas", "pydantic", "rich", "safetensors", "scipy", "tabulate", "torch"}
    assert heavy & set(modules.split()) == set()


def test_one_changed_record_makes_one_board_again(results: Path, computed: list[str]) -> None:
    both(results)
    spec = replace(SPEC, dataset=Choice("other"), method=Choice("erm", {"flag": True}), seed=1)
    honest(results / "other" / "erm", spec, (1, 1, 1, 1))
    assert computed_by(lambda: table([results], "json"), computed) == ["other"]
    both(results)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.unlink(),
        lambda path: path.rename(path.with_name("zz.json")),
        lambda path: path.with_name(path.stem + PREDICTIONS).unlink(),
        lambda path: path.with_name("link.json").symlink_to(path),
        lambda path: path.with_name("again.json").write_bytes(path.read_bytes()),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.write_text("{"),
    ],
)
def test_every_change_in_the_folder_is_seen(
    results: Path, change: Callable[[Path], object]
) -> None:
    for _ in range(2):
        both(results)
    change(next((results / "digits" / "lff").glob("*.json")))
    for _ in range(3):
        both(results)


def test_a_record_that_contradicts_itself_is_read_again_when_it_changes(results: Path) -> None:
    both(results)
    bad = next(results.glob("*.json"))
    with_path = table([results], "json")[1]
    assert with_path[0].startswith(f"{bad} contradicts itself: ")
    honest(results, replace(SPEC, seed=8))
    assert both(results)[1] == []


def test_messages_name_the_path_that_was_given(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both(results)
    monkeypatch.chdir(results.parent)
    _, (problem,) = both(Path("results"))
    assert problem.startswith("results/")


def test_trust_and_withdrawn_records_that_are_stated_later_are_shown(results: Path) -> None:
    both(results)
    path = next((results / "digits" / "erm").glob("*-0-*.json"))
    name = json.loads(path.read_text())["id"]
    stated = f'[{name}]\nreason = "wrong data"\ndate = "2026-01-01"\n'
    (results / "withdrawn.toml").write_text(stated)
    for _ in range(2):
        text, _ = both(results)
        assert "withdrawn on 2026-01-01: wrong data" in text
    level = {"level": "verified", "date": "2026-01-01", "sha256": sha256(path.read_bytes())}
    (results / "trust.json").write_text(json.dumps({name: level}))
    (results / "withdrawn.toml").unlink()
    for _ in range(2):
        text, _ = both(results)
        assert "withdrawn" not in text
    level["sha256"] = sha256(b"another file")
    (results / "trust.json").write_text(json.dumps({name: level}))
    for _ in range(2):
        text, _ = both(results)
        assert "changed after trust.json was written, so the level there does not count" in text


def test_a_new_reference_of_the_labels_makes_the_records_bad(results: Path) -> None:
    from safetensors.numpy import load_file, save_file

    both(results)
    file = next((results / "other" / "erm").glob(f"*{PREDICTIONS}"))
    stored = {k: v for k, v in load_file(file).items() if k.endswith((".y", ".group"))}
    stored["test.y"] = 1 - stored["test.y"]
    (results / "other" / "references").mkdir()
    save_file(stored, results / "other" / "references" / "f00d.safetensors")
    assert len(both(results)[1]) == 7
    assert len(both(results)[1]) == 7


def test_boards_of_other_code_are_not_used(
    results: Path, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table([results], "json")
    monkeypatch.setattr(kept, "version", lambda: "other")
    assert len(computed_by(lambda: table([results], "json"), computed)) == 2
    assert computed_by(lambda: table([results], "json"), computed) == []


def test_the_version_follows_from_the_code_that_computes_boards() -> None:
    for name in kept.CODE:
        assert (places.ROOT / name).exists()
    assert (places.ROOT / "leaderboard").is_dir()
    assert kept.version() != places.version()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-40]),
        lambda file: file.write_bytes(file.read_bytes().replace(b'"mean', b'"main')),
        lambda file: file.write_bytes(file.read_bytes().replace(b"erm", b"ERM")),
    ],
)
def test_a_damaged_board_is_computed_again(
    results: Path,
    computed: list[str],
    damage: Callable[[Path], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept, "MANY", 1000)  # a text would be used instead of the boards
    expected = table([results], "json")
    where = places.boards_of(os.path.realpath(results))
    assert where is not None
    files = list(where.iterdir())
    assert len(files) == 2
    for file in files:
        before = file.read_bytes()
        damage(file)
        changed = file.read_bytes() != before
        assert table([results], "json") == expected
        assert table([results], "json") == expected
        assert not changed or computed
    assert computed_by(lambda: table([results], "json"), computed) == []


def test_the_text_of_many_records_is_kept_for_each_layout(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MANY", 0)
    read: list[Path] = []
    real = kept._read
    monkeypatch.setattr(kept, "_read", lambda file, key: read.append(file) or real(file, key))
    layouts: list[dict[str, Any]] = [
        {"form": "markdown"},
        {"form": "csv"},
        {"form": "markdown", "dataset": "other"},
        {"form": "markdown", "columns": "seeds"},
        {"form": "markdown", "sort": "difference", "baseline": "lff"},
        {"form": "markdown", "baseline": "erm"},
        {"form": "text"},
        {"form": "text", "styled": True},
    ]
    first = [table([results], **layout) for layout in layouts]
    assert len({text for text, _ in first}) == len(layouts)
    read.clear()
    assert [table([results], **layout) for layout in layouts] == first
    assert read == []
    monkeypatch.setenv("COLUMNS", "60")
    assert table([results], "text") != first[6]
    assert read


@pytest.mark.parametrize("damage", [b"", b"PK", None])
def test_a_damaged_text_is_written_again(
    results: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    monkeypatch.setattr(kept, "MANY", 1000)
    expected = table([results], "json")
    where = places.boards_of(os.path.realpath(results))
    assert where is not None
    files = set(where.iterdir())
    monkeypatch.setattr(kept, "MANY", 0)
    table([results], "json")
    (file,) = set(where.iterdir()) - files
    sound = file.read_bytes()
    file.write_bytes(sound[:-40] if damage is None else damage)
    assert table([results], "json") == expected
    assert file.read_bytes()[-40:] == sound[-40:]


def test_indexes_are_removed_with_their_boards(results: Path, tmp_path: Path) -> None:
    table([results], "json")
    (one,) = index.kept()
    assert one.bytes > one.path.stat().st_size
    assert len(index.remove()) == 1
    assert list((tmp_path / "cache" / places.FOLDER).iterdir()) == []


def test_several_processes_that_make_tables_at_once_make_the_same(
    results: Path, computed: list[str]
) -> None:
    expected = table([results], "json", index=False)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(table([results], "json"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
    assert computed_by(lambda: table([results], "json"), computed) == []


def test_several_places_and_no_index_keep_no_boards(results: Path, computed: list[str]) -> None:
    for _ in range(2):
        both_places = [results / "digits", results / "other"]
        assert len(computed_by(lambda: table(both_places, "json"), computed)) == 2  # noqa: B023
        assert len(computed_by(lambda: table([results], "json", index=False), computed)) == 2
