"""A stage that several runs need is trained once, and only for those that it may serve."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from debiasbench.runs import provenance
from debiasbench.specs.plugins import Plugins
from debiasbench.training import stage_store
from tests.runs.resume.stopping import (
    essence,
    run,
    spec_of,
    steps_taken,
)


def test_a_stage_that_another_method_trained_is_taken_up_and_said_to_be(
    plugins: Plugins, tmp_path: Path
) -> None:
    erm, _ = steps_taken(plugins, spec_of(plugins, "erm"), tmp_path)
    dfr, taken = steps_taken(plugins, spec_of(plugins, "dfr"), tmp_path)
    assert taken == 0
    assert erm.cost is not None
    assert dfr.cost is not None
    assert [s["reused"] for s in erm.cost.stages] == [False]
    assert dfr.cost.stages[0]["reused"]
    alone = run(
        spec_of(plugins, "dfr"),
        plugins,
        results=tmp_path / "alone",
        data_root=tmp_path,
        device="cpu",
    ).record
    assert essence(dfr, tmp_path) == essence(alone, tmp_path / "alone")


def test_what_did_not_follow_the_rules_serves_no_run_that_must(
    plugins: Plugins, tmp_path: Path
) -> None:
    steps_taken(plugins, spec_of(plugins, "dfr"), tmp_path)
    record, taken = steps_taken(plugins, spec_of(plugins, "erm"), tmp_path)
    assert taken == 30
    assert "val_unbiased" in record.outcomes


def test_a_changed_model_or_another_augmentation_takes_up_nothing(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(plugins, "erm")
    assert steps_taken(plugins, spec, tmp_path / "a")[1] == 30
    shutil.copytree(tmp_path / "a" / stage_store.FOLDER, tmp_path / "b" / stage_store.FOLDER)
    assert steps_taken(plugins, spec, tmp_path / "b")[1] == 0
    for folder in ("c", "d"):
        shutil.copytree(tmp_path / "a" / stage_store.FOLDER, tmp_path / folder / stage_store.FOLDER)
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "_code", lambda top: f"{top}, changed")
        assert steps_taken(plugins, spec, tmp_path / "c")[1] == 30
    other = spec_of(plugins, "erm", dataset_options={"ratio": 0.150001})  # the same samples
    assert steps_taken(plugins, other, tmp_path / "d")[1] == 30


def test_two_that_need_the_same_stage_train_it_once(plugins: Plugins, tmp_path: Path) -> None:
    specs = [spec_of(plugins, "erm"), spec_of(plugins, "dfr")]
    held = threading.Event()
    keep = stage_store.StageStore(tmp_path / "s", identity={}, run="a")

    def hold() -> None:
        with keep.open("train", {"x": 1}, shared=True) as kept:
            held.set()
            time.sleep(0.3)
            kept.finish({"value": 1})

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(hold)
        held.wait()
        with stage_store.StageStore(tmp_path / "s", identity={}, run="b").open(
            "train", {"x": 1}, shared=True
        ) as kept:
            found = kept.finished()
        waiting.result()
    assert found is not None
    assert (found["value"], found["run"]) == (1, "a")
    assert specs[0].id != specs[1].id


def test_stages_that_are_of_use_to_no_other_run_go_with_the_record(
    plugins: Plugins, tmp_path: Path
) -> None:
    spec = spec_of(plugins, "groupdro")
    run(spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu")
    assert stage_store.all_in(tmp_path / stage_store.FOLDER) == []
    run(spec_of(plugins, "erm"), plugins, results=tmp_path, data_root=tmp_path, device="cpu")
    [kept] = stage_store.all_in(tmp_path / stage_store.FOLDER)
    assert (kept.name, kept.run) == ("train", spec_of(plugins, "erm").id)
