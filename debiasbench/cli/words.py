"""The command-line options that define a run, and the spec that they define."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from debiasbench.runs.session_options import SessionOptions
    from debiasbench.specs.plugins import Plugins
    from debiasbench.specs.spec import Spec

_METHOD = click.option("--method", help="Method; see `debiasbench list methods`.")
_PRESET = click.option(
    "--preset",
    help="Settings of the method's authors for a data set, such as waterbirds; `debiasbench show "
    "METHOD` lists them. Other options of the command replace them.",
)
_OPTIONS = [
    click.option("--dataset", help="Data set; see `debiasbench list datasets`.  [default: digits]"),
    click.option(
        "--model",
        help="Network; see `debiasbench list models`.  [default: recommended by the data set]",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Set an option of the method, or of the data set (dataset.NAME), the model "
        "(model.NAME), the training (train.NAME) or the sparsifier (sparse.NAME). Can be used "
        "several times. `debiasbench show` lists the options.",
    ),
    click.option(
        "--sparse",
        metavar="NAME[:OPTION=VALUE,...]",
        help="Train sparse networks with this sparsifier, for example rigl:density=0.05,every=2%; "
        "see `debiasbench list sparsifiers`.",
    ),
    click.option(
        "--batch-size",
        metavar="N|auto",
        help="Short for --set train.batch_size=N; auto keeps the batch size and computes each "
        "batch in parts that fit into memory.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "tf32", "bf16", "fp16"]),
        help="Short for --set train.precision=PRECISION; auto is bf16 on a GPU that supports it, "
        "otherwise fp32.",
    ),
]


def spec_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that define a run."""
    return _METHOD(_PRESET(comparison_options(command)))


def comparison_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that define a run, except the method."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def with_short_options(
    settings: tuple[str, ...],
    *,
    batch_size: str | None,
    precision: str | None,
    epochs: int | None = None,
) -> tuple[str, ...]:
    """Return the values of `--set`, followed by those that short options stand for.

    Raises `OptionError` if both set the same.
    """
    from debiasbench.common.errors import OptionError

    batch = "micro_batch" if batch_size == "auto" else "batch_size"
    short = {
        "--epochs": ("train.epochs", epochs),
        "--batch-size": (f"train.{batch}", batch_size),
        "--precision": ("train.precision", precision),
    }
    given = {setting.partition("=")[0] for setting in settings}
    for option, (name, value) in short.items():
        if value is not None and name in given:
            raise OptionError(f"{name} is given twice: by {option} and by --set. Keep one of them")
    return settings + tuple(f"{name}={v}" for name, v in short.values() if v is not None)


def spec_of(
    plugins: Plugins,
    options: SessionOptions,
    method: str,
    dataset: str | None,
    model: str | None,
    seed: int,
    settings: tuple[str, ...],
    sparse: str | None,
    preset: str | None = None,
) -> Spec:
    """Return the spec that names and settings define, with the precision of the device."""
    from debiasbench.specs.resolve import find_dataset, make_spec
    from debiasbench.specs.words import arguments, combined, read_settings, read_sparse

    dataset = "digits" if dataset is None else dataset
    names = {"method": method, "dataset": dataset, "seed": seed}
    for name, value in (("model", model), ("preset", preset)):
        if value is not None:
            names[name] = value
    words = combined([names, read_sparse(sparse), read_settings(settings)])
    keywords = arguments(
        words, plugins, lambda name: find_dataset(plugins, name, options.data_root)
    )
    return make_spec(plugins, **keywords, precision=options.precision())
