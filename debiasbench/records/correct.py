"""Which test samples a run classified correctly, from the predictions beside its record."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from debiasbench.records.beside import prediction_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from debiasbench.records.record import Record


@dataclass(frozen=True, eq=False)
class Correct:
    """The N test samples of a run: their groups, and whether each was classified correctly.

    `group`: (N,) group = y * B + bias, the same object for all runs on the same samples. `bits`:
    eight samples in a byte, so that 100,000 runs fit into memory.
    """

    group: NDArray[np.integer]
    bits: bytes

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) whether each sample was classified correctly."""
        bits = np.unpackbits(np.frombuffer(self.bits, dtype=np.uint8), count=len(self.group))
        return bits.astype(bool)


class Splits:
    """Remembers the groups of test samples, so that runs on the same samples share them."""

    def __init__(self) -> None:
        self._known: dict[bytes, NDArray[np.integer]] = {}

    def correct(self, record: Record, stored: Mapping[str, NDArray[Any]]) -> dict[str, Correct]:
        """Return by selection rule which samples were right; rules that keep an epoch share it.

        `stored`: the content of the predictions file of `record`, which `verify` found to be sound.
        """
        group = self.group(stored["test.group"])
        by_epoch: dict[int | None, Correct] = {}
        for epoch in {outcome.epoch for outcome in record.outcomes.values()}:
            right = stored[f"test.{prediction_key(epoch)}"] == stored["test.y"]
            by_epoch[epoch] = Correct(group, np.packbits(right).tobytes())
        return {rule: by_epoch[outcome.epoch] for rule, outcome in record.outcomes.items()}

    def group(self, group: NDArray[np.integer]) -> NDArray[np.integer]:
        """Return the first array that equals this one."""
        kind = np.uint16 if group.max(initial=0) < 1 << 16 else np.uint32
        small: NDArray[np.integer] = group.astype(kind)
        return self._known.setdefault(hashlib.sha256(small.tobytes()).digest(), small)
