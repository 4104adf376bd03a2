"""`debiasbench suite`: which grids of runs there are, what is done of one, what the rest takes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import (
    data_root_option,
    debug_option,
    device_option,
    load_plugins,
    results_option,
)
from debiasbench.cli.session import SessionOptions, session_options

if TYPE_CHECKING:
    from debiasbench.measure.forecast import Forecast
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec
    from debiasbench.specs.suite import Block, Suite


@click.group()
def suite() -> None:
    """List and show suites: grids of runs, for `debiasbench sweep`."""


@suite.command("list")
@debug_option
def list_() -> None:
    """List the suites that come with debiasbench."""
    from tabulate import tabulate

    from debiasbench.specs.suites import names, read

    rows = [(name, read(name).description) for name in names()]
    click.echo(tabulate(rows, headers=("suite", ""), tablefmt="plain"))


@suite.command()
@click.argument("name", metavar="NAME|FILE.toml")
@session_options(results_option, data_root_option, device_option)
@click.option("--no-forecast", is_flag=True, help="Measure nothing.")
@debug_option
def show(name: str, where: SessionOptions, no_forecast: bool) -> None:
    """Show the runs of a suite, how many have a record, and what the rest will take.

    The forecast trains each kind of run for about twenty steps.
    """
    from debiasbench.records.store import Store
    from debiasbench.specs.resolve import find_dataset
    from debiasbench.specs.suites import read

    plugins = load_plugins()
    chosen = read(name)
    find = partial(find_dataset, plugins, root=where.data_root)
    specs = chosen.specs(plugins, find, precision=where.precision())
    store = Store(where.results)
    left = [spec for spec in specs if store.finished(spec, "failed") is None]
    failed = sum(store.load(spec) is not None for spec in left)
    click.echo(describe(chosen))
    click.echo(
        f"\n{len(specs)} runs, {len(specs) - len(left)} of them done in {where.results}"
        + (f", {failed} to be run again because they failed" if failed else "")
    )
    if left and not no_forecast:
        click.echo("\n" + _forecast(chosen, left, plugins, where))


def describe(suite: Suite) -> str:
    """Write what a suite is: what its runs share, and a line for each line of a grid."""
    from tabulate import tabulate

    parts = [f"{suite.name}: {suite.description}", f"Source: {suite.source}"]
    rows = _rows("every run", suite.common)
    for i, block in enumerate(suite.blocks, 1):
        rows += _rows(f"runs {i}" if len(suite.blocks) > 1 else "these runs", block)
    parts.append(
        tabulate(rows, tablefmt="plain", disable_numparse=True, maxcolwidths=[None, 24, 66])
    )
    return "\n\n".join(parts)


def _rows(owner: str, block: Block) -> list[tuple[str, str, str]]:
    from debiasbench.specs.words import as_text, short_name

    lines = [(short_name(name), as_text(value)) for name, value in block.words.items()]
    for tied, alternatives in block.grid.items():
        values = [" ".join(map(as_text, words.values())) for words in alternatives]
        lines.append((tied, f"{', '.join(values)}  ({len(values)})"))
    return [(owner if i == 0 else "", *line) for i, line in enumerate(lines)]


def _forecast(suite: Suite, left: list[Spec], plugins: Plugins, where: SessionOptions) -> str:
    from debiasbench.cli.progress import Bar
    from debiasbench.measure.forecast import forecast

    with Bar() as progress, where.open(plugins, progress=progress) as session:
        return report(forecast(session, left, stand_ins=suite.stand_ins))


def report(found: list[Forecast]) -> str:
    """Write a forecast: a row for each kind of run, the sum, and what it rests on."""
    from tabulate import tabulate

    from debiasbench.measure.rehearsal import STEPS

    known = [f for f in found if not f.problem]
    parts = []
    if known:
        head = ("runs", "method", "data set", "model", "batch", "steps", "ms a step",
                "s a validation", "hours a run", "hours")  # fmt: skip
        table = tabulate(
            [_row(f) for f in known], headers=head, tablefmt="simple", disable_numparse=True,
            colalign=("right", "left", "left", "left", *["right"] * 6),
        )  # fmt: skip
        runs, seconds = sum(f.runs for f in known), sum(f.runs * f.seconds for f in known)
        memory = max(f.memory for f in known)
        parts = [
            f"Forecast for {known[0].hardware}, runs one after the other:",
            table,
            f"{runs} runs take about {_hours(seconds)} hours ({seconds / 86400:.1f} days) and at "
            f"most some {memory / 1e9:.1f} GB of memory.",
            f"It is a forecast: {STEPS} steps and a validation of the first run of each row, "
            "multiplied. Left out: the first steps, updates of the topology that did not fall into "
            "those steps, and whatever else the machine does. Masked weights cost what dense ones "
            f"do. {_alike(known)}",
        ]
    for f in found:
        what = f"{f.runs} runs of {f.spec.method.name} on {f.spec.dataset.name}"
        if f.problem:
            parts.append(f"No forecast for {what}: {f.problem}")
        elif f.stand_in:
            parts.append(f"Random images stood in for {what}, without augmentation: {f.stand_in}")
    return "\n\n".join(parts)


def _alike(known: list[Forecast]) -> str:
    """Say which options are taken to make no difference."""
    differ = dict.fromkeys(name for f in known for name in f.differ)
    return f"Runs of a row are taken to cost alike, whatever their {', '.join([*differ, 'seed'])}."


def _row(f: Forecast) -> tuple[str, ...]:
    spec = f.spec
    steps, looks = sum(s.steps for s in f.stages), sum(s.looks for s in f.stages)
    stepping, looking = (
        sum(s.steps * s.step for s in f.stages), sum(s.looks * s.look for s in f.stages)
    )  # fmt: skip
    sparse = "" if spec.sparse is None else f" + {spec.sparse.name}"
    return (
        str(f.runs),
        spec.method.name + sparse,
        spec.dataset.name,
        spec.model.name,
        str(spec.training["batch_size"]),
        f"{steps:,}",
        f"{1000 * stepping / steps:.1f}" if steps else "—",
        f"{looking / looks:.2f}" if looks else "—",
        _hours(f.seconds),
        _hours(f.runs * f.seconds),
    )


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
