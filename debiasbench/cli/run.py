"""`debiasbench run`: train one method on one data set and keep the record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    speaks,
)

if TYPE_CHECKING:
    from debiasbench.arithmetic import Compile
    from debiasbench.plugins import Plugins
    from debiasbench.record import Spec
    from debiasbench.store import Overwrite

SCOPES = ("method", "dataset", "model", "train")


@click.command()
@click.option("--method", help="Method to run; `debiasbench list methods` names them.")
@click.option("--dataset", help="Data set.  [default: digits]")
@click.option("--model", help="Network.  [default: what the data set recommends]")
@click.option("--seed", type=click.IntRange(min=0), help="Decides all randomness.  [default: 0]")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set an option of the method, or dataset.NAME, model.NAME, train.NAME. Repeatable. "
    "`debiasbench show` lists them.",
)
@click.option(
    "--sparse",
    metavar="NAME[:OPTION=VALUE,...]",
    help="Make every stage sparse, such as rigl:density=0.05,every=2%; `debiasbench list "
    "sparsifiers` names the algorithms.",
)
@click.option("--epochs", type=click.IntRange(min=1), help="Short for --set train.epochs=N.")
@click.option(
    "--batch-size",
    metavar="N|auto",
    help="Short for --set train.batch_size=N; auto keeps the batch and computes it in parts that "
    "fit into memory.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
    help="Short for --set train.precision=...; auto is bf16 on a GPU that has it, else fp32.",
)
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
    from debiasbench.store import Run, Store

    plugins = load_plugins()
    short = _training(epochs, batch_size, precision)
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
        spec = _make_spec(plugins, method, dataset, implied, model, seed or 0, settings, sparse)

    store = Store(results)
    record = store.finished(spec, overwrite, with_weights=keep_weights)
    if record is not None:
        done = Run(record, store.path(spec), fresh=False)
    else:
        from debiasbench.run import run as run_spec  # only now: torch takes seconds to import

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
        from debiasbench.errors import TrainingFailed

        click.echo(f"Error: {done.record.failure.message}", err=True)
        click.get_current_context().exit(TrainingFailed.exit_code)


def _training(epochs: int | None, batch_size: str | None, precision: str | None) -> list[str]:
    """Spell out the options that are short for settings of the training."""
    auto = batch_size == "auto"
    given = {
        "epochs": epochs,
        "micro_batch": "auto" if auto else None,
        "batch_size": None if auto else batch_size,
        "precision": precision,
    }
    return [f"train.{name}={value}" for name, value in given.items() if value is not None]


def _make_spec(
    plugins: Plugins,
    method: str,
    dataset: str,
    implied: dict[str, object],
    model: str | None,
    seed: int,
    settings: tuple[str, ...],
    sparse: str | None,
) -> Spec:
    from debiasbench.specs import make_spec

    options: dict[str, dict[str, object]] = {scope: {} for scope in SCOPES}
    for setting in settings:
        name, equals, value = setting.partition("=")
        scope, dot, option = name.partition(".")
        if not equals or not name or (dot and scope not in SCOPES):
            raise click.UsageError(
                f"--set {setting}: write NAME=VALUE, with NAME an option of the method or "
                "dataset.OPTION, model.OPTION, train.OPTION"
            )
        options[scope if dot else "method"][option if dot else name] = value
    return make_spec(
        plugins,
        method=method,
        dataset=dataset,
        model=model,
        seed=seed,
        method_options=options["method"],
        dataset_options={**implied, **options["dataset"]},
        model_options=options["model"],
        training=options["train"],
        **_read_sparse(sparse),
    )


def _read_sparse(text: str | None) -> dict[str, Any]:
    """Read "rigl:density=0.05,every=2%"; a value in brackets is a list and may hold commas."""
    if text is None:
        return {}
    name, _, rest = text.partition(":")
    settings = [s.partition("=") for s in re.split(r",(?![^\[]*\])", rest)] if rest else []
    if wrong := ["".join(setting) for setting in settings if not (setting[0] and setting[1])]:
        raise click.UsageError(
            f"--sparse {text}: {wrong[0]!r} is no OPTION=VALUE; write rigl:density=0.05,every=2%"
        )
    return {"sparse": name, "sparse_options": {option: value for option, _, value in settings}}


def _read_spec(path: Path) -> Spec:
    from debiasbench.store import read

    return read(path).spec
