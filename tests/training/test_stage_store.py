"""The store of stages: what is kept, for how long, and at what cost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

from debiasbench.training import stage_store


def test_finished_stages_that_were_used_longest_ago_go_first(tmp_path: Path) -> None:
    keep = stage_store.StageStore(tmp_path, identity={}, run="a")
    for i in range(4):
        with keep.open(f"s{i}", {"x": i}, shared=True) as kept:
            kept.finish({"weights": torch.zeros(1000)})
    found = stage_store.all_in(tmp_path)
    for age, stage in enumerate(found):
        os.utime(stage.folder / stage_store.FINISHED, (1000 - age, 1000 - age))
    order = [stage.name for stage in stage_store.all_in(tmp_path)]
    size = found[0].bytes
    assert len(stage_store.collect(tmp_path, limit=2 * size + 10)) == 2
    assert [stage.name for stage in stage_store.all_in(tmp_path)] == order[:2]


def test_checkpoints_take_a_small_part_of_the_time(tmp_path: Path) -> None:
    keep = stage_store.StageStore(tmp_path, identity={}, run="a", every=0.0)
    with keep.open("s", {}, shared=True) as kept:
        begun = time.monotonic()
        kept.checkpoint({"x": torch.zeros(100_000)})
        taken = time.monotonic() - begun
        assert not kept.is_due()
        assert kept._next - time.monotonic() > 20 * taken
