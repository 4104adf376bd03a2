"""Runs on a Ray cluster: an actor for each process, a crew of them, and records that come back."""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from debiasbench.common.canonical import digest
from debiasbench.common.errors import BusyError, Interrupted, RecordError, StoreError
from debiasbench.common.wording import shortened
from debiasbench.records.store import Store
from debiasbench.records.trial import Trials
from debiasbench.runs.carried import unpacked
from debiasbench.runs.crew import End
from debiasbench.runs.fetched import Fetched
from debiasbench.runs.ray_node import Slot, Start
from debiasbench.runs.sweep import Attempt
from debiasbench.specs.plugins import version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from debiasbench.runs.crew import Crew
    from debiasbench.runs.jobs import Jobs
    from debiasbench.runs.ray_cluster import Cluster, Request
    from debiasbench.runs.ray_node import Sent

TRIES = 3  # how often a run is handed out whose process was lost
WAIT = 0.2  # seconds between two looks at signals
POLL = 20.0  # seconds that an actor waits for something to report
LOOK = 5.0  # seconds between two looks at the nodes
STOPPING = 60.0  # seconds that processes have to write a checkpoint
UNAVAILABLE = 120.0  # seconds in which a connection may return
ROOM = 60.0  # seconds without any process before a message says so


class RayHand:
    """The driver's side of a process on some node; see `debiasbench.runs.crew.Hand`."""

    def __init__(self, pool: RayPool, request: Request) -> None:
        self._pool, self._ray = pool, pool.cluster.ray
        options = {**request.options(), "max_restarts": 0, "max_task_retries": 0}
        self._actor = (
            self._ray.remote(Slot)
            .options(max_concurrency=4, scheduling_strategy="SPREAD", **options)
            .remote()
        )
        self.node = ""  # "" until it has begun
        self._shared = True
        self._claims: dict[str, ExitStack] = {}  # of runs that were handed to it
        self._messages: deque[Any] = deque()
        self._end: End | None = None
        self._seen = 0
        self._orders = 0
        self._last: tuple[Any, ...] = ()
        self._stopped: float | None = None
        self._unavailable: float | None = None  # since when
        self.call: Any = self._actor.begin.remote(pool.jobs, pool.start)  # that it has to answer

    def order(self, titles: Sequence[str] | None) -> None:
        """Hand runs to the process; None: there are no more."""
        stages = None
        if titles is not None and not self._shared:
            titles = [title for title in titles if self._claim(title)]
            stages = self._pool.stages(titles)
            if not titles:
                return
        self._last = (self._orders, None if titles is None else list(titles), stages)
        self._orders += 1
        self._actor.order.remote(*self._last)

    def reports(self) -> list[Any]:
        """Return what it has reported since the last call."""
        messages, self._messages = list(self._messages), deque()
        return messages

    def ended(self) -> End | None:
        """Return how it ended, None if it runs."""
        return self._end

    def stop(self) -> None:
        """Let it stop after the current step, with a checkpoint."""
        self._stopped = time.monotonic()
        if self.node:
            self._actor.stop.remote()
        else:  # it may never begin
            self._lose(End(Interrupted.NOTHING_STORED, "it was stopped before it began"))

    def kill(self) -> None:
        """End it at once."""
        with suppress(Exception):  # the cluster may be gone
            self._ray.kill(self._actor)

    def close(self) -> None:
        """Give back the place on the node, and the claims of runs."""
        self.kill()
        for claim in self._claims.values():
            claim.close()

    def is_waiting(self) -> bool:
        """Return whether there is something to read."""
        return bool(self._messages) or self._end is not None

    def tick(self) -> None:
        """Do what is due at this time."""
        now = time.monotonic()
        if self._end is not None:
            return
        if self._stopped is not None and now - self._stopped > STOPPING:
            self._lose(End(Interrupted.NOTHING_STORED, "its process did not stop"))
        elif self._unavailable is not None and now - self._unavailable > UNAVAILABLE:
            self._lose(End(1, "its node was not reachable", lost=True))
        elif self.call is None:
            if self._last:
                self._actor.order.remote(*self._last)  # it may not have arrived
            if self._stopped is not None:
                self._actor.stop.remote()
            self._listen()

    def answered(self) -> None:
        """Read the answer to the last call, and ask for what is reported next."""
        exceptions = self._ray.exceptions
        try:
            answer = self._ray.get(self.call)
        except exceptions.ActorUnavailableError:
            self._unavailable = self._unavailable or time.monotonic()
            self.call = None  # `tick` tries again
            return
        except exceptions.RayActorError as error:
            self._lose(_end(str(error), begun=bool(self.node)))
            return
        except exceptions.RayTaskError as error:
            reason = shortened(str(error.cause) if error.cause else str(error))
            self._lose(End(1, f"its node {self.node or 'before the start'} failed: {reason}"))
            return
        except exceptions.RayError as error:
            self._lose(End(1, f"its node was lost ({_line(str(error))})", lost=True))
            return
        self._unavailable = None
        if not self.node:
            if isinstance(answer, str):
                self._lose(End(1, answer))
                return
            self.node, self._shared = answer.node, answer.shared
        else:
            first, sent, end = answer
            for number, one in enumerate(sent, first):
                if number >= self._seen:
                    self._seen = number + 1
                    self._receive(one)
            if end is not None:
                self._end, self.call = end, None
                return
        self._listen()

    def _listen(self) -> None:
        if self._end is None:
            self.call = self._actor.reports.remote(self._seen, POLL)

    def _lose(self, end: End) -> None:
        self._end, self.call = end, None
        if not self.node and not end.lost and self._stopped is None:
            self._pool.complain(f"Error: {end.how}")

    def _receive(self, sent: Sent) -> None:
        if sent.said:
            self._pool.forward(self.node, sent.said)
        if sent.stages:
            self._pool.keep(sent.titles, sent.stages)
        for report in sent.report:
            if report is not None and not self._shared:
                report[1] = self._stored(report[0], report[1], sent.record)
            self._messages.append(report)

    def _stored(self, title: str, plain: dict[str, Any], record: Any) -> dict[str, Any]:
        """Store the record of a run here, and return its outcome with the path."""
        try:
            if record is not None:
                plain = {**plain, "path": str(self._pool.store(title, record))}
        except RecordError as error:
            failed = Attempt("failed", problem=str(error), exit_code=error.exit_code)
            plain = failed.as_plain()
        if (claim := self._claims.pop(title, None)) is not None:
            claim.close()
        return plain

    def _claim(self, title: str) -> bool:
        """Keep other commands from training a run; report it as theirs if they train it."""
        spec = self._pool.specs.specs[title]
        with ExitStack() as stack:
            try:
                if not spec.unresolved:
                    stack.enter_context(self._pool.results.claim(spec))
            except BusyError:
                self._messages.append([title, Attempt("elsewhere").as_plain()])
                return False
            self._claims[title] = stack.pop_all()
        return True


class RayPool:
    """What the processes of a command on a cluster have in common.

    `complain`: prints a line. `workers`: the largest number of processes, None for as many as the
    cluster has room for. `fetch`: seconds between two looks at checkpoints of nodes that do not
    share the results folder; 0 for none. Raises `StoreError` for a results folder that cannot be
    written.
    """

    def __init__(
        self,
        cluster: Cluster,
        request: Request,
        jobs: Jobs,
        complain: Callable[[str], object],
        *,
        workers: int | None = None,
        fetch: float = 0.0,
    ) -> None:
        self.cluster, self._request, self.specs = cluster, request, jobs
        self._workers, self._say = workers, complain
        self.results = Store(jobs.session.results)
        self._made = Trials(jobs.session.results) if jobs.trial else self.results
        self._fetched = Fetched(jobs.session.results)
        self.jobs = cluster.ray.put(jobs.to_json())
        self.start = Start(
            version=version("debiasbench"),
            token=f".on-ray-{secrets.token_hex(16)}",
            key=digest([socket.getfqdn(), str(jobs.session.results.absolute())])[:16],
            environment={"OMP_NUM_THREADS": _threads(request)},
            fetch=fetch,
        )
        self._complaints: set[str] = set()
        self._grown = workers or cluster.slots(request)
        self._looked = self._busy = time.monotonic()

    @property
    def processes(self) -> int:
        """Number of processes to begin with."""
        return max(1, self._grown)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Inside the context, let nodes see whether they share the results folder."""
        file = self.results.folder / self.start.token
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self.start.token)
        except OSError as error:
            raise StoreError(
                f"Cannot write to {file.parent}: {error.strerror or error}. "
                "Choose another folder with --results, or check its permissions"
            ) from error
        try:
            yield
        finally:
            with suppress(OSError):
                file.unlink()

    def hire(self, _number: int) -> RayHand:
        """Ask the cluster for a place, and start a process there."""
        return RayHand(self, self._request)

    def wait(self, hands: Sequence[RayHand], crew: Crew[RayHand]) -> None:
        """Wait shortly until a process reports; start more when the cluster has grown."""
        self._look(hands, crew)
        for hand in hands:
            hand.tick()
        calls = {hand.call: hand for hand in hands if hand.call is not None}
        ray = self.cluster.ray
        if not calls:
            if not any(hand.is_waiting() for hand in hands):
                time.sleep(WAIT)
            return
        some = 0 if any(hand.is_waiting() for hand in hands) else WAIT
        ready, left = ray.wait(list(calls), num_returns=1, timeout=some)
        if ready and left:
            ready += ray.wait(left, num_returns=len(left), timeout=0)[0]
        for call in ready:
            calls[call].answered()

    def _look(self, hands: Sequence[RayHand], crew: Crew[RayHand]) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        if any(hand.node for hand in hands):
            self._busy = now
        elif now - self._busy > ROOM:
            self._busy = now
            self._say(f"Waiting until the cluster has room for a process with {self._request}")
        if self._workers is None:
            slots = self.cluster.slots(self._request)
            if slots > self._grown:
                crew.grow(slots - self._grown)
                self._grown = slots

    def complain(self, message: str) -> None:
        """Print a message that several nodes may have, once."""
        if message not in self._complaints:
            self._complaints.add(message)
            self._say(message)

    def forward(self, node: str, said: str) -> None:
        """Print what a process printed."""
        for line in said.splitlines():
            if line.strip():
                self._say(f"{node}: {line}")

    def store(self, title: str, record: dict[str, bytes]) -> Any:
        """Store the record of a run; return its path."""
        path = unpacked(self._made, self.specs.specs[title], record)
        for run in self._ids([title]):
            self._fetched.forget(run)
        return path

    def keep(self, titles: Sequence[str], stages: dict[str, tuple[float, bytes]]) -> None:
        """Store what came of the stages of runs."""
        self._fetched.keep(self._ids(titles), stages)

    def stages(self, titles: Sequence[str]) -> dict[str, tuple[float, bytes]]:
        """Return what is here of the stages of runs, where asked."""
        if not self.start.fetch:
            return {}
        return {k: v for run in self._ids(titles) for k, v in self._fetched.of(run).items()}

    def _ids(self, titles: Sequence[str]) -> list[str]:
        specs = [self.specs.specs[title] for title in titles]
        return [spec.id for spec in specs if not spec.unresolved]


def _threads(request: Request) -> str:
    """Return the number of threads of a run: what it asks for, on every node.

    Results depend on it, so the number of cores of a node must not decide it.
    """
    return os.environ.get("OMP_NUM_THREADS") or str(max(1, int(request.cpus)))


def _end(problem: str, *, begun: bool) -> End:
    """Return how an actor ended from the message of Ray, which has many lines."""
    if "creation task" in problem and not begun:
        node = re.search(r"\bip=([\w.:-]+)", problem)
        return End(
            1,
            f"a process could not begin on node {node[1] if node else '?'} "
            f"({_line(problem, last=True)}): install the same version of debiasbench on all nodes",
        )
    if "node has died" in problem or "node was terminated" in problem:
        return End(1, "its node was lost", lost=True)
    if "NODE_OUT_OF_MEMORY" in problem or "running low on memory" in problem:
        return End(1, "its process was killed because its node ran out of memory", lost=True)
    return End(1, "its process on a node was lost", lost=True)


def _line(text: str, *, last: bool = False) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return shortened(lines[-1 if last else 0], 200)
