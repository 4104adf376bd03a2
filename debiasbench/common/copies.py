"""Work that copies of this process share: they know all that it knows, and send back results."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Result = TypeVar("Result")

AHEAD = 3  # results of each process that may wait

_work: tuple[Callable[..., Any], Sequence[tuple[Any, ...]]] | None = None  # of the copies


def copied(call: Callable[..., Result], jobs: Sequence[tuple[Any, ...]]) -> Iterator[Result]:
    """Yield the result of `call(*job)` for each job, in order.

    Copies of this process compute them where it can be copied safely, one for each core. What they
    change, other than files, is lost.
    """
    done = 0
    if jobs and (number := copies()) > 1:
        from concurrent.futures.process import BrokenProcessPool

        try:
            for result in _together(call, jobs, min(number, len(jobs))):
                yield result
                done += 1
        except (BrokenProcessPool, BlockingIOError):
            pass  # a process was killed, or none could be started: go on alone
    for job in jobs[done:]:
        yield call(*job)


def elsewhere(call: Callable[..., Result], *arguments: Any) -> Result:
    """Return `call(*arguments)`, computed by a copy, so that this process can still be copied."""
    return next(copied(call, [arguments]))


def copies() -> int:
    """Return how many copies may work; 1 where a process cannot be copied safely."""
    alone = threading.active_count() == 1 and "torch" not in sys.modules
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" and alone else 1


def _together(
    call: Callable[..., Result], jobs: Sequence[tuple[Any, ...]], processes: int
) -> Iterator[Result]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    global _work  # noqa: PLW0603 - copies find it where it was
    _work = call, jobs
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"), _begin)
    try:
        left = iter(range(len(jobs)))
        waiting = deque(pool.submit(_one, i) for i in islice(left, AHEAD * processes))
        while waiting:
            yield waiting.popleft().result()
            waiting += (pool.submit(_one, i) for i in islice(left, 1))
    finally:
        _work = None
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits ends the copies


def _one(number: int) -> Any:
    assert _work is not None
    call, jobs = _work
    return call(*jobs[number])
