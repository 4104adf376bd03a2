"""A run that is stopped again and again ends in the record of one that was not."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from debiasbench.common.errors import Interrupted
from debiasbench.specs.plugins import Plugins
from debiasbench.training import batch_size, stage_store
from tests.runs.resume.stopping import (
    ByLast,
    Stopping,
    essence,
    run,
    spec_of,
    steps_taken,
    stopped,
)

METHODS = ("erm", "upweight", "groupdro", "jtt", "lff", "dfr", "rest")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparse", [None, "rigl"])
def test_a_run_stopped_again_and_again_ends_in_the_same_record(
    plugins: Plugins, tmp_path: Path, method: str, sparse: str | None
) -> None:
    if method == "rest" and sparse:
        pytest.skip("rest is sparse by itself")
    more: dict[str, Any] = {"sparse": sparse, "sparse_options": {"density": 0.2}} if sparse else {}
    assert_stops_leave_no_trace(spec_of(plugins, method, **more), plugins, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rest", "lff"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_half_precision_goes_on_with_its_scale(
    plugins: Plugins, tmp_path: Path, method: str, precision: str
) -> None:
    spec = spec_of(plugins, method, training={"epochs": 3, "precision": precision})
    assert_stops_leave_no_trace(spec, plugins, tmp_path)


def test_a_run_in_parts_goes_on_in_the_same_ones(plugins: Plugins, tmp_path: Path) -> None:
    spec = spec_of(plugins, "jtt", training={"epochs": 3, "micro_batch": 5})
    assert_stops_leave_no_trace(spec, plugins, tmp_path)


def test_a_spec_that_leaves_its_parts_open_is_resolved_before_it_has_an_id(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([7, 5, 100, 100])  # of both stages, the first time and the second
    monkeypatch.setattr(batch_size, "fitting", lambda *_: next(sizes))
    open_spec = spec_of(plugins, "jtt", training={"epochs": 3, "micro_batch": "auto"})
    parts = spec_of(plugins, "jtt", training={"epochs": 3, "micro_batch": 5})
    whole = spec_of(plugins, "jtt", training={"epochs": 3})
    for expected, folder in ((parts, "parts"), (whole, "whole")):
        done = run(open_spec, plugins, results=tmp_path / folder, data_root=tmp_path)
        assert done.record.spec == expected
        assert done.record.id == expected.id
    with pytest.raises(StopIteration):
        next(sizes)


class StoppingAgain(Stopping):
    """Counts only steps that are taken now, not those that a resumed stage reports at once."""

    def advance(self, count: int = 1) -> None:
        if count == 1:
            super().advance()


def assert_stops_leave_no_trace(spec: Any, plugins: Plugins, tmp_path: Path) -> None:
    """Stop a run again and again; it ends in the record of one that was left alone.

    A run of JTT, which has two stages, is stopped after every step from the seventh, others after
    every five steps, so within epochs and between them.
    """
    watcher = Stopping(after=7) if spec.method.name == "jtt" else StoppingAgain(after=5)
    whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    stops = 0
    while True:
        try:
            parts = run(
                spec,
                plugins,
                results=tmp_path / "parts",
                data_root=tmp_path,
                device="cpu",
                interruptible=True,
                progress=copy(watcher),
            )
            break
        except Interrupted:
            stops += 1
    assert stops >= 3
    assert essence(parts.record, tmp_path / "parts") == essence(whole.record, tmp_path / "whole")
    assert list((tmp_path / "parts" / stage_store.FOLDER).glob(f"*/{stage_store.RUNNING}*")) == []


def test_what_is_left_of_a_stopped_run_is_all_that_is_trained(
    plugins: Plugins, tmp_path: Path
) -> None:
    spec = stopped(plugins, tmp_path)
    assert steps_taken(plugins, spec, tmp_path)[1] == 30 - 12


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"training": {"epochs": 3, "lr": 0.01}}, {"model_options": {"hidden": [7]}}],
)
def test_another_spec_does_not_take_the_checkpoint(
    plugins: Plugins, tmp_path: Path, other: dict[str, Any]
) -> None:
    stopped(plugins, tmp_path)
    assert steps_taken(plugins, spec_of(plugins, "erm", **other), tmp_path)[1] == 30


def test_overwriting_trains_again(plugins: Plugins, tmp_path: Path) -> None:
    spec = spec_of(plugins, "erm")
    run(spec, plugins, results=tmp_path, data_root=tmp_path, device="cpu")
    seen: list[int] = []

    class Watch(Stopping):
        def advance(self, count: int = 1) -> None:
            seen.append(count)

    run(
        spec,
        plugins,
        results=tmp_path,
        data_root=tmp_path,
        device="cpu",
        overwrite="always",
        progress=Watch(0),
    )
    assert len(seen) == 30


def test_a_checkpoint_of_another_stage_is_not_taken(plugins: Plugins, tmp_path: Path) -> None:
    spec = stopped(plugins, tmp_path)
    other = replace(spec, seed=spec.seed + 1)
    assert steps_taken(plugins, other, tmp_path)[1] == 30


def test_augmentation_goes_on_as_it_would_have(plugins: Plugins, tmp_path: Path) -> None:
    def shifted(x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return x + 0.1 * torch.rand(x.shape, generator=rng)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ByLast, "augmentation", lambda self: shifted)
        spec = stopped(plugins, tmp_path / "parts", after=13)
        record, taken = steps_taken(plugins, spec, tmp_path / "parts")
        whole = run(spec, plugins, results=tmp_path / "whole", data_root=tmp_path, device="cpu")
    plain = run(spec, plugins, results=tmp_path / "plain", data_root=tmp_path, device="cpu")
    assert taken == 17
    assert essence(record, tmp_path / "parts") == essence(whole.record, tmp_path / "whole")
    assert whole.record.weights != plain.record.weights
