"""`--on ray`: the runs of a command on a Ray cluster."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import say
from debiasbench.common.errors import OutOfMemory
from debiasbench.common.signals import stopped_by_signals
from debiasbench.runs.crew import Crew
from debiasbench.runs.on_ray import TRIES, RayHand, RayPool
from debiasbench.runs.ray_cluster import Cluster, Request, joined
from debiasbench.runs.ray_node import precision_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from debiasbench.cli.launching import Launch, Launcher
    from debiasbench.core.settings import Precision
    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.runs.sweep import Attempt
    from debiasbench.specs.spec import Spec

KEY = "debiasbench.cluster"
WAIT = 0.5  # seconds between two looks at signals


def precision(launch: Launch, options: SessionOptions) -> Precision:
    """Return the precision that "auto" means on the devices of the cluster: one of them says it."""
    cluster = _cluster(launch)
    request = _request(launch, options, cluster)
    options = _on_node(options, request)
    if options.device == "cpu":
        return options.precision()
    ray = cluster.ray
    asked = ray.remote(precision_of).options(max_calls=1, **request.options()).remote(options)
    with stopped_by_signals() as stop:
        while not ray.wait([asked], timeout=WAIT)[0]:
            stop.check()
    found: Precision = ray.get(asked)
    return found


def attempt(launcher: Launcher, specs: Mapping[str, Spec]) -> int:
    """Attempt runs on the cluster; see `Launcher.attempt`.

    A run that does not fit into its part of a GPU is tried once with twice as much.
    """
    if not specs:
        return 0
    cluster = _cluster(launcher.launch)
    request = _request(launcher.launch, launcher.options, cluster)
    small: dict[str, Spec] = {}

    def report(title: str, outcome: Attempt) -> bool:
        if outcome.exit_code == OutOfMemory.exit_code and 0 < request.gpus < 1:
            small[title] = specs[title]
            return True
        return launcher.count(title, outcome)

    code = _attempt(launcher, specs, cluster, request, report)
    if small:
        larger = replace(request, gpus=min(1.0, 2 * request.gpus))
        say(f"{len(small)} runs did not fit into {request}: trying {larger}", err=True)
        code = _attempt(launcher, small, cluster, larger, launcher.count) or code
    return launcher.ended(code)


def _attempt(
    launcher: Launcher,
    specs: Mapping[str, Spec],
    cluster: Cluster,
    request: Request,
    report: Callable[[str, Attempt], bool],
) -> int:
    launch = launcher.launch
    jobs = launcher.jobs().only(specs)
    fetch = launch.fetch_checkpoints or 0.0
    session = _on_node(jobs.session, request)
    if fetch:
        session = replace(session, checkpoint_every=min(fetch, session.checkpoint_every))
    jobs = replace(jobs, session=session, quiet=True)
    with stopped_by_signals() as stop:
        pool = RayPool(
            cluster,
            request,
            jobs,
            partial(say, err=True),
            workers=launch.workers,
            fetch=fetch,
        )

        def wait(hands: Sequence[RayHand]) -> None:
            pool.wait(hands, crew)

        def resumable(title: str, outcome: Attempt) -> bool:
            stop.resumable |= outcome.state == "trained"
            return report(title, outcome)

        crew = Crew(pool.hire, wait, resumable, stop, tries=TRIES)
        with pool.shared():
            crew.run(launcher.batches(specs), pool.processes)
        stop.check()
    return crew.code


def _cluster(launch: Launch) -> Cluster:
    """Return the cluster, which the command leaves when it ends."""
    context = click.get_current_context()
    if KEY not in context.meta:
        address = launch.on.partition(":")[2]
        context.meta[KEY] = context.with_resource(joined(address or None))
    cluster: Cluster = context.meta[KEY]
    return cluster


def _request(launch: Launch, options: SessionOptions, cluster: Cluster) -> Request:
    """Return what each process asks for; raises `OptionError` if no node can ever give it."""
    if ":" in options.device:
        raise click.UsageError(
            f"--device {options.device} is one device of one machine, and Ray chooses the GPU of "
            f"each run: use --device {options.device.partition(':')[0]}"
        )
    gpus = launch.gpus_per_run
    if gpus is not None and gpus > 1 and not gpus.is_integer():
        raise click.UsageError(
            f"--gpus-per-run {gpus:g} is part of several GPUs: give a whole number, or at most 1"
        )
    if gpus is None:
        gpus = 1.0 if options.device != "cpu" and cluster.has_gpus() else 0.0
    request = Request(
        cpus=launch.cpus_per_run or 1.0,
        gpus=gpus,
        memory=int((launch.memory_per_run or 0.0) * 1e9),
    )
    cluster.check(request)
    return request


def _on_node(options: SessionOptions, request: Request) -> SessionOptions:
    """Return the options of a session on a node; without a GPU of its own it must not use one."""
    return options if request.gpus else replace(options, device="cpu")
