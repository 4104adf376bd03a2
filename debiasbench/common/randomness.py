"""Seeds and generators, derived from the seed of a run and a purpose."""

from __future__ import annotations

import random
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from debiasbench.common.seeds import derive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


class Randomness:
    """The global generators of torch, NumPy and Python as one computation sees them.

    They are seeded when the computation becomes active for the first time. Several computations can
    take turns: each continues with the states that it left. `device`: of the computation; on CUDA
    its generator is exchanged as a whole, since graphs keep a reference to it.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed, self.device = seed, device
        self._own: dict[str, Any] | None = None
        self._active = False
        self._default: torch.Generator | None = None
        module: Any = torch.get_device_module(device)
        if hasattr(module, "CUDAGraph"):
            index = module.current_device() if device.index is None else device.index
            self._default = module.default_generators[index]
            self.on_device = self._default.clone_state()
            self.on_device.manual_seed(seed)

    def active(self) -> AbstractContextManager[None]:
        """Let the global generators be those of this computation inside the context."""
        return nullcontext() if self._active else self._activated()

    @contextmanager
    def _activated(self) -> Iterator[None]:
        self._active = True
        with self.on_device_active(), seeded(self._seed, devices=self._default is None):
            if self._own is not None:
                self._set(self._own)
            try:
                yield
            finally:
                self._own = self._get()
                # `on_device` keeps its state, which replays advance outside of this context
                self._own.pop("device", None)
                self._active = False

    def rejoin(self) -> None:
        """Exchange the generator of the device again, after a graph could not be captured."""
        if self._active and self._default is not None:
            self._default.graphsafe_set_state(self.on_device)

    @contextmanager
    def on_device_active(self) -> Iterator[None]:
        """Inside the context, exchange the generator of a CUDA device only."""
        if self._default is None:
            yield
            return
        outside = self._default.graphsafe_get_state()
        self._default.graphsafe_set_state(self.on_device)
        try:
            yield
        finally:
            self._default.graphsafe_set_state(outside)

    def state(self) -> dict[str, Any]:
        """Return the states of the generators, to rewind them by `set_state`."""
        with self.active():
            return self._get()

    def set_state(self, states: Mapping[str, Any]) -> None:
        """Continue with states that `state` returned."""
        with self.active():
            self._set(states)

    def _get(self) -> dict[str, Any]:
        states = {"host": torch.get_rng_state(), **global_state()}
        if self._default is not None:
            states["device"] = self._default.get_state()
        if self._default is None and torch.accelerator.is_available():
            states["devices"] = _device_states()
        return states

    def _set(self, states: Mapping[str, Any]) -> None:
        torch.set_rng_state(states["host"])
        set_global_state(states)
        if self._default is not None and "device" in states:
            self._default.set_state(states["device"])
        for index, state in enumerate(states.get("devices", ())):
            _device_module().set_rng_state(state, index)


def _device_module() -> Any:
    return torch.get_device_module(torch.accelerator.current_accelerator())


def _device_states() -> list[torch.Tensor]:
    return [_device_module().get_rng_state(i) for i in range(torch.accelerator.device_count())]


@contextmanager
def seeded(seed: int, *, devices: bool = True) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python inside the context.

    For code that takes no generator, such as initialisation and dropout. The states of the global
    generators are restored afterwards. `devices`: whether those of all accelerators are included.
    """
    accelerator = (
        torch.accelerator.current_accelerator()
        if devices and torch.accelerator.is_available()
        else None
    )
    forked = list(range(torch.accelerator.device_count())) if accelerator else []
    kind = {"device_type": accelerator.type} if accelerator else {}
    outside = global_state()
    with torch.random.fork_rng(forked, **kind):
        if forked:
            torch.manual_seed(seed)
        else:  # the same, but torch would also keep a stack trace for every kind of device
            torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            set_global_state(outside)


def global_state() -> dict[str, Any]:
    """Return the states of the global generators of NumPy and Python, as plain values."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached],
    }


def set_global_state(state: Mapping[str, Any]) -> None:
    """Set the states that `global_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *others = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *others))
