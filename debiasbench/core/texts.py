"""`Texts`: samples that are texts, or pairs of texts, until a model's tokenizer reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from debiasbench.common.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor


class Texts:
    """N samples of T texts each, such as one sentence, or a premise and a hypothesis.

    `utf8`: (bytes,) uint8, all texts one after the other. `ends`: (N, T) int64, where each text
    ends in it. They are tensors, so that a task of texts is cached like any other.
    """

    def __init__(self, utf8: Tensor, ends: Tensor) -> None:
        self.utf8, self.ends = utf8, ends

    @classmethod
    def of(cls, samples: Iterable[Sequence[str]]) -> Texts:
        """Pack samples, each a sequence of equally many texts.

        Raises `DataError` for no samples, for an empty text, and for another number of texts.
        """
        import numpy as np
        import torch

        parts: list[bytes] = []
        ends: list[int] = []
        number, at, width = 0, 0, 0
        for number, sample in enumerate(samples, 1):
            width = width or len(sample)
            if len(sample) != width or isinstance(sample, str):
                raise DataError(f"Sample {number - 1} has {len(sample)} texts, others have {width}")
            for text in sample:
                encoded = text.encode("utf-8", "surrogatepass")
                if not encoded.strip():
                    raise DataError(f"Sample {number - 1} has an empty text")
                at += len(encoded)
                parts.append(encoded)
                ends.append(at)
        if not number:
            raise DataError("There are no texts")
        joined = np.frombuffer(b"".join(parts), dtype=np.uint8).copy()
        return cls(torch.from_numpy(joined), torch.tensor(ends).view(number, width))

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def number(self) -> int:
        """T: texts of a sample."""
        return self.ends.shape[1]

    def __getitem__(self, sample: int) -> tuple[str, ...]:
        """Return the texts of a sample."""
        (texts,) = self.between(sample, sample + 1)
        return texts

    def part(self, first: int, last: int) -> Texts:
        """Return the samples from `first` up to, and without, `last`; their bytes are shared."""
        begin = int(self.ends[first - 1, -1]) if first else 0
        end = int(self.ends[last - 1, -1]) if last else 0
        return Texts(self.utf8[begin:end], self.ends[first:last] - begin)

    def between(self, first: int, last: int) -> Iterator[tuple[str, ...]]:
        """Yield the texts of the samples from `first` up to, and without, `last`."""
        if not 0 <= first < last <= len(self):
            raise IndexError(f"samples {first} to {last} of {len(self)}")
        flat = self.ends.view(-1)
        before = first * self.number
        begin = int(flat[before - 1]) if before else 0
        ends = (flat[before : last * self.number] - begin).tolist()
        content = self.utf8[begin : begin + ends[-1]].numpy().tobytes()
        starts = [0, *ends[:-1]]
        texts = [
            content[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True)
        ]
        for at in range(0, len(texts), self.number):
            yield tuple(texts[at : at + self.number])

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        for first in range(0, len(self), 1024):
            yield from self.between(first, min(first + 1024, len(self)))
