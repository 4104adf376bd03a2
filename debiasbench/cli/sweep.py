"""`debiasbench sweep`: train the runs of a suite that have no record yet."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import debug_option, interruptible, load_plugins, overwrite_option
from debiasbench.cli.runs import Runs
from debiasbench.cli.session import ALL, SessionOptions, session_options
from debiasbench.common.errors import Interrupted
from debiasbench.common.processes import started_together
from debiasbench.common.signals import check, stopped_by_signals
from debiasbench.runs.workers import Crew, Orders

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.records.store import Overwrite
    from debiasbench.runs.sweep import Attempt
    from debiasbench.specs.spec import Spec


@click.command()
@click.argument("name", metavar="NAME|FILE.toml")
@session_options(*ALL)
@overwrite_option
@click.option(
    "--keep-going/--stop-at-first-error",
    default=True,
    show_default=True,
    help="Whether to continue with other runs after a failure.",
)
@click.option("--dry-run", is_flag=True, help="Only list the runs that would be trained.")
@click.option("--limit", type=click.IntRange(min=1), help="Largest number of runs to start.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of processes that train at once, on the same device. On a CPU, each uses as many "
    "threads as a run alone, so results are equal; see train.threads.",
)
@click.option("--worker", hidden=True, help="Pipes to the parent of this process.")
@click.option("--quiet", is_flag=True, help="Do not show a progress bar.")
@debug_option
@interruptible
def sweep(
    name: str,
    options: SessionOptions,
    overwrite: Overwrite,
    keep_going: bool,
    dry_run: bool,
    limit: int | None,
    jobs: int,
    worker: str | None,
    quiet: bool,
) -> None:
    """Train the runs of a suite that have no record yet.

    After an interruption, run the same command again to continue. The command can run on several
    machines at once; if they share the results folder, no run is trained twice. If runs fail, the
    exit code is that of the first failure.
    """
    from debiasbench.specs.resolve import find_dataset
    from debiasbench.specs.suites import read

    if started_together():
        raise click.UsageError("torchrun trains one run at a time: use it with `debiasbench run`")
    plugins = load_plugins()
    find = partial(find_dataset, plugins, root=options.data_root)
    named = read(name).named(plugins, find, precision=options.precision())
    runs = Runs(plugins, options, overwrite, len(named), bar=not quiet)
    context, code = click.get_current_context(), 0
    try:
        if worker is not None:
            _work(worker, runs, named)
            return
        if jobs > 1 and not dry_run:
            code = _share_out(jobs, runs, named, keep_going=keep_going, limit=limit)
        else:
            _one_by_one(runs, named, keep_going=keep_going, limit=limit, dry_run=dry_run)
    except (KeyboardInterrupt, Interrupted) as error:
        if worker is None:
            click.echo(
                f"Interrupted. The records of finished runs are stored. {runs.tally}", err=True
            )
        context.exit(getattr(error, "exit_code", Interrupted.NOTHING_STORED))
    finally:
        runs.close()
    click.echo(runs.tally)
    context.exit(runs.tally.codes[0] if runs.tally.codes else code)


def _one_by_one(
    runs: Runs, named: Mapping[str, Spec], *, keep_going: bool, limit: int | None, dry_run: bool
) -> None:
    """Attempt the runs in this process."""
    started, tally = 0, runs.tally
    for number, (label, spec) in enumerate(named.items(), 1):
        check()
        head = runs.head(number, label)
        if started == limit or (tally.codes and not keep_going):
            break
        if runs.is_done(spec):
            tally.done += 1
        elif dry_run:
            click.echo(head)
            started += 1
        else:
            started += runs.attempt(head, spec).state != "elsewhere"


def _share_out(
    jobs: int, runs: Runs, named: Mapping[str, Spec], *, keep_going: bool, limit: int | None
) -> int:
    """Let several processes of this command attempt the runs.

    Returns the exit code of a process that left runs to do although it did not fail in one.
    """
    heads, tally = _heads(runs, named), runs.tally
    pending = [label for label, spec in named.items() if not runs.is_done(spec)]
    tally.done = len(named) - len(pending)
    context = click.get_current_context()

    with stopped_by_signals() as stop:

        def report(label: str, outcome: Attempt) -> bool:
            tally.count(outcome)
            stop.resumable |= outcome.state == "trained"
            if outcome.problem:
                click.echo(f"{heads[label]}  failed: {outcome.problem}", err=True)
            return keep_going or not tally.codes

        crew = Crew(["sweep", *_words(context, jobs=1, quiet=True)], report, stop)
        crew.run(pending[:limit], jobs)
        stop.check()
    if crew.code and tally.left:
        click.echo("Error: a process ended before all runs were attempted", err=True)
        return crew.code
    return 0


def _work(ends: str, runs: Runs, named: Mapping[str, Spec]) -> None:
    """Attempt the runs that the parent process hands out."""
    heads = _heads(runs, named)
    with stopped_by_signals() as stop:
        orders = Orders(ends, stop)
        for label in orders:
            orders.report(runs.attempt(heads[label], named[label]))


def _heads(runs: Runs, named: Mapping[str, Spec]) -> dict[str, str]:
    """Return the beginning of the line of each run, by label."""
    return {label: runs.head(number, label) for number, label in enumerate(named, 1)}


def _words(context: click.Context, **other: object) -> list[str]:
    """Return the arguments of the current command as words, with `other` instead of some."""
    options: list[str] = []
    arguments: list[str] = []
    for parameter in context.command.params:
        value = {**context.params, **other}.get(parameter.name or "")
        if isinstance(parameter, click.Argument):
            arguments.append(str(value))
        elif isinstance(value, bool):
            options += (parameter.opts if value else parameter.secondary_opts)[:1]
        elif value is not None:
            options.append(f"{parameter.opts[0]}={value}")
    return [*options, "--", *arguments]  # an argument may begin with a dash
