"""`debiasbench cache`: the stages that are kept, and room for others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result


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
