"""Schedules: when the topology changes, what fraction of it, and how density falls."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from debiasbench.sparsity.errors import SparsityError

Anneal = Literal["cosine", "linear", "constant"]

_TEXT = re.compile(r"(\d+(?:\.\d+)?)\s*(%|steps?|epochs?)?")


@dataclass(frozen=True)
class Interval:
    """The amount of training between two updates of the topology."""

    count: float
    unit: Literal["steps", "epochs", "%"]

    @classmethod
    def read(cls, text: str) -> Interval:
        """Parse "1000" or "1000 steps", "2 epochs", or "5%" of the training.

        Raises `SparsityError` for any other text.
        """
        match = _TEXT.fullmatch(text.strip())
        if match is None or not 0 < float(match[1]) < 2**63:
            raise SparsityError(
                f"every={text[:40]!r} is not an interval: give a number of steps such as 1000, "
                "'2 epochs', or '5%' of the training"
            )
        count, unit = float(match[1]), (match[2] or "steps")
        if unit == "%":
            if count > 100:
                raise SparsityError(f"every={text!r} must be at most 100%")
            return cls(count, "%")
        kind: Literal["steps", "epochs"] = "epochs" if unit.startswith("epoch") else "steps"
        if kind == "steps" and count != int(count):
            raise SparsityError(f"every={text!r} must be a whole number of steps")
        return cls(count, kind)

    def steps(self, total: int, per_epoch: int | None) -> int:
        """Return the interval in steps, at least 1, for a training of `total` steps."""
        if self.unit == "%":
            return max(1, int(total * self.count / 100))
        if self.unit == "steps":
            return int(self.count)
        if per_epoch is None:
            raise SparsityError(
                f"every={self.count:g} epochs needs steps_per_epoch: pass it to attach"
            )
        return max(1, round(self.count * per_epoch))


def annealed(kind: Anneal, start: float, end: float, progress: float) -> float:
    """Return the value between `start` and `end` at `progress`, which is clipped to [0, 1]."""
    progress = min(1.0, max(0.0, progress))
    if kind == "cosine":
        return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
    return start if kind == "constant" else start + (end - start) * progress


def cubic_density(initial: float, final: float, progress: float) -> float:
    """Return the density of gradual magnitude pruning at `progress`, clipped to [0, 1].

    Zhu, Gupta, 2017, equation 1: density falls fast at first.
    """
    progress = min(1.0, max(0.0, progress))
    return final + (initial - final) * (1 - progress) ** 3
