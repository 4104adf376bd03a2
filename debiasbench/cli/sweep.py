"""`debiasbench sweep`: the runs of a suite one after the other, those that have no record yet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import (
    arithmetic_options,
    data_root_option,
    debug_option,
    device_option,
    find_dataset,
    load_plugins,
    overwrite_option,
    results_option,
)
from debiasbench.common.processes import cores, started_together

if TYPE_CHECKING:
    from debiasbench.records.record import Record
    from debiasbench.records.store import Overwrite
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.training.precision import Compile


@dataclass
class _Tally:
    """What came of a sweep so far."""

    total: int
    done: int = 0  # by others, or before
    trained: int = 0
    elsewhere: int = 0  # trained by another process right now
    codes: list[int] = field(default_factory=list)  # exit codes of what failed

    @property
    def left(self) -> int:
        return self.total - self.done - self.trained - self.elsewhere - len(self.codes)

    def __str__(self) -> str:
        parts = [f"{self.trained} trained", f"{self.done} already done"]
        parts += [f"{self.elsewhere} being trained elsewhere"] if self.elsewhere else []
        parts += [f"{len(self.codes)} failed"] if self.codes else []
        parts += [f"{self.left} left"] if self.left else []
        return f"{self.total} runs: {', '.join(parts)}"


@click.command()
@click.argument("name", metavar="NAME|FILE.toml")
@results_option
@data_root_option
@device_option
@arithmetic_options
@overwrite_option
@click.option(
    "--keep-going/--stop-at-first-error",
    default=True,
    show_default=True,
    help="Whether the others are run after one that failed.",
)
@click.option("--dry-run", is_flag=True, help="Name what would be trained, and train nothing.")
@click.option("--limit", type=click.IntRange(min=1), help="Begin at most so many runs.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that train at once, on the same device; on a CPU they share its cores.",
)
@click.option("--worker", is_flag=True, hidden=True, help="This is one of several processes.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@debug_option
def sweep(
    name: str,
    results: Path,
    data_root: Path,
    device: str,
    compile: Compile,  # noqa: A002 - what torch calls it
    deterministic: bool,
    overwrite: Overwrite,
    keep_going: bool,
    dry_run: bool,
    limit: int | None,
    jobs: int,
    worker: bool,
    quiet: bool,
) -> None:
    """Train the runs of a suite that have no record yet, one after the other or several at once.

    The same line again goes on where it stopped. Several of it, on any machines that share the
    results folder, train no run twice. If runs failed, the exit code is that of the first.
    """
    from debiasbench.common.errors import Interrupted
    from debiasbench.specs.suites import read

    if started_together():
        raise click.UsageError("torchrun trains one run at a time: give it `debiasbench run`")
    plugins = load_plugins()
    named = read(name).named(plugins, partial(find_dataset, plugins, root=data_root))
    if jobs > 1 and not dry_run:
        _side_by_side(jobs, list(named.values()), results, overwrite, limit)
        return
    tally = _Tally(len(named))
    begun = 0
    try:
        for n, (what, spec) in enumerate(named.items(), 1):
            head = f"{n:>{len(str(len(named)))}}/{len(named)}  {what}"
            if begun == limit or (tally.codes and not keep_going):
                break
            begun += _one(
                head, spec, tally, plugins, results=results, data_root=data_root, device=device,
                compile=compile, deterministic=deterministic, overwrite=overwrite,
                dry_run=dry_run, quiet=quiet, alone=not worker,
            )  # fmt: skip
    except (KeyboardInterrupt, Interrupted) as error:
        if not worker:
            click.echo(f"Interrupted, and what was done is kept. {tally}", err=True)
        click.get_current_context().exit(getattr(error, "exit_code", 130))
    if not worker:
        click.echo(tally)
    if tally.codes:
        click.get_current_context().exit(tally.codes[0])


def _side_by_side(
    jobs: int, specs: list[Spec], results: Path, overwrite: Overwrite, limit: int | None
) -> None:
    """Let several processes of this command take the runs that none has yet."""
    from debiasbench.records.store import Store

    if overwrite == "always" or limit is not None:
        raise click.UsageError("--jobs goes with neither --overwrite always nor --limit")
    store = Store(results)
    before = sum(store.finished(spec, overwrite) is not None for spec in specs)
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    context = click.get_current_context()
    words = _words(context, jobs=1, quiet=True, worker=True)
    workers = [
        subprocess.Popen([sys.executable, "-m", "debiasbench", "sweep", *words], env=environment)
        for _ in range(jobs)
    ]

    def pass_on(number: int, _frame: object) -> None:
        for worker in workers:
            worker.send_signal(number)

    ours = (signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.signal(number, pass_on) for number in ours}
    try:
        codes = [worker.wait() for worker in workers]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    done = sum(store.finished(spec, overwrite) is not None for spec in specs)
    tally = _Tally(len(specs), done=before, trained=done - before)
    click.echo(tally)
    if failed := [code for code in codes if code]:
        context.exit(failed[0] if failed[0] > 0 else 1)


def _words(context: click.Context, **other: object) -> list[str]:
    """Return what was typed, or stands in the environment, as words, with some of it changed."""
    words: list[str] = []
    for parameter in context.command.params:
        value = {**context.params, **other}.get(parameter.name or "")
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(parameter, click.Option) and isinstance(value, bool):
            flags = parameter.opts if value else parameter.secondary_opts
            words += flags[:1]
        elif value is not None:
            words += [parameter.opts[0], str(value)]
    return words


def _one(
    head: str,
    spec: Spec,
    tally: _Tally,
    plugins: Plugins,
    *,
    results: Path,
    data_root: Path,
    device: str,
    compile: Compile,  # noqa: A002 - what torch calls it
    deterministic: bool,
    overwrite: Overwrite,
    dry_run: bool,
    quiet: bool,
    alone: bool,
) -> bool:
    """Run a spec unless it is done, say what came of it, and return whether it was begun."""
    from debiasbench.cli.progress import Bar
    from debiasbench.common.errors import (
        BusyError,
        DebiasbenchError,
        Interrupted,
        StoreError,
        TrainingFailed,
    )
    from debiasbench.records.store import Store

    try:
        if Store(results).finished(spec, overwrite) is not None:
            tally.done += 1
            return False
        if dry_run:
            click.echo(head)
            return True
        from debiasbench.runs.run import run  # only now: torch takes seconds to import

        with nullcontext() if quiet else Bar() as progress:
            done = run(
                spec, plugins, results=results, data_root=data_root, device=device,
                compile=compile, deterministic=deterministic, overwrite=overwrite,
                interruptible=True, progress=progress,
            )  # fmt: skip
    except (Interrupted, StoreError):
        raise  # what the others come to could not be kept either
    except BusyError:
        tally.elsewhere += 1
        if alone:
            click.echo(f"{head}  is being trained by another process")
        return False
    except DebiasbenchError as error:
        tally.codes.append(error.exit_code)
        if click.get_current_context().meta.get("debug"):
            click.echo(traceback.format_exc(), err=True)
        click.echo(f"{head}  failed: {' '.join(str(error).split())}", err=True)
    else:
        if done.record.failure is not None:
            tally.codes.append(TrainingFailed.exit_code)
            click.echo(f"{head}  failed: {done.record.failure.message}", err=True)
        elif done.fresh:
            tally.trained += 1
            click.echo(f"{head}  {_result(done.record)}")
        else:
            tally.done += 1  # by another process in the meantime
    return True


def _result(record: Record) -> str:
    """Seconds, and the accuracy by which the data set is usually judged."""
    rule = record.task.select if record.task.select in record.outcomes else "last"
    value = record.outcomes[rule].test.metrics[record.task.metric]
    seconds = 0.0 if record.cost is None else record.cost.wall_seconds
    return f"{seconds:.0f} s  {record.task.metric.replace('_', ' ')} {100 * value:.1f} %"
