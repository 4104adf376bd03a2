"""Losses of builtin methods compute on the device of the batch, and read nothing back.

A GPU is not needed: fake tensors have its device and its rules, but no values.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributions import dirichlet
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from debiasbench import Batch
from debiasbench.core.inputs import mapped
from debiasbench.core.modes import evaluating, train_mode
from debiasbench.core.moment import Moment
from debiasbench.core.settings import Training
from debiasbench.core.stage import Stage, Trained
from debiasbench.models.mlp import MLP
from debiasbench.testing import toy_task
from debiasbench.training.trainer import Sequential
from tests.methods.test_methods import VARIANTS
from tests.running import fit_whole

GPU = torch.device("cuda", 0)
SETTINGS = Training(epochs=1, batch_size=16, lr=0.05)


class OnOneDevice(TorchDispatchMode):
    """Notes operations that use or make tensors of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.on_host: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [v for v in tree_leaves((args, kwargs, result)) if isinstance(v, Tensor)]
        if any(v.device.type == "cpu" for v in tensors):
            self.on_host.add(str(func))
        return result


def placed(mode: FakeTensorMode, value: Tensor) -> Tensor:
    with _disable_current_modes():
        value = value.data
    return mode.from_tensor(value).to(GPU)


def place(mode: FakeTensorMode, module: nn.Module) -> None:
    """Move a module to the fake device; shared parameters stay shared."""
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None and id(p) not in made:
                made[id(p)] = nn.Parameter(placed(mode, p), requires_grad=p.requires_grad)
            part._parameters[name] = None if p is None else made[id(p)]
        for name, buffer in part._buffers.items():
            part._buffers[name] = None if buffer is None else placed(mode, buffer)


def first_batches(stage: Stage) -> tuple[Batch, Batch | None]:
    """Return the first batch of a stage on the host, and that of its second stream."""
    rng = torch.Generator().manual_seed(0)
    index = stage.batches.epoch(rng)[0]
    batch = stage.view.batch(stage.view.samples.take(index), index, stage.extra, None)
    if stage.beside is None:
        return batch, None
    (other,) = stage.beside.drawn(1, rng)
    view = stage.beside.view
    return batch, view.batch(view.samples.take(other), other, {}, None)


def check(stage: Stage, autocast: bool) -> None:
    stage = stage.copied()
    train_mode(stage.objective)
    own, other = first_batches(stage)
    mode, observed = FakeTensorMode(allow_fallback_kernels=False), OnOneDevice()

    def on_gpu(batch: Batch, **more: Any) -> Batch:
        columns = {n: v for n, v in vars(batch).items() if n not in {"_moment", "beside"}}
        return Batch(
            **{n: mapped(lambda v: placed(mode, v), value) for n, value in columns.items()}, **more
        )

    with mode:
        place(mode, stage.objective)
        buffers = {name: (id(v), v.dtype) for name, v in stage.objective.named_buffers()}
        beside = None if other is None else on_gpu(other)
        batch = on_gpu(own, beside=beside, moment=Moment.begin(GPU))
        # torch.autocast does nothing for a device that is not there
        torch.set_autocast_dtype(GPU.type, torch.bfloat16)
        torch.set_autocast_enabled(GPU.type, autocast)
        try:
            with observed:
                loss = stage.objective(batch)
                assert (loss.shape, loss.dtype, loss.device) == ((), torch.float32, GPU)
                with evaluating(stage.objective), torch.no_grad():
                    assert stage.objective.predict(batch.x).device == GPU
        finally:
            torch.set_autocast_enabled(GPU.type, False)
    assert not observed.on_host
    assert {n: (id(v), v.dtype) for n, v in stage.objective.named_buffers()} == buffers


@pytest.mark.parametrize("name", VARIANTS)
def test_the_losses_of_a_method_stay_on_the_device_and_keep_their_buffers(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Sequential._train
    failures: list[str] = []

    def checked(trainer: Sequential, stage: Stage) -> Trained:
        for autocast in (False, True):
            try:
                check(stage, autocast)
            except Exception as error:
                failures.append(f"{stage.name}, autocast={autocast}: {error!r}")
        return train(trainer, stage)

    monkeypatch.setattr(Sequential, "_train", checked)
    # fake tensors have no kernel of this distribution
    monkeypatch.setattr(dirichlet._Dirichlet, "apply", torch.rand_like)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit_whole(toy_task(), VARIANTS[name], model=MLP(hidden=(16, 16)), training=SETTINGS)
    assert not failures
