"""`Training`: how networks are trained, the same for all methods of a comparison."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from debiasbench.common.errors import OptionError
from debiasbench.common.options import bound, option
from debiasbench.common.space import DIGITS, choice, log
from debiasbench.common.wording import shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from debiasbench.common.space import Space

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
AnyPrecision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]

STEP_ONLY: dict[str, object] = {"milestones": (), "decay": 0.1}
"""Settings that have an effect with schedule step only, and their defaults."""


@dataclass(frozen=True)
class Training:
    """Optimizer, schedule and length of a training stage.

    Data sets recommend values. `--set train.NAME=VALUE` replaces them for a run, and
    `lab.train(network, NAME=VALUE)` for one stage.
    """

    epochs: int = option(20, "passes over the training split", ge=1)
    batch_size: int = option(128, "samples per step", ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = option("sgd", "optimization algorithm")
    lr: float = option(0.01, "learning rate", gt=0)
    momentum: float = option(0.9, "momentum; used by sgd only", ge=0, lt=1)
    weight_decay: float = option(0.0, "weight decay of all parameters", ge=0)
    schedule: Literal["constant", "cosine", "step", "plateau", "linear"] = option(
        "constant",
        "learning rate over time; cosine, linear: decreases to 0, at every step; step: multiplied "
        "by `decay` at each of `milestones`; plateau: divided by 10 when the validation loss has "
        "not decreased for more than 5 epochs",
    )
    milestones: tuple[float, ...] = option(
        (),
        "fractions of a stage at which schedule step multiplies the learning rate; []: after each "
        "third of the epochs",
        gt=0,
        lt=1,
        absent=(),
    )
    decay: float = option(
        0.1, "factor of the learning rate in schedule step", gt=0, le=1, absent=0.1
    )
    warmup: float = option(
        0.0,
        "fraction of a stage in which the learning rate increases linearly to its value, in "
        "addition to the schedule",
        ge=0,
        lt=1,
        absent=0.0,
    )
    clip_norm: float | None = option(
        None, "gradients of larger norm are scaled down to this norm; none: no clipping", gt=0
    )
    precision: AnyPrecision = option(
        "auto",
        "precision of matrix products and convolutions; auto: bf16 on an accelerator that supports "
        "it, otherwise fp32",
        absent="fp32",
    )
    micro_batch: int | Literal["auto"] | None = option(
        None,
        "samples computed at a time, with gradients summed over the batch; auto: as many as fit "
        "into memory; none: the whole batch",
        ge=1,
        absent=None,
    )
    threads: int | None = option(
        None,
        "threads that compute on a CPU, on which the last bits of results depend; none: as many as "
        "PyTorch uses on the machine, which the environment variable OMP_NUM_THREADS sets",
        ge=1,
        le=1024,
        absent=None,
    )

    def __post_init__(self) -> None:
        """Raise `OptionError` for settings that would have no effect."""
        for name, default in STEP_ONLY.items() if self.schedule != "step" else ():
            if (value := getattr(self, name)) != default:
                shown = list(value) if isinstance(value, tuple) else value
                raise OptionError(
                    f"training: {name}={shown} has no effect with schedule={self.schedule}: remove "
                    "it, or use schedule=step"
                )
        milestones = list(self.milestones)
        if milestones != sorted(set(milestones)):
            raise OptionError(f"training: milestones={milestones} must increase")


def searched(settings: Training, own: Mapping[str, Space]) -> dict[str, Space]:
    """Return the spaces of the training settings that every search tries, by option of `Training`.

    `settings`: those that the data set recommends. The learning rate is searched over a decade on
    each side of it, and so is the weight decay; a weight decay of 0 is searched among 0 and four
    magnitudes that are usual. `own`: the data set's own spaces, such as {"train.lr": log(...)},
    which replace these; see `check_search`.
    """
    decay = settings.weight_decay
    spaces = {
        "lr": log(*_decade(settings.lr)),
        "weight_decay": log(*_decade(decay)) if decay else choice(0.0, 1e-5, 1e-4, 1e-3, 1e-2),
    }
    spaces |= {name.removeprefix("train."): space for name, space in own.items()}
    return {name: bound(Training, name, space) for name, space in spaces.items()}


def _decade(value: float) -> tuple[float, float]:
    return float(f"{value / 10:.{DIGITS}g}"), float(f"{value * 10:.{DIGITS}g}")


def check_search(own: Mapping[str, Space]) -> None:
    """Raise `OptionError` if the search spaces of a data set are not those of training settings."""
    known = {f"train.{field.name}" for field in fields(Training)}
    for name, space in own.items():
        if name not in known:
            raise OptionError(
                f"search: {shown(name)} is not a training setting. Write train.NAME, such as "
                "train.lr"
            )
        bound(Training, name.removeprefix("train."), space)
