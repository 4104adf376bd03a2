"""`debiasbench search`: tune methods with equal budgets, and report the best on other seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import (
    check_name,
    debug_option,
    format_option,
    interruptible,
    load_plugins,
    overwrite_option,
    print_table,
    say,
)
from debiasbench.cli.launching import Launch, launch_options
from debiasbench.cli.plan import plan_option, planned
from debiasbench.cli.runs import ending
from debiasbench.cli.searching import Asked, Given, Searching
from debiasbench.cli.session import ALL, session_options
from debiasbench.cli.session_file import SessionCommand, session_file_option
from debiasbench.cli.words import comparison_options, with_short_options
from debiasbench.common.errors import OptionError
from debiasbench.common.processes import started_together

if TYPE_CHECKING:
    from debiasbench.core.settings import AnyPrecision
    from debiasbench.records.store import Overwrite
    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.search import Plan, Planner


@click.command(cls=SessionCommand)
@click.argument("methods", nargs=-1, required=True, metavar="METHOD...")
@comparison_options
@click.option(
    "--trials",
    type=int,
    default=16,
    show_default=True,
    help="Trials of each method. The first has the defaults; 16 are the first of 32.",
)
@click.option(
    "--seeds",
    default="0-4",
    show_default=True,
    help="Seeds with which the best trial is run again, such as 0-4 or 1,3,7-9.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Short for --set train.epochs=N.")
@session_options(*ALL)
@session_file_option
@launch_options
@overwrite_option
@click.option(
    "--select",
    help="The selection rule that chooses epochs and the best trial.  [default: that of the data "
    "set]",
)
@click.option(
    "--sampler",
    metavar="optuna:tpe|random",
    help="Let Optuna draw the trials, one after the other, for your own use: tables label such "
    "rows as set by hand. Needs the extra search.  [default: a Latin hypercube]",
)
@click.option("--metric", help="Rank by this accuracy.  [default: that of the data set]")
@format_option
@click.option("--dry-run", is_flag=True, help="Only list the trials, with their values.")
@plan_option
@click.option("--quiet", is_flag=True, help="Do not show a progress bar.")
@debug_option
@interruptible
def search(
    methods: tuple[str, ...],
    dataset: str | None,
    model: str | None,
    settings: tuple[str, ...],
    sparse: str | None,
    batch_size: str | None,
    precision: str | None,
    trials: int,
    seeds: str,
    epochs: int | None,
    options: SessionOptions,
    launch: Launch,
    overwrite: Overwrite,
    select: str | None,
    sampler: str | None,
    metric: str | None,
    form: str | None,
    dry_run: bool,
    plan: bool,
    quiet: bool,
) -> None:
    """Tune methods on a data set, each with the same number of trials.

    Each METHOD is trained with the values that `debiasbench search --dry-run` lists. The trial that
    is best on the validation split is run again with other seeds, and the leaderboard of these runs
    is printed. The test split of trials is never read. After an interruption, run the same command
    again to continue.

    `debiasbench show METHOD` prints which options are searched. What --set gives is not searched.
    """
    from debiasbench.records.metrics import METRICS
    from debiasbench.records.selection import RULES
    from debiasbench.specs.grid import seeds as read_seeds
    from debiasbench.specs.search import check_reported, check_trials, hypercube

    if started_together():
        raise click.UsageError("torchrun trains one run at a time: use it with `debiasbench run`")
    for kind, name, known in (("metric", metric, METRICS), ("selection rule", select, RULES)):
        check_name(kind, name, known)
    reported = read_seeds(seeds)
    check_reported(reported)
    check_trials(trials)
    plugins = load_plugins()
    settings = with_short_options(
        settings, epochs=epochs, batch_size=batch_size, precision=precision
    )
    precision_of_runs = options.precision() if plan else launch.precision(options)
    planners = _planners(
        plugins, options, precision_of_runs, methods, dataset, model, settings, sparse
    )
    if sampler is not None and (dry_run or plan):
        no = "--dry-run" if dry_run else "--plan"
        raise click.UsageError(f"--sampler draws each trial after those before it: no {no}")
    given = Given(plugins, options, overwrite, launch, rule=select, quiet=quiet)
    searching: Searching
    if sampler is not None:
        searching = Asked(given, planners, reported, trials=trials, sampler=sampler)
    else:
        plans = [hypercube(planner, trials) for planner in planners]
        searching = Searching(given, [(one, reported) for one in plans])
    if plan:
        say(planned(plugins, options, *searching.expected(), launch))
        return
    if dry_run:
        say("".join(f"{line}\n" for one in plans for line in _listed(one)), nl=False)
        return
    context = click.get_current_context()
    with ending(searching):
        searching.run()
    if places := searching.places:
        print_table(places, form, metric=metric, select=select)
    context.exit(searching.code)


def _planners(
    plugins: Plugins,
    options: SessionOptions,
    precision: AnyPrecision,
    methods: tuple[str, ...],
    dataset: str | None,
    model: str | None,
    settings: tuple[str, ...],
    sparse: str | None,
) -> list[Planner]:
    from debiasbench.specs.grid import expand, read_lists
    from debiasbench.specs.resolve import find_dataset
    from debiasbench.specs.search import Planner
    from debiasbench.specs.words import combined, read_sparse

    names = {"dataset": "digits" if dataset is None else dataset, "model": model}
    common = combined([{k: v for k, v in names.items() if v is not None}, read_sparse(sparse)])
    found = find_dataset(plugins, str(common["dataset"]), options.data_root)[0]
    lists = read_lists(settings)
    for name, values in lists.items():
        if len(values) > 1:
            raise OptionError(
                f"--set {name} has {len(values)} values: a search draws the values. Give one, or "
                "none"
            )
    grids = expand(lists, list(methods), plugins, parts={**common, "dataset": found})
    return [
        Planner(
            plugins,
            combined([{"method": method}, common, words]),
            find=lambda name: find_dataset(plugins, name, options.data_root),
            precision=precision,
        )
        for method, (words,) in grids.items()
    ]


def _listed(plan: Plan) -> list[str]:
    """Return a line for each trial with the values of what is searched."""
    from debiasbench.specs.words import label

    return [f"{title}  {label(plan.values(spec))}" for title, spec in plan.titled().items()]
