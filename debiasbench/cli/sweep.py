"""`debiasbench sweep`: train the runs of a suite that have no record yet."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import debug_option, load_plugins, overwrite_option
from debiasbench.cli.parsing import Command
from debiasbench.cli.runs import Runs
from debiasbench.cli.session import ALL, SessionOptions, session_options
from debiasbench.common.errors import Interrupted
from debiasbench.common.processes import started_together
from debiasbench.runs.sweep import Tally
from debiasbench.runs.workers import run_workers

if TYPE_CHECKING:
    from debiasbench.records.store import Overwrite
    from debiasbench.specs.spec import Spec


@click.command(cls=Command)
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
    help="Number of processes that train at once, on the same device. On a CPU, they share its "
    "cores.",
)
@click.option("--worker", is_flag=True, hidden=True, help="This is one of several processes.")
@click.option("--quiet", is_flag=True, help="Do not show a progress bar.")
@debug_option
def sweep(
    name: str,
    options: SessionOptions,
    overwrite: Overwrite,
    keep_going: bool,
    dry_run: bool,
    limit: int | None,
    jobs: int,
    worker: bool,
    quiet: bool,
) -> None:
    """Train the runs of a suite that have no record yet.

    After an interruption, run the same command again to continue. The command can run on several
    machines at once; if they share the results folder, no run is trained twice. If runs fail, the
    exit code is that of the first failure.
    """
    from debiasbench.common.display import is_interactive
    from debiasbench.specs.resolve import find_dataset
    from debiasbench.specs.suites import read

    if started_together():
        raise click.UsageError("torchrun trains one run at a time: use it with `debiasbench run`")
    plugins = load_plugins()
    find = partial(find_dataset, plugins, root=options.data_root)
    named = read(name).named(plugins, find, precision=options.precision())
    if jobs > 1 and not dry_run:
        _side_by_side(jobs, list(named.values()), options, overwrite, limit)
        return
    quiet = quiet or (worker and is_interactive())  # several bars do not share a terminal
    runs = Runs(plugins, options, overwrite, len(named), quiet=quiet, elsewhere=not worker)
    tally, started = runs.tally, 0
    try:
        for number, (label, spec) in enumerate(named.items(), 1):
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
    except (KeyboardInterrupt, Interrupted) as error:
        if not worker:
            click.echo(f"Interrupted. The records of finished runs are stored. {tally}", err=True)
        click.get_current_context().exit(getattr(error, "exit_code", 130))
    finally:
        runs.close()
    if not worker:
        click.echo(tally)
    if tally.codes:
        click.get_current_context().exit(tally.codes[0])


def _side_by_side(
    jobs: int, specs: list[Spec], options: SessionOptions, overwrite: Overwrite, limit: int | None
) -> None:
    """Start several processes of this command, which share the runs that have no record."""
    from debiasbench.records.store import Store

    if overwrite == "always" or limit is not None:
        raise click.UsageError("--jobs cannot be combined with --overwrite always or --limit")
    store = Store(options.results)
    before = sum(store.finished(spec, overwrite) is not None for spec in specs)
    context = click.get_current_context()
    codes = run_workers(["sweep", *_words(context, jobs=1, worker=True)], jobs)
    done = sum(store.finished(spec, overwrite) is not None for spec in specs)
    click.echo(Tally(len(specs), done=before, trained=done - before))
    if failed := [code for code in codes if code]:
        context.exit(failed[0] if failed[0] > 0 else 1)


def _words(context: click.Context, **other: object) -> list[str]:
    """Return the arguments of the current command as words, with `other` instead of some."""
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
