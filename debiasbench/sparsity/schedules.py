"""When the topology changes, how much of it, and how density falls: functions of the step."""

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
    """So much training between two updates of the topology."""

    count: float
    unit: Literal["steps", "epochs", "%"]

    @classmethod
    def read(cls, text: str) -> Interval:
        """Read "1000" or "1000 steps", "2 epochs", or "5%" of the training.

        Raises `SparsityError`.
        """
        found = _TEXT.fullmatch(text.strip())
        if found is None or float(found[1]) == 0:
            raise SparsityError(
                f"every={text!r}: write a number of steps such as 1000, '2 epochs', or '5%' of "
                "the training"
            )
        count, unit = float(found[1]), (found[2] or "steps")
        if unit == "%":
            if count > 100:
                raise SparsityError(f"every={text!r}: at most 100%")
            return cls(count, "%")
        kind: Literal["steps", "epochs"] = "epochs" if unit.startswith("epoch") else "steps"
        if kind == "steps" and count != int(count):
            raise SparsityError(f"every={text!r}: steps are whole")
        return cls(count, kind)

    def steps(self, total: int, per_epoch: int | None) -> int:
        """Return the interval in steps, at least 1, of a training of `total` steps."""
        if self.unit == "%":
            return max(1, int(total * self.count / 100))
        if self.unit == "steps":
            return int(self.count)
        if per_epoch is None:
            raise SparsityError(
                f"every={self.count:g} epochs: say steps_per_epoch when attaching, or give steps"
            )
        return max(1, round(self.count * per_epoch))


def annealed(kind: Anneal, start: float, end: float, progress: float) -> float:
    """Go from `start` to `end` while `progress` goes from 0 to 1; stay there."""
    progress = min(1.0, max(0.0, progress))
    if kind == "cosine":
        return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
    return start if kind == "constant" else start + (end - start) * progress


def cubic_density(initial: float, final: float, progress: float) -> float:
    """Density of gradual magnitude pruning: fast at first (Zhu, Gupta, 2017, equation 1)."""
    progress = min(1.0, max(0.0, progress))
    return final + (initial - final) * (1 - progress) ** 3
