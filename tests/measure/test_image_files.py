"""Image files that the measured DataLoader reads: what they hold, and in which order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from debiasbench import Task
from debiasbench.core.data import Split
from debiasbench.core.prepare import Prepare
from debiasbench.measure.baselines import for_timing
from debiasbench.measure.image_files import Shuffled, loading, orders
from debiasbench.measure.listening import Listening
from debiasbench.runs.session import Session
from debiasbench.specs.plugins import Plugins
from debiasbench.specs.resolve import make_spec
from debiasbench.testing import toy_task
from debiasbench.training.placed import PlacedTask


def coloured(channels: int) -> Task:
    """The toy task with a mean and a deviation, in one or three channels."""
    task = toy_task()
    splits = {
        name: Split(s.x[:, :channels].contiguous(), s.y, s.bias, s.num_biases)
        for name, s in task.splits().items()
    }
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.3, 0.1)[:channels]
    return replace(task, **splits, mean=mean, std=std)


def stage_of(task: Task, batch_size: int = 16) -> Any:
    """What a plain method asks for on a task."""
    listening = Listening()
    plugins = Plugins()
    spec = make_spec(plugins, method="erm", model="mlp", training={"batch_size": batch_size})
    session = Session(plugins, device="cpu")
    session.rehearse(spec, listening, PlacedTask(task, session.execution.device))
    return for_timing(listening.stages[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_files_hold_the_images_and_classes_of_the_stage(channels: int) -> None:
    task = coloured(channels)
    with loading(stage_of(task), task, files=40, workers=0) as (loader, _):
        dataset: Any = loader.dataset
        expected = Prepare(task)(task.train.x)
        found = {int(Path(path).stem): dataset[i] for i, (path, _) in enumerate(dataset.samples)}
    assert sorted(found) == list(range(40))
    for at, (x, y) in found.items():
        torch.testing.assert_close(x, expected[at])
        assert y == task.train.y[at]


@pytest.mark.slow
def test_a_loader_with_processes_reads_as_many_batches_as_a_round_takes() -> None:
    task = coloured(3)
    with loading(stage_of(task), task, files=40, workers=1) as (loader, order):
        for steps in (2, 5):
            order.steps = steps
            assert [len(y) for _, y in loader] == [16] * steps


def test_an_order_has_whole_batches_and_every_sample_once_an_epoch() -> None:
    batches = orders(torch.arange(8), 4)
    first = torch.cat([next(batches), next(batches)])
    assert first.sort().values.tolist() == list(range(8))
    assert {len(next(batches)) for _ in range(5)} == {4}


def test_a_batch_may_be_larger_than_there_are_files() -> None:
    order = Shuffled(3, 8)
    order.steps = 2
    assert [len(index) for index in order] == [8, 8]
    assert {i for index in order for i in index} == {0, 1, 2}
