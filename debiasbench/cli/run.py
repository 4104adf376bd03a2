"""`debiasbench run`: train one method on one data set and keep the record."""

from __future__ import annotations

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
from debiasbench.cli.words import spec_of, spec_options, training_settings
from debiasbench.common.processes import speaks

if TYPE_CHECKING:
    from debiasbench.records.store import Overwrite
    from debiasbench.specs.spec import Spec
    from debiasbench.training.precision import Compile


@click.command()
@spec_options
@click.option("--seed", type=click.IntRange(min=0), help="Decides all randomness.  [default: 0]")
@click.option("--epochs", type=click.IntRange(min=1), help="Short for --set train.epochs=N.")
@click.option(
    "--spec",
    "spec_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Run the spec of this record again, instead of naming things.",
)
@results_option
@data_root_option
@device_option
@arithmetic_options
@overwrite_option
@click.option(
    "--keep-weights", is_flag=True, help="Keep the network's weights, for `debiasbench export`."
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@debug_option
def run(
    method: str | None,
    dataset: str | None,
    model: str | None,
    seed: int | None,
    settings: tuple[str, ...],
    sparse: str | None,
    epochs: int | None,
    batch_size: str | None,
    precision: str | None,
    spec_file: Path | None,
    results: Path,
    data_root: Path,
    device: str,
    compile: Compile,  # noqa: A002 - what torch calls it
    deterministic: bool,
    overwrite: Overwrite,
    keep_weights: bool,
    quiet: bool,
) -> None:
    """Run one method and keep its record; a spec that has a record is not run again."""
    from contextlib import nullcontext

    from debiasbench.cli.progress import Bar
    from debiasbench.cli.report import report
    from debiasbench.records.store import Run, Store

    plugins = load_plugins()
    short = training_settings(epochs=epochs, batch_size=batch_size, precision=precision)
    named = (method, dataset, model, seed, sparse, *settings, *short)
    if spec_file is not None:
        if any(value is not None for value in named):
            raise click.UsageError("--spec says all that is run: leave out what names or sets it")
        spec = _read_spec(spec_file)
    elif method is None:
        raise click.UsageError("Missing option '--method'. Try --method rest")
    else:
        settings = (*settings, *short)
        dataset, implied = find_dataset(plugins, dataset or "digits", data_root)
        spec = spec_of(plugins, method, dataset, implied, model, seed or 0, settings, sparse)

    store = Store(results)
    record = store.finished(spec, overwrite, with_weights=keep_weights)
    if record is not None:
        done = Run(record, store.path(spec), fresh=False)
    else:
        from debiasbench.runs.run import run as run_spec  # only now: torch takes seconds to import

        with nullcontext() if quiet or not speaks() else Bar() as progress:
            done = run_spec(
                spec,
                plugins,
                results=results,
                data_root=data_root,
                device=device,
                compile=compile,
                deterministic=deterministic,
                overwrite=overwrite,
                keep_weights=keep_weights,
                interruptible=True,
                progress=progress,
            )
    if speaks():
        click.echo(report(done))
    if done.record.failure is not None:
        from debiasbench.common.errors import TrainingFailed

        if speaks():
            click.echo(f"Error: {done.record.failure.message}", err=True)
        click.get_current_context().exit(TrainingFailed.exit_code)


def _read_spec(path: Path) -> Spec:
    from debiasbench.records.store import read

    return read(path).spec
