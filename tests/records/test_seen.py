"""Many files that several processes read: what one process finds."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from debiasbench.records.beside import PREDICTIONS
from debiasbench.specs.spec import Choice
from tests.records.test_record import SPEC
from tests.records.test_verify import edit, honest, set_at

CODE = """
import os, sys
from pathlib import Path
os.sched_getaffinity = lambda _: {0, 1}
from debiasbench.records import seen
from debiasbench.common import copies
from debiasbench.leaderboard.gather import gather
if sys.argv[2] == "many":
    seen.MANY, seen.CHUNK = 1, 2
else:
    copies.copies = lambda: 1
for index in (False, True, True):
    for whole in (False, True):
        found = gather([Path(sys.argv[1])], whole=whole, index=index)
        groups = {id(c.group) for of in found.correct.values() for c in of.values()}
        right = {r: {i: c.bits for i, c in of.items()} for r, of in found.correct.items()}
        print(repr(found.records), found.problems, sorted(found.unverified), right, len(groups))
        print(found.paths, sorted(found.started.items()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="copies work on Linux only")
def test_several_processes_find_what_one_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "results"
    for seed in range(6):
        spec = replace(SPEC, method=Choice("erm", {"flag": seed < 3}), seed=seed)
        path = honest(place / "erm", spec, (9, 5 + seed % 3, 4, 10))
        if seed == 1:
            path.with_name(path.stem + PREDICTIONS).unlink()
        if seed == 2:
            edit(path, set_at("outcomes", "last", "test", "hits", value=[10, 5, 4, 10]))
        if seed == 4:
            path.write_text("{")
    monkeypatch.setenv("DEBIASBENCH_CACHE", str(tmp_path / "cache"))
    texts = {}
    for how in ("one", "many"):
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(place), how],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        texts[how] = done.stdout
    assert texts["one"] == texts["many"]
    assert "contradicts itself" in texts["one"]
    assert "is not valid JSON" in texts["one"]
