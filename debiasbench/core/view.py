"""`View`: the samples of a split on a device, and the labels that its reader may see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from debiasbench.core.data import Batch
from debiasbench.core.inputs import single

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

    from debiasbench.core.inputs import Inputs
    from debiasbench.core.moment import Moment
    from debiasbench.core.prepare import Prepare


class Samples(Protocol):
    """The samples of a split, returned on a device."""

    @property
    def device(self) -> torch.device:
        """The device that samples are returned on."""

    @property
    def resident(self) -> bool:
        """Whether all samples are in the device's memory; otherwise each batch is copied."""

    def __len__(self) -> int: ...

    def width(self, index: Tensor | slice) -> int:
        """Return the width of the sequences of a batch, whose index is on the host; 0 if none."""

    def take(self, index: Tensor | slice, width: int = 0) -> Inputs:
        """Return stored samples (B, ...) on the device; the caller may change them in place.

        Sequences are cut to `width`, if it is not 0.
        """

    def expect(self, batches: Sequence[Tensor]) -> None:
        """Prepare for batches to be taken in this order."""


@dataclass(frozen=True, eq=False)
class View:
    """A split with only the labels that its reader may see.

    `labels`: name -> (N,), on the device. `split`: the name of the split.
    """

    samples: Samples
    labels: Mapping[str, Tensor]
    prepare: Prepare
    split: str = ""

    def __len__(self) -> int:
        return len(self.samples)

    def inputs(self, index: Tensor | slice) -> Inputs:
        """Return prepared inputs (B, ...) of the samples at `index`, without augmentation."""
        return self.prepare(self.samples.take(index))

    def batch(
        self,
        stored: Inputs,
        index: Tensor,
        extra: Mapping[str, Tensor],
        augment: torch.Generator | None,
        *,
        moment: Moment | None = None,
        beside: Batch | None = None,
    ) -> Batch:
        """Return the training batch of the samples at `index` (B,).

        `stored`: these samples before preparation. `extra`: (N, ...) tensors by name; their rows
        at `index` become attributes of the batch. Pixels that are not in `extra["visible"]`, if it
        exists, are 0 before preparation. `augment`: see `Prepare`. `moment`, `beside`: see `Batch`.
        """
        columns: dict[str, Any] = {
            name: values[index] for name, values in {**self.labels, **extra}.items()
        }
        if "visible" in extra:
            stored = single(stored, "visible") * columns["visible"]
        prepared = self.prepare(stored, augment)
        return Batch(prepared, index=index, moment=moment, beside=beside, **columns)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The validation or test split as it is used for evaluation; methods never get it."""

    view: View  # labels: y, group
    aligned: Sequence[Sequence[bool]]  # (C, B)
    totals: Sequence[int]  # (G,) samples per group of this split
    train_totals: Sequence[int]  # (G,) samples per group of the training split
