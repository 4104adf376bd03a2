"""`--plan`: what the runs of a command will take, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from debiasbench.common.wording import counted, readable_size, readable_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import Any

    from debiasbench.cli.launching import Launch
    from debiasbench.measure.plan import Item, Plan
    from debiasbench.records.record import Result
    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.specs.suite import StandIn

COLUMNS = ("runs", "method", "data set", "model", "seconds/run", "from", "in all")


def plan_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--plan`."""
    return click.option(
        "--plan",
        is_flag=True,
        help="Only say how many hours, how much memory and how much disk space the runs will take: "
        "from records of similar runs on this hardware, otherwise from some steps of them.",
    )(command)


def planned(
    plugins: Plugins,
    options: SessionOptions,
    named: Mapping[str, Spec],
    left: Mapping[str, Spec],
    launch: Launch,
    *,
    stand_ins: Mapping[str, StandIn] | None = None,
) -> str:
    """Return the plan of the runs in `left` as text.

    `named`: all runs of the command, by title; records and trials of them say how long runs take.
    `launch`: where the runs would be trained. Raises `UsageError` for a number of runs at once that
    is not known before.
    """
    from debiasbench.common.display import display
    from debiasbench.measure.plan import free_disk, plan
    from debiasbench.records.store import Store
    from debiasbench.records.trial import Trials

    if launch.together == "auto":
        raise click.UsageError("--plan needs a number: give --together N instead of auto")
    if not left:
        return f"{counted(len(named), 'run')}, all done"
    records, trials = Store(options.results), Trials(options.results)
    done: list[tuple[Path, Result]] = [
        *((records.path(one.spec), one) for _, one in records.all_finished(named, "failed")),
        *((trials.path(one.spec), one) for _, one in trials.all_finished(named, "failed")),
    ]
    with display() as progress, options.open(plugins, progress=progress) as session:
        found = plan(
            session,
            left.values(),
            done,
            stand_ins=stand_ins,
            processes=min(launch.processes, len(left)),
            together=launch.together,
            shared=launch.on == "local",
        )
    text = [f"{counted(len(named), 'run')}, {len(named) - len(left)} of them done"]
    if found.known:
        text += [_table(found), _total(found, launch, options.results, free_disk(options.results))]
    return "\n\n".join([*text, *_notes(found.items)])


def _table(plan: Plan) -> str:
    from tabulate import tabulate

    return tabulate(
        [_row(item) for item in plan.known],
        headers=COLUMNS,
        tablefmt="simple",
        disable_numparse=True,
        colalign=("right", "left", "left", "left", "right", "left", "right"),
    )


def _row(item: Item) -> tuple[str, ...]:
    spec = item.spec
    sparse = "" if spec.sparse is None else f" + {spec.sparse.name}"
    source = counted(item.records, "record") if item.records else "a rehearsal"
    return (
        str(item.runs),
        spec.method.name + sparse,
        spec.dataset.name,
        spec.model.name,
        f"{item.seconds:,.1f}",
        source,
        readable_time(item.runs * item.seconds),
    )


def _total(plan: Plan, launch: Launch, results: Path, free: int) -> str:
    each = "one process" if plan.processes == 1 else f"{plan.processes} processes"
    at_once = f", {plan.together} runs at once in each" if plan.together > 1 else ""
    sharing = ""
    if plan.cores is not None and plan.cores < plan.processes:
        sharing = f" The cores of this machine are enough for {plan.cores} of them at a time."
    stored, unfinished = readable_size(plan.stored), readable_size(plan.unfinished)
    return (
        f"{counted(plan.runs, 'run')} will take about {readable_time(plan.seconds)} with {each}"
        f"{at_once} {_where(launch)} ({plan.hardware}); "
        f"{readable_time(plan.computing)} of computing in all.{sharing}\n"
        f"Memory: up to {readable_size(plan.memory)} for each process. Disk: {stored} for records "
        f"and up to {unfinished} for checkpoints and finished stages in {results}, "
        f"where {readable_size(free)} are free."
    )


def _where(launch: Launch) -> str:
    if launch.on == "local":
        return "on this machine"
    cluster = "in Slurm" if launch.on == "slurm" else "on Ray"
    return f"{cluster}, each with hardware like that of this machine"


def _notes(items: Iterable[Item]) -> Iterator[str]:
    for item in items:
        runs = f"{counted(item.runs, 'run')} of {item.spec.method.name} on {item.spec.dataset.name}"
        if item.problem:
            yield f"No plan for {runs}: {item.problem}"
        elif item.stand_in:
            yield f"Artificial samples without augmentation were used for {runs}: {item.stand_in}"
