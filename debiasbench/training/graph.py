"""`Replays`: computes steps by a graph of the device, which runs them without Python.

The first steps of each batch size run eagerly: they select kernels and allocate the optimizer's
state. The next one is captured, and from then on replayed. A graph reads and writes memory, so
everything that changes from step to step is changed in place. If steps cannot be captured, or if a
captured step does something else than an eager one, all steps run eagerly, and `reason` says why.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol

import torch

from debiasbench.common.memory import is_out_of_memory
from debiasbench.common.wording import shortened
from debiasbench.training.doubt import Doubts, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from debiasbench.training.repeatable import Repeatable

WARM_UP = 3  # eager steps of a batch size before it is captured
SHAPES = 2  # batch sizes that are captured: that of most batches, and that of the last one


class Graph(Protocol):
    """A recording of computations."""

    def capture(self, computations: Sequence[Repeatable]) -> None:
        """Record computations that do not depend on each other, without an effect on tensors."""

    def replay(self) -> None:
        """Repeat the computations on the memory that they were recorded on."""


class CudaGraph:
    """A CUDA graph, in which each computation has a stream of its own, so that they overlap."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, computations: Sequence[Repeatable]) -> None:
        """Record the computations; raises what they raise, or `RuntimeError`."""
        register: Any = self._graph.register_generator_state
        generators = {id(g): g for c in computations for g in c.generators}
        own = {id(c.random): c.random.on_device for c in computations}
        states = [generator.clone_state() for generator in own.values()]
        for generator in (*generators.values(), *own.values()):
            register(generator)
        try:
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                begin = torch.cuda.current_stream()
                new_stream: Any = torch.cuda.Stream  # torch has no type for it
                streams = [begin, *(new_stream() for _ in computations[1:])]
                for stream in streams[1:]:
                    stream.wait_stream(begin)
                for computation, stream in zip(computations, streams, strict=True):
                    with torch.cuda.stream(stream), computation.random.on_device_active():
                        computation.compute()
                for stream in streams[1:]:
                    begin.wait_stream(stream)
        except BaseException:
            # a capture that failed leaves generators that refuse to draw
            for generator, state in zip(own.values(), states, strict=True):
                generator.graphsafe_set_state(state)
            raise

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        self._graph.replay()


def graph_of(device: torch.device) -> type[Graph] | None:
    """Return the kind of graph that a device can capture, or None."""
    return CudaGraph if device.type == "cuda" else None


class Replays:
    """Computes the steps of one or several stages, all of which take equal steps at once.

    `new_graph`: makes an empty graph; None computes all steps eagerly. `trusted`: whether the code
    of all computations is known to be the same in every step; otherwise it is observed and compared
    first. `owner`: what is computed, for `reason`. `reason`: why steps are not replayed; empty if
    they are, or if there are no graphs. `replayed`: number of replays.
    """

    def __init__(
        self,
        computations: Sequence[Repeatable],
        new_graph: Callable[[], Graph] | None,
        *,
        trusted: bool = True,
        owner: str = "it",
        doubts: Callable[[], Doubts] | None = None,
    ) -> None:
        self._computations, self._new_graph = computations, new_graph
        self.owner, self._trusted = owner, trusted
        self._doubts = doubts() if doubts is not None and not trusted else None
        self._graphs: dict[int, Graph] = {}
        self._warm: Counter[int] = Counter()
        self.reason = ""
        self.replayed = 0

    @property
    def ready(self) -> bool:
        """Whether steps are replayed, or will never be."""
        return self._new_graph is None or bool(self.reason or self._graphs)

    def compute(self, size: int, *, eager: bool = False) -> Mapping[int, Exception]:
        """Compute once; return the errors of those that failed, by position.

        `size`: of the batches. `eager`: whether this computation must run eagerly.
        """
        if self._new_graph is None or self.reason or eager:
            return self._eagerly()
        if size in self._graphs:
            self._graphs[size].replay()
            self.replayed += 1
            return {}
        if self._warm[size] < WARM_UP:
            self._warm[size] += 1
            # the first one may differ, because it allocates
            return self._eagerly(observed=size if self._warm[size] > 1 else None)
        if len(self._graphs) == SHAPES:
            return self._eagerly()
        return self._captured(size)

    def _eagerly(self, *, observed: int | None = None) -> dict[int, Exception]:
        """Compute without a graph; `observed`: the size of batches whose step is observed."""
        errors: dict[int, Exception] = {}
        doubts = None if observed is None else self._doubts
        for position, computation in enumerate(self._computations):
            try:
                with computation.random.active():
                    if doubts is None or observed is None:
                        computation.compute()
                    else:
                        doubts.observe(position, observed, computation.compute)
            except Exception as error:  # the computation may be of a plugin
                errors[position] = error
        if doubts is not None and not errors:
            self.reason = doubts.reason
        return errors

    def _captured(self, size: int) -> Mapping[int, Exception]:
        """Capture and compute once; compute eagerly if that fails."""
        assert self._new_graph is not None
        graph = self._new_graph()
        before = None if self._trusted else Snapshot(self._computations)
        try:
            graph.capture(self._computations)
        except Exception as error:  # the computation may be of a plugin
            self._refuse(_explained(self.owner, error))
            return self._eagerly()
        graph.replay()
        if before is not None and not self._agrees(before):
            self._refuse(
                f"{self.owner} computes something else when it is replayed, so its Python code "
                "changes from step to step"
            )
            return {}
        self._graphs[size] = graph
        self.replayed += 1
        return {}

    def _agrees(self, before: Snapshot) -> bool:
        """Return whether an eager step changes the same as the replayed one, and keep its result.

        Some kernels add in random order: then two eager steps show how much results may differ.
        """
        replayed = Snapshot(self._computations)
        before.restore()
        self._eagerly()
        eager = Snapshot(self._computations)
        if eager.distance(replayed) == 0:
            return True
        before.restore()
        self._eagerly()
        return eager.distance(replayed) <= 4 * eager.distance(Snapshot(self._computations))

    def _refuse(self, reason: str) -> None:
        self.reason = reason
        self._graphs = {}


def _explained(owner: str, error: Exception) -> str:
    if is_out_of_memory(error):
        return f"the graph of {owner} does not fit into memory"
    return f"{owner} cannot be captured: {shortened(str(error).partition(chr(10))[0])}"
