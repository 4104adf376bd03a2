"""`Replays`: computes steps by a graph of the device, which runs them without Python.

The first steps of each batch size run eagerly: they select kernels and allocate the optimizer's
state. The next one is captured, and from then on replayed. A graph reads and writes memory, so
everything that changes from step to step is changed in place. If steps cannot be captured, or if a
captured step does something else than an eager one, all steps run eagerly, and `reason` says why.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch

from debiasbench.common.foreign import is_interrupt
from debiasbench.common.memory import is_out_of_memory
from debiasbench.common.wording import shortened
from debiasbench.training.device import free_memory
from debiasbench.training.doubt import Doubts, Snapshot
from debiasbench.training.memory import clear

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from debiasbench.training.repeatable import Repeatable

WARM_UP = 3  # eager steps of a batch size before it is captured
SHAPES = 2  # batch sizes that are captured: that of most batches, and that of the last one
WIDTHS = 16  # shapes of batches of sequences that are captured: one for each width


Size = tuple[int, ...]
"""The sizes of a step: samples of its batch, the width of their sequences, and others."""


class Graph(Protocol):
    """A recording of computations."""

    def capture(self, computations: Sequence[Repeatable]) -> None:
        """Record computations that do not depend on each other, without an effect on tensors."""

    def replay(self) -> None:
        """Repeat the computations on the memory that they were recorded on."""


class CudaGraph:
    """A CUDA graph, in which each computation has a stream of its own, so that they overlap."""

    _streams: ClassVar[dict[int, list[Any]]] = {}  # by device: each keeps a workspace of cuBLAS
    _broken: ClassVar[list[object]] = []  # torch may still refer to graphs that failed

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, computations: Sequence[Repeatable]) -> None:
        """Record the computations; raises what they raise, or `RuntimeError`."""
        device = computations[0].random.on_device.device
        streams = self._streams_of(device)[: len(computations)]
        streams += self._new_streams(device, len(computations) - len(streams))
        drawn = {id(g): g for c in computations for g in (*c.generators, c.random.on_device)}
        generators = [*drawn.values(), torch.cuda.default_generators[device.index]]
        kept = [(generator, generator.clone_state()) for generator in generators]
        register: Any = self._graph.register_generator_state
        for generator in drawn.values():
            register(generator)
        before, pool = torch.cuda.current_stream(device), torch.cuda.graph_pool_handle()
        try:
            with (
                torch.cuda.device(device),
                torch.cuda.graph(
                    self._graph, pool=pool, stream=streams[0], capture_error_mode="thread_local"
                ),
            ):
                _compute_on(streams, computations)
        except BaseException:
            torch.cuda.set_stream(before)  # torch leaves the stream of the graph only on success
            self._give_up(device, pool)
            for generator, state in kept:  # those of a capture that failed refuse to draw
                generator.graphsafe_set_state(state)
            for computation in computations:
                computation.random.rejoin()
            raise

    def replay(self) -> None:
        """Launch the graph on the current stream."""
        self._graph.replay()

    def _streams_of(self, device: torch.device) -> list[Any]:
        return self._streams.setdefault(device.index or 0, [])

    def _new_streams(self, device: torch.device, number: int) -> list[Any]:
        new_stream: Any = torch.cuda.Stream  # torch has no type for it
        made = [new_stream(device) for _ in range(number)]
        self._streams_of(device).extend(made)
        return made

    def _give_up(self, device: torch.device, pool: Any) -> None:
        """Close the memory pool of a capture that failed, which torch before 2.12 leaves open."""
        self._broken.append(self._graph)
        memory: Any = torch._C
        with suppress(RuntimeError, AttributeError):  # newer versions have closed it
            memory._cuda_endAllocateToPool(device.index or 0, pool)
            memory._cuda_releasePool(device.index or 0, pool)


def _compute_on(streams: Sequence[Any], computations: Sequence[Repeatable]) -> None:
    """Run computations on streams that begin after the first one, and that it waits for."""
    for stream in streams[1:]:
        stream.wait_stream(streams[0])
    try:
        for computation, stream in zip(computations, streams, strict=True):
            with torch.cuda.stream(stream), computation.random.on_device_active():
                computation.compute()
    finally:
        for stream in streams[1:]:
            streams[0].wait_stream(stream)


def graph_of(device: torch.device) -> type[Graph] | None:
    """Return the kind of graph that a device can capture, or None."""
    return CudaGraph if device.type == "cuda" else None


class Replays:
    """Computes the steps of one or several stages, all of which take equal steps at once.

    `new_graph`: makes an empty graph; None computes all steps eagerly. `trusted`: whether the code
    of all computations is known to be the same in every step; otherwise it is observed and compared
    first. `owner`: what is computed, for `reason`. `contain`: by computation, a context for its
    Python code. `also_eager`: whether some computations will run eagerly beside the graphs, whose
    memory they cannot use. `reason`: why steps are not replayed; empty if they are, or if there are
    no graphs. `replayed`: number of replays.
    """

    def __init__(
        self,
        computations: Sequence[Repeatable],
        new_graph: Callable[[], Graph] | None,
        *,
        trusted: bool = True,
        owner: str = "it",
        doubts: Callable[[], Doubts] | None = None,
        contain: Sequence[Callable[[], AbstractContextManager[None]]] | None = None,
        also_eager: bool = False,
    ) -> None:
        self._computations, self._new_graph = computations, new_graph
        self.owner, self._trusted = owner, trusted
        self._contain = contain or [nullcontext] * len(computations)
        self._doubts = doubts() if doubts is not None and not trusted else None
        self._also_eager = also_eager
        self._graphs: dict[Size, Graph] = {}
        self._refused: set[Size] = set()  # those whose graph could not be captured beside another
        self._warm: Counter[Size] = Counter()
        self.reason = ""
        self.replayed = 0

    def compute(self, size: Size, *, eager: bool = False) -> Mapping[int, BaseException]:
        """Compute once; return the errors of those that failed, by position.

        `size`: see `Step.shape`. `eager`: whether this computation must run eagerly.
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
        if size in self._refused or len(self._graphs) >= _most(size):
            return self._eagerly()
        return self._captured(size)

    def _eagerly(self, *, observed: Size | None = None) -> dict[int, BaseException]:
        """Compute without a graph; `observed`: the size of batches whose step is observed."""
        errors: dict[int, BaseException] = {}
        doubts = None if observed is None else self._doubts
        for position, computation in enumerate(self._computations):
            try:
                with self._contain[position](), computation.random.active():
                    if doubts is None or observed is None:
                        computation.compute()
                    else:
                        doubts.observe(position, observed, computation.compute)
            except BaseException as error:  # a plugin may raise anything, also SystemExit
                if is_interrupt(error):
                    raise
                errors[position] = error
        if doubts is not None and not errors:
            self.reason = doubts.reason
        return errors

    def _captured(self, size: Size) -> Mapping[int, BaseException]:
        """Capture and compute once; compute eagerly if that fails."""
        before = None if self._trusted else Snapshot(self._computations)
        reason = self._capture(size)
        if reason:
            # the error and its graph are gone: the memory is free for the step
            clear(self._computations[0].random.device)
            self._refused.add(size)
            self.reason = "" if self._graphs else reason  # most batches have another size
            return self._eagerly()
        self._graphs[size].replay()
        if before is None or self._agrees(before):
            self.replayed += 1
        else:
            self.release()
            self.reason = (
                f"{self.owner} computes something else when it is replayed, so its Python code "
                "changes from step to step"
            )
        return {}

    def _capture(self, size: Size) -> str:
        """Capture a graph; return why that is impossible, or an empty string."""
        assert self._new_graph is not None
        device = self._computations[0].random.device
        graph = self._new_graph()
        if device.type != "cpu":
            clear(device)
        free = free_memory(device)
        try:
            graph.capture(self._computations)
        except Exception as error:  # the computation may be of a plugin
            return _explained(self.owner, error)
        left = free_memory(device)
        if self._also_eager and free is not None and left is not None:
            taken = free[0] - left[0]
            if left[0] < taken:
                return (
                    f"the graph of {self.owner} takes {taken / 1e9:.1f} GB, and steps that run "
                    f"beside it need as much, but {left[0] / 1e9:.1f} GB are free"
                )
        self._graphs[size] = graph
        return ""

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

    def release(self) -> None:
        """Drop the graphs and their memory."""
        self._graphs = {}


def _most(size: Size) -> int:
    """Return how many shapes are captured of batches such as this one."""
    return WIDTHS if len(size) > 1 and size[1] else SHAPES


def _explained(owner: str, error: Exception) -> str:
    root: BaseException = error
    while root.__context__ is not None:  # a capture that failed raises another error at its end
        root = root.__context__
    if is_out_of_memory(root):
        return f"the graph of {owner} does not fit into memory"
    return f"{owner} cannot be captured: {shortened(str(root).partition(chr(10))[0])}"
