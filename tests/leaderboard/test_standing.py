"""Trust levels and withdrawn records in tables; no published row disappears."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.common.errors import RecordError
from debiasbench.leaderboard import boards
from debiasbench.leaderboard.standing import Standing
from debiasbench.records.reading import read
from debiasbench.records.rows import added, listed, lost, row
from debiasbench.records.trust import (
    Trust,
    Withdrawal,
    content_of,
    raised,
    read_withdrawn,
    trust_of,
    withdrawn_of,
)
from tests.leaderboard.test_leaderboard import ERM, LFF
from tests.records.training import seeds

Cli = Callable[..., Result]
LEADERBOARD = Path(__file__).parent.parent.parent / "leaderboard"


def test_a_row_is_as_trusted_as_its_least_trusted_record() -> None:
    levels = dict.fromkeys([r.id for r in [*ERM, *LFF]], Trust("verified", "2026-11-27", ""))
    levels[ERM[0].id] = Trust("listed", "2026-11-27", "")
    (board,) = boards([*ERM, *LFF], standing=Standing(levels))
    assert {row.method: row.trust for row in board.rows} == {"erm": "listed", "lff": "verified"}
    assert "Verified from files, not run again (✓): lff." in board.notes
    del levels[ERM[1].id]
    (board,) = boards([*ERM, *LFF], standing=Standing(levels))
    assert {row.method: row.trust for row in board.rows} == {"erm": "", "lff": "verified"}
    assert all(row.trust == "" for row in boards(ERM)[0].rows)


def test_a_withdrawn_row_stays_and_is_not_compared() -> None:
    gone = {r.id: Withdrawal("the labels were read", "2026-11-27") for r in LFF}
    (board,) = boards([*ERM, *LFF], standing=Standing(withdrawn=gone))
    rows = {row.method: row for row in board.rows}
    assert rows["lff"].stale == "withdrawn on 2026-11-27: the labels were read"
    assert (rows["lff"].marked, rows["lff"].rank) == (False, None)
    assert (
        "lff is shown but not compared: withdrawn on 2026-11-27: the labels were read."
        in board.notes
    )
    (board,) = boards([*ERM, *LFF], standing=Standing(withdrawn={LFF[0].id: gone[LFF[0].id]}))
    assert "1 record withdrawn on" in {r.method: r for r in board.rows}["lff"].stale


@pytest.mark.parametrize(
    "text", ["[a]\nreason = 'x'\n", "a = 1", "[a]\nreason = ' '\ndate = 'd'", "["]
)
def test_a_withdrawal_has_a_reason_and_a_date(text: str, tmp_path: Path) -> None:
    (tmp_path / "withdrawn.toml").write_text(text)
    with pytest.raises(RecordError, match=r"withdrawn\.toml"):
        read_withdrawn(tmp_path / "withdrawn.toml")


def test_a_row_that_disappears_is_named_unless_it_was_withdrawn(
    debiasbench: Cli, tmp_path: Path
) -> None:
    paths = seeds(Path("board/records"), 2)
    words = ("verify", "board/records", "--rows", "board/rows.txt")
    assert debiasbench(*words, "--add-rows").exit_code == 0
    line = row(read(paths[0]).spec)
    assert listed(Path("board/rows.txt")) == [line]
    assert added(Path("board/rows.txt"), [Path("board/records")]) == []
    assert debiasbench(*words).exit_code == 0
    paths[0].unlink()
    assert debiasbench(*words).exit_code == 0  # another seed of the row is there
    paths[1].unlink()
    result = debiasbench(*words)
    assert result.exit_code == 9
    assert "1 row of board/rows.txt disappeared" in result.stderr
    Path("board/withdrawn.toml").write_text(f"['{line}']\nreason = 'wrong'\ndate = '2026-11-27'\n")
    assert debiasbench(*words).exit_code == 0


def test_every_published_row_is_there_or_was_withdrawn() -> None:
    file = LEADERBOARD / "rows.txt"
    assert listed(file)
    assert lost(file, [LEADERBOARD / "records"]) == []


def test_what_maintainers_state_is_read_beside_the_records(debiasbench: Cli) -> None:
    paths = seeds(Path("board/records"), 3)
    ids = [read(path).id for path in paths]
    trust = {
        key: {"level": "verified", "date": "2026-11-27", "sha256": content_of(path)}
        for key, path in zip(ids, paths, strict=True)
    }
    Path("board/trust.json").write_text(json.dumps(trust))
    table = debiasbench("leaderboard", "board/records")
    assert "- Verified from files, not run again (✓): erm.\n" in table.stdout, table.stderr
    assert "| erm ✓ " in table.stdout
    site = debiasbench("leaderboard", "board/records", "--site", "site")
    assert site.exit_code == 0, site.stderr
    assert any("Verified from files" in page.read_text() for page in Path("site").rglob("*.html"))
    Path("board/withdrawn.toml").write_text(f'["{ids[0]}"]\nreason = "x"\ndate = "2026-11-28"\n')
    table = debiasbench("leaderboard", "board/records")
    assert "erm is shown but not compared: 1 record withdrawn on 2026-11-28: x." in table.stdout


def test_a_level_is_that_of_the_file_that_was_checked(tmp_path: Path) -> None:
    (path,) = seeds(tmp_path / "records", 1)
    name = read(path).id
    trust = {name: Trust("verified", "2026-11-27", content_of(path))}
    raised(tmp_path / "trust.json", trust)
    assert trust_of([tmp_path / "records"], {name: path}) == (trust, frozenset())
    path.write_text(path.read_text() + "\n")
    assert trust_of([tmp_path / "records"], {name: path}) == ({}, {name})


def test_files_of_strangers_far_above_the_records_are_not_read(tmp_path: Path) -> None:
    (path,) = seeds(tmp_path / "a" / "b" / "results", 1)
    (tmp_path / "a" / "trust.json").write_text("broken")
    (tmp_path / "a" / "withdrawn.toml").write_text("broken")
    assert trust_of([path.parent], {}) == ({}, frozenset())
    assert withdrawn_of([path.parent]) == {}
    board = tmp_path / "a" / "b" / "records" / "digits"
    board.mkdir(parents=True)
    (tmp_path / "a" / "b" / "withdrawn.toml").write_text('x = {reason = "x", date = "y"}')
    assert set(withdrawn_of([board])) == {"x"}
