"""Damaged checkpoints, failing disks and failing runs: the last good checkpoint counts."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from debiasbench import Method
from debiasbench.common import atomic
from debiasbench.common.errors import Interrupted, StoreError
from debiasbench.core.objective import CrossEntropy
from debiasbench.specs.plugins import Plugins
from debiasbench.training import checkpoint, stage_store
from tests.conftest import ACME, offering
from tests.running import run as run_spec
from tests.runs.resume.stopping import (
    PLUGINS,
    Stopping,
    checkpoints,
    essence,
    run,
    spec_of,
    steps_taken,
    stopped,
)


class Diverging(CrossEntropy):
    """Becomes NaN after some batches."""

    def __init__(self, network: Any) -> None:
        super().__init__(network)
        self.left = 9

    def forward(self, batch: Any) -> torch.Tensor:
        self.left -= 1
        loss = super().forward(batch)
        return loss * float("nan") if self.left < 0 else loss


class Diverges(Method):
    """Fails in the middle of an epoch."""

    def fit(self, lab: Any) -> Any:
        return lab.train(Diverging(lab.model()), name="train")


def test_of_a_run_that_failed_the_last_good_checkpoint_is_kept_until_it_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_store, "SHARE", 1e9)  # a checkpoint after every step
    plugins = Plugins([*PLUGINS, (offering(diverges=Diverges), ACME)])
    spec = spec_of(plugins, "diverges")
    failed = run_spec(
        spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu", checkpoint_every=0.0
    ).record
    assert failed.failure is not None
    assert failed.failure.step == 9
    (kept,) = (tmp_path / stage_store.FOLDER).glob(f"*/{stage_store.RUNNING}")
    state = checkpoint.load(kept)
    assert state["at"]["step"] == 9
    assert all(value.isfinite().all() for value in state["objective"].values())
    assert stage_store.sizes(tmp_path / stage_store.FOLDER)[kept.parent] >= kept.stat().st_size
    assert stage_store.collect(tmp_path / stage_store.FOLDER, limit=0) == [kept.parent]


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_taken(
    plugins: Plugins, tmp_path: Path
) -> None:
    spec = stopped(plugins, tmp_path)
    [running] = checkpoints(tmp_path)
    checkpoint.save(running, checkpoint.load(running))  # now there is one before
    running.write_bytes(running.read_bytes()[:-5])
    with pytest.warns(UserWarning, match=r"running: its checksum is wrong.*ignored"):
        assert steps_taken(plugins, spec, tmp_path)[1] == 18


def test_without_any_whole_checkpoint_the_stage_begins_anew(
    plugins: Plugins, tmp_path: Path
) -> None:
    spec = stopped(plugins, tmp_path)
    [running] = checkpoints(tmp_path)
    running.write_bytes(b"of another version")
    with pytest.warns(UserWarning, match="not a checkpoint of this version"):
        record, taken = steps_taken(plugins, spec, tmp_path)
    assert taken == 30
    whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    assert essence(record, tmp_path) == essence(whole.record, tmp_path / "whole")


def test_a_full_disk_stops_the_run_with_everything_that_was_good(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = stopped(plugins, tmp_path)
    before = checkpoints(tmp_path)[0].read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        with pytest.raises(StoreError, match=r"No space left .* the same command then resumes"):
            run(
                spec,
                plugins,
                results=tmp_path,
                data_root=tmp_path,
                device="cpu",
                checkpoint_every=0.0,
            )
    assert checkpoints(tmp_path)[0].read_bytes() == before
    assert steps_taken(plugins, spec, tmp_path)[1] == 18


def test_a_trained_run_is_recorded_even_if_there_is_no_room_for_its_stage(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    spec = spec_of(plugins, "erm")
    whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(stage_store, "write_whole", full)
        with pytest.warns(UserWarning, match=r"'train' could not be stored .*No space left"):
            done = run(spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu")
    assert essence(done.record, tmp_path) == essence(whole.record, tmp_path / "whole")
    assert done.path.exists()
    assert stage_store.all_in(tmp_path / stage_store.FOLDER) == []


def faulty(kind: str) -> Callable[..., Any]:
    """Write as a bad disk would: an error, or half of the bytes without a word."""
    write = Path.open

    def opened(self: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = write(self, mode, *args, **kwargs)
        if mode != "xb" or not self.name.endswith(".new"):
            return file
        real = file.write

        class Wrapped:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, content: bytes) -> int:
                if kind == "error":
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                return int(real(content[: len(content) // 2]))

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return Wrapped()

    return opened


def test_short_writes_lose_no_more_than_the_checkpoint(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_store, "SHARE", 1e9)
    spec = stopped(plugins, tmp_path, after=11)
    whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", faulty("short"))
        with pytest.raises(Interrupted):
            run(
                spec,
                plugins,
                results=tmp_path,
                data_root=tmp_path,
                device="cpu",
                checkpoint_every=1e9,
                interruptible=True,
                progress=Stopping(5 + 11),
            )
    with pytest.warns(UserWarning, match="its checksum is wrong"):
        record, taken = steps_taken(plugins, spec, tmp_path)
    assert taken == 30 - 11  # what the short write was to add is lost, no more
    assert essence(record, tmp_path) == essence(whole.record, tmp_path / "whole")
