"""What is typed to say a run: options that several commands share, and the spec they come to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.cli.session import SessionOptions
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec

SCOPES = ("method", "dataset", "model", "train")

_OPTIONS = [
    click.option("--method", help="Method; `debiasbench list methods` names them."),
    click.option("--dataset", help="Data set.  [default: digits]"),
    click.option("--model", help="Network.  [default: what the data set recommends]"),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Set an option of the method, or dataset.NAME, model.NAME, train.NAME. Repeatable. "
        "`debiasbench show` lists them.",
    ),
    click.option(
        "--sparse",
        metavar="NAME[:OPTION=VALUE,...]",
        help="Make every stage sparse, such as rigl:density=0.05,every=2%; `debiasbench list "
        "sparsifiers` names the algorithms.",
    ),
    click.option(
        "--batch-size",
        metavar="N|auto",
        help="Short for --set train.batch_size=N; auto keeps the batch and computes it in parts "
        "that fit into memory.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
        help="Short for --set train.precision=...; auto is bf16 on a GPU that has it, else fp32.",
    ),
]


def spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what is run."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def training_settings(
    *, batch_size: str | None, precision: str | None, epochs: int | None = None
) -> list[str]:
    """Spell out the options that are short for settings of the training."""
    auto = batch_size == "auto"
    given = {
        "epochs": epochs,
        "micro_batch": "auto" if auto else None,
        "batch_size": None if auto else batch_size,
        "precision": precision,
    }
    return [f"train.{name}={value}" for name, value in given.items() if value is not None]


def spec_of(
    plugins: Plugins,
    where: SessionOptions,
    method: str,
    dataset: str,
    model: str | None,
    seed: int,
    settings: tuple[str, ...],
    sparse: str | None,
) -> Spec:
    """Return the spec that names and settings define, in the precision of the device."""
    from debiasbench.specs.resolve import find_dataset, make_spec

    dataset, implied = find_dataset(plugins, dataset, where.data_root)

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
        precision=where.precision(),
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
