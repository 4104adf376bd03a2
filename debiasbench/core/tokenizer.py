"""`Tokenizer`: what a model reads texts with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


class Tokenizer(Protocol):
    """Turns texts into the tensors that a network reads; `Model.tokenizer` returns one."""

    @property
    def key(self) -> Mapping[str, object]:
        """Everything that decides the result, as plain data, such as the SHA-256 of its files.

        Texts are tokenised once for each key, and kept on disk.
        """

    def __call__(self, samples: Sequence[tuple[str, ...]]) -> Mapping[str, Tensor]:
        """Return tensors by name for B samples of one text or several, each (B, L) or (B,).

        One of them is named "length": (B,) int32, the number of tokens of each sample. Token ids
        are int32. L is the longest length of these samples, or more.

        Raises `DataError` for texts that cannot be read.
        """
