"""`debiasbench cache`: the stages that are kept, and room for others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from debiasbench.training import stage_store


def test_the_command_line_lists_stages_and_makes_room(
    debiasbench: Callable[..., Result], tmp_path: Path
) -> None:
    words = ("--dataset", "toy", "--model", "mlp", "--quiet")
    for seed in (0, 1):
        assert debiasbench("run", "--method", "erm", *words, "--seed", seed).exit_code == 0
    listed = debiasbench("cache", "ls").output
    assert "2 stages" in listed
    assert listed.count("train ") == 2
    assert "0 stages removed" in debiasbench("cache", "gc").output
    assert debiasbench("cache", "gc", "--limit", "much").exit_code == 2
    assert "2 stages removed" in debiasbench("cache", "gc", "--limit", "0").output
    assert "0 stages" in debiasbench("cache", "ls").output


def test_gc_counts_what_it_removed_and_the_locks_of_killed_processes_go_too(
    debiasbench: Callable[..., Result], tmp_path: Path
) -> None:
    words = ("--dataset", "toy", "--model", "mlp", "--quiet")
    debiasbench("run", "--method", "erm", *words)
    locks = [tmp_path / "results" / name for name in (".locks", ".stages/.locks")]
    assert [list(folder.iterdir()) for folder in locks] == [[], []]
    for folder in locks:
        (folder / "killed.lock").touch()
    listed = debiasbench("cache", "ls").output.splitlines()[-1]  # such as "1 stage, 0.3 MB"
    size = listed.split(", ")[1]
    freed = debiasbench("cache", "gc", "--limit", "0").output
    assert freed == f"1 stage removed ({size}), 0.0 MB left\n"
    assert [list(folder.iterdir()) for folder in locks] == [[], []]


def test_a_stage_folder_that_cannot_be_read_is_an_error_of_one_line(
    debiasbench: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(stage_store, "entries", denied)
    for command in ("ls", "gc"):
        result = debiasbench("cache", command)
        assert result.exit_code == 7
        assert result.output == "Error: Cannot read results/.stages: Permission denied\n"
