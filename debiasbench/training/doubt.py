"""Find out whether code of others can be captured: `Doubts` observes steps, `Snapshot` undoes one.

A graph repeats the operations of one step, with its numbers. So a step that waits for the device,
counts in Python, draws numbers in Python, or takes another branch later must run eagerly.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from debiasbench.common.randomness import global_state
from debiasbench.training.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from debiasbench.training.repeatable import Repeatable

_NOT_STATE = {"_buffers", "_parameters", "_modules", "_non_persistent_buffers_set", "training"}


class Doubts:
    """Observes eager steps of modules; `reason` is why they cannot be captured, or empty.

    `modules`: by computation, what may have state in Python: objectives, and other objects.
    """

    def __init__(self, modules: Sequence[Sequence[object]]) -> None:
        self._modules = modules
        self._operations: dict[tuple[int, tuple[int, ...]], list[str]] = {}
        self.reason = ""

    def observe(self, position: int, size: tuple[int, ...], compute: Callable[[], object]) -> None:
        """Run a step of the shape `size`, and look for what a graph could not repeat."""
        owners = [part for owner in self._modules[position] for part in _parts(owner)]
        before = [_python_state(owner) for owner in owners]
        drawn = global_state()
        with Trace() as trace:
            compute()
        if trace.waits:
            self._doubt(f"the step waits for the device, in {trace.waits[0]}")
        for owner, state in zip(owners, before, strict=True):
            for name, value in _python_state(owner).items():
                if state.get(name) != value:
                    self._doubt(
                        f"{type(owner).__name__} changes its attribute {name!r} in every step: "
                        "keep it in a buffer, and change that in place"
                    )
        if global_state() != drawn:
            self._doubt("the step draws random numbers from Python or NumPy: draw them with torch")
        earlier = self._operations.setdefault((position, size), trace.operations)
        if earlier != trace.operations:
            self._doubt(f"operations change from step to step: {_difference(earlier, trace)}")

    def _doubt(self, reason: str) -> None:
        self.reason = self.reason or reason


class Snapshot:
    """Everything that computations change: tensors and the states of generators."""

    def __init__(self, computations: Sequence[Repeatable]) -> None:
        self._tensors = [tensor for each in computations for tensor in each.changed()]
        self._values = [tensor.detach().clone() for tensor in self._tensors]
        self._generators = [g for each in computations for g in each.generators]
        self._states = [generator.get_state() for generator in self._generators]
        self._randoms = [each.random for each in computations]
        self._random_states = [random.state() for random in self._randoms]

    @torch.no_grad()
    def restore(self) -> None:
        """Undo all changes since, in place."""
        for tensor, value in zip(self._tensors, self._values, strict=True):
            tensor.copy_(value)
        for generator, state in zip(self._generators, self._states, strict=True):
            generator.set_state(state)
        for random, states in zip(self._randoms, self._random_states, strict=True):
            random.set_state(states)

    def distance(self, other: Snapshot) -> float:
        """Return the Euclidean distance of the tensors; NaN at the same place is no distance."""
        total = 0.0
        for a, b in zip(self._values, other._values, strict=True):
            total += float((a.double() - b.double()).nan_to_num(0.0).square().sum())
        return math.sqrt(total)


def _parts(owner: object) -> list[object]:
    modules: Any = getattr(owner, "modules", None)
    return list(modules()) if callable(modules) else [owner]


def _python_state(owner: Any) -> Mapping[str, object]:
    """Return the attributes of an object as values that can be compared later."""
    state: dict[str, object] = {
        name: _comparable(value)
        for name, value in getattr(owner, "__dict__", {}).items()
        if name not in _NOT_STATE and "hooks" not in name
    }
    return state | {n: _comparable(v) for n, v in getattr(owner, "_buffers", {}).items()}


def _comparable(value: object) -> object:
    if isinstance(value, Tensor):
        return ("tensor", value.data_ptr(), tuple(value.shape))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [type(value), *map(_comparable, value)]
    if isinstance(value, dict):
        return [[_comparable(k), _comparable(v)] for k, v in value.items()]
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    return id(value)


def _difference(earlier: Sequence[str], trace: Trace) -> str:
    for a, b in zip(earlier, trace.operations, strict=False):
        if a != b:
            return f"{a}, then {b}"
    return f"{len(earlier)}, then {len(trace.operations)}"
