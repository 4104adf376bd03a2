"""`debiasbench run`: train a method on a data set, and store the record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from debiasbench.cli.common import (
    debug_option,
    interruptible,
    load_plugins,
    overwrite_option,
    say,
)
from debiasbench.cli.session import ALL, session_options
from debiasbench.cli.session_file import SessionCommand, session_file_option
from debiasbench.cli.words import spec_of, spec_options, with_short_options
from debiasbench.common.errors import (
    DebiasbenchError,
    OptionError,
    RecordError,
    TrainingFailed,
    UnknownNameError,
)
from debiasbench.common.processes import speaks

if TYPE_CHECKING:
    from debiasbench.records.store import Overwrite, Run
    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec


@click.command(cls=SessionCommand)
@spec_options
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**63 - 1),
    help="Seed of all randomness.  [default: 0]",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Short for --set train.epochs=N.")
@click.option(
    "--spec",
    "spec_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Use the spec in this file, a record or a spec alone, instead of --method and other spec "
    "options.",
)
@session_options(*ALL)
@session_file_option
@overwrite_option
@click.option(
    "--keep-weights",
    is_flag=True,
    help="Store the network's weights too, for `debiasbench export`.",
)
@click.option("--quiet", is_flag=True, help="Do not show a progress bar.")
@debug_option
@interruptible
def run(
    method: str | None,
    preset: str | None,
    dataset: str | None,
    model: str | None,
    seed: int | None,
    settings: tuple[str, ...],
    sparse: str | None,
    epochs: int | None,
    batch_size: str | None,
    precision: str | None,
    spec_file: Path | None,
    options: SessionOptions,
    overwrite: Overwrite,
    keep_weights: bool,
    quiet: bool,
) -> None:
    """Train a method on a data set, and store the record.

    A run that has a record is not run again.
    """
    from debiasbench.cli.report import report
    from debiasbench.runs.provenance import changed

    plugins = load_plugins()
    settings = with_short_options(
        settings, epochs=epochs, batch_size=batch_size, precision=precision
    )
    if spec_file is not None:
        spec_values = (method, preset, dataset, model, seed, sparse, *settings)
        if any(value is not None for value in spec_values):
            raise click.UsageError(
                "--spec cannot be combined with --method, --set or other spec options"
            )
        options.check_device()
        if not spec_file.exists():
            raise click.UsageError(f"--spec: the file '{spec_file}' does not exist")
        spec = _read_spec(spec_file, plugins)
    elif method is None:
        raise click.UsageError("Missing option '--method', for example --method rest")
    else:
        spec = spec_of(
            plugins, options, method, dataset, model, seed or 0, settings, sparse, preset
        )
    try:
        result = _done(spec, options, overwrite, keep_weights) or _trained(
            spec, plugins, options, overwrite, keep_weights, quiet
        )
    except UnknownNameError as error:
        if spec_file is None:
            raise
        raise _with_origins(error, spec_file) from error
    if speaks():
        say(report(result, [] if result.fresh else changed(result.record, plugins)))
    if result.record.failure is not None:
        if speaks():
            say(f"Error: {result.record.failure.message}", err=True)
        click.get_current_context().exit(TrainingFailed.exit_code)


def _done(spec: Spec, options: SessionOptions, overwrite: Overwrite, weights: bool) -> Run | None:
    """Return the existing record of a spec, without importing torch, or None."""
    from debiasbench.records.store import Run, Store

    if spec.unresolved:
        return None
    store = Store(options.results)
    record = store.finished(spec, overwrite, with_weights=weights)
    return None if record is None else Run(record, store.path(spec), fresh=False)


def _trained(
    spec: Spec,
    plugins: Plugins,
    options: SessionOptions,
    overwrite: Overwrite,
    keep_weights: bool,
    quiet: bool,
) -> Run:
    from debiasbench.common.display import display

    with (
        display(quiet=quiet or not speaks()) as progress,
        options.open(plugins, progress=progress, interruptible=True) as session,
    ):
        return session.run(spec, overwrite=overwrite, keep_weights=keep_weights)


def _read_spec(path: Path, plugins: Plugins) -> Spec:
    """Return the spec of a file, with the revisions of the code that will run it."""
    from debiasbench.specs.revisions import changed as revised
    from debiasbench.specs.revisions import renewed

    stored = _stored_spec(path)
    spec = renewed(plugins, stored)
    if changes := revised(stored, spec):
        say(
            f"Warning: {path.name} was made with another revision of the code "
            f"({'; '.join(changes)}), so this run has another id, and results may differ",
            err=True,
        )
    return spec


def _with_origins(error: UnknownNameError, path: Path) -> DebiasbenchError:
    """Add to an error which packages a record was made with, if the file holds one."""
    from debiasbench.records.store import read

    try:
        origins = read(path).provenance.plugins
    except RecordError:
        return error
    others = sorted({one for one in origins.values() if one.partition(" ")[0] != "debiasbench"})
    if not others:
        return error
    return OptionError(f"{error} {path.name} was made with {', '.join(others)}: install it")


def _stored_spec(path: Path) -> Spec:
    """Return the spec that a file holds: that of a record, or a spec alone."""
    from debiasbench.records.spec_file import read_json, specs_of
    from debiasbench.records.store import read

    try:
        content = read_json(path)
    except RecordError:
        return read(path).spec  # says exactly what is wrong with a record
    if isinstance(content, dict) and "spec" in content:
        return read(path).spec
    specs = specs_of(content if isinstance(content, list) else [content], str(path))
    if len(specs) != 1:
        raise RecordError(
            f"{path} holds {len(specs)} specs, and --spec runs one: give a file of one spec"
        )
    return specs[0]
