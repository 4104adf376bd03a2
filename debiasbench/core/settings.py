"""How networks are trained: the settings every method of a comparison shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from debiasbench.common.options import option

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
AnyPrecision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]


@dataclass(frozen=True)
class Training:
    """Optimizer, schedule and budget of a training stage.

    Data sets recommend values, `--set train.NAME=VALUE` chooses, and `lab.train(net, lr=...)`
    overrides for one stage.
    """

    epochs: int = option(20, "passes over the training split", ge=1)
    batch_size: int = option(128, "samples a step", ge=1)
    optimizer: Literal["sgd", "adam", "adamw"] = option("sgd", "update rule")
    lr: float = option(0.01, "learning rate", gt=0)
    momentum: float = option(0.9, "momentum; sgd only", ge=0, lt=1)
    weight_decay: float = option(0.0, "weight decay, on all parameters", ge=0)
    schedule: Literal["constant", "cosine", "step", "plateau"] = option(
        "constant",
        "learning rate over time: cosine falls to 0 each step; step divides by 10 after each "
        "third of the epochs; plateau divides by 10 when more than 5 epochs did not lower the "
        "validation loss",
    )
    clip_norm: float | None = option(None, "largest gradient norm; none: no clipping", gt=0)
    precision: AnyPrecision = option(
        "auto",
        "precision of matrix products and convolutions; auto: bf16 on an accelerator that supports "
        "it, else fp32",
        absent="fp32",
    )
    micro_batch: int | Literal["auto"] | None = option(
        None,
        "samples computed at a time; their gradients add up to that of the batch; auto: as many as "
        "fit into memory; none: the whole batch",
        ge=1,
        absent=None,
    )
