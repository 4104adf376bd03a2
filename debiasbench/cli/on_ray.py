"""`--on ray`: the runs of a command on a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import say
from debiasbench.common.errors import OutOfMemory
from debiasbench.common.signals import stopped_by_signals
from debiasbench.common.wording import counted
from debiasbench.runs.crew import Crew
from debiasbench.runs.on_ray import TRIES, RayHand, RayPool
from debiasbench.runs.ray_cluster import Cluster, Request, joined
from debiasbench.runs.ray_node import precision_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from debiasbench.core.settings import Precision
    from debiasbench.runs.jobs import Jobs
    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.runs.sweep import Attempt
    from debiasbench.specs.spec import Spec

KEY = "debiasbench.cluster"
WAIT = 0.5  # seconds between two looks at signals


@dataclass(frozen=True)
class Asked:
    """What a command asks of Ray; None: the default.

    `address`: of the cluster. `cpus`, `gpus`, `gigabytes`: of each process. `workers`: largest
    number of processes. `fetch`: seconds between two looks at checkpoints on nodes.
    """

    address: str | None = None
    cpus: float | None = None
    gpus: float | None = None
    gigabytes: float | None = None
    workers: int | None = None
    fetch: float | None = None


def precision(asked: Asked, options: SessionOptions) -> Precision:
    """Return the precision that "auto" means on the devices of the cluster: one of them says it."""
    cluster = _cluster(asked)
    request = _request(asked, options, cluster)
    options = _on_node(options, request)
    if options.device == "cpu":
        return options.precision()
    ray = cluster.ray
    ask = ray.remote(max_calls=1)(precision_of)  # a process that has imported torch ends
    answer = ask.options(**request.options()).remote(options)
    with stopped_by_signals() as stop:
        while not ray.wait([answer], timeout=WAIT)[0]:
            stop.check()
    found: Precision = ray.get(answer)
    return found


def attempt(
    asked: Asked,
    jobs: Jobs,
    batches: Callable[[Mapping[str, Spec]], Iterable[Sequence[str]]],
    count: Callable[[str, Attempt], bool],
) -> int:
    """Attempt runs on the cluster; return the exit code of the crew.

    `batches`: divides runs into those that one process trains at once. `count`: receives the title
    and the outcome of each run, and returns whether to begin more. A run that does not fit into its
    part of a GPU is tried once more with twice as much.
    """
    if not jobs.specs:
        return 0
    cluster = _cluster(asked)
    request = _request(asked, jobs.session, cluster)
    small: list[str] = []

    def report(title: str, outcome: Attempt) -> bool:
        if outcome.exit_code == OutOfMemory.exit_code and 0 < request.gpus < 1:
            small.append(title)
            return True
        return count(title, outcome)

    code = _attempt(asked, jobs, batches, report, cluster, request)
    if small:
        larger = replace(request, gpus=min(1.0, 2 * request.gpus))
        say(f"{counted(len(small), 'run')} did not fit into {request}: trying {larger}", err=True)
        code = _attempt(asked, jobs.only(small), batches, count, cluster, larger) or code
    return code


def _attempt(
    asked: Asked,
    jobs: Jobs,
    batches: Callable[[Mapping[str, Spec]], Iterable[Sequence[str]]],
    count: Callable[[str, Attempt], bool],
    cluster: Cluster,
    request: Request,
) -> int:
    session = _on_node(jobs.session, request)
    if asked.fetch:
        session = replace(session, checkpoint_every=min(asked.fetch, session.checkpoint_every))
    jobs = replace(jobs, session=session, quiet=True)
    with stopped_by_signals() as stop:
        pool = RayPool(
            cluster,
            request,
            jobs,
            partial(say, err=True),
            workers=asked.workers,
            fetch=asked.fetch or 0.0,
        )

        def wait(hands: Sequence[RayHand]) -> None:
            pool.wait(hands, crew)

        def report(title: str, outcome: Attempt) -> bool:
            stop.resumable |= outcome.state == "trained"
            return count(title, outcome)

        crew = Crew(pool.hire, wait, report, stop, tries=TRIES)
        with pool.shared():
            crew.run(batches(jobs.specs), pool.processes)
        stop.check()
    return crew.code


def _cluster(asked: Asked) -> Cluster:
    """Return the cluster, which the command leaves when it ends."""
    context = click.get_current_context()
    if KEY not in context.meta:
        context.meta[KEY] = context.with_resource(joined(asked.address))
    cluster: Cluster = context.meta[KEY]
    return cluster


def _request(asked: Asked, options: SessionOptions, cluster: Cluster) -> Request:
    """Return what each process asks for; raises `OptionError` if no node can ever give it."""
    if ":" in options.device:
        raise click.UsageError(
            f"--device {options.device} is one device of one machine, and Ray chooses the GPU of "
            f"each run: use --device {options.device.partition(':')[0]}"
        )
    gpus = asked.gpus
    if gpus is not None and gpus > 1 and not gpus.is_integer():
        raise click.UsageError(
            f"--gpus-per-run {gpus:g} is part of several GPUs: give a whole number, or at most 1"
        )
    if gpus is None:
        gpus = 1.0 if options.device != "cpu" and cluster.has_gpus() else 0.0
    request = Request(
        cpus=asked.cpus or 1.0,
        gpus=gpus,
        memory=int((asked.gigabytes or 0.0) * 1e9),
    )
    cluster.check(request)
    return request


def _on_node(options: SessionOptions, request: Request) -> SessionOptions:
    """Return the options of a session on a node; without a GPU of its own it must not use one."""
    return options if request.gpus else replace(options, device="cpu")
