"""The tokenizer of a transformers model, in the tokenizers library: fast, and known by its hash."""

from __future__ import annotations

import hashlib
from itertools import chain
from typing import TYPE_CHECKING, Any

from debiasbench.common.errors import DataError
from debiasbench.core.inputs import LENGTH
from debiasbench.models._hf_network import IDS, TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


class FastTokenizer:
    """Cuts texts into tokens, at most `max_length` with the special ones.

    A sample of one text or a pair is possible. The longer text of a pair is shortened first.
    `fast`: a `tokenizers.Tokenizer`, which is copied. `types`: whether the network reads which text
    of a pair a token is of.
    """

    def __init__(self, fast: Any, *, max_length: int, types: bool) -> None:
        self._fast = type(fast).from_str(fast.to_str())
        self._fast.no_padding()  # batches are padded on the device
        self._fast.enable_truncation(max_length, strategy="longest_first", direction="right")
        self._types = types
        digest = hashlib.sha256(self._fast.to_str().encode()).hexdigest()
        # the serialisation has everything: vocabulary, rules, special tokens, truncation
        self._key = {"tokenizer": digest, "max_length": max_length, "types": types}

    @property
    def key(self) -> Mapping[str, object]:
        """The SHA-256 of the tokenizer with all its rules, and how it is used."""
        return self._key

    def __call__(self, samples: Sequence[tuple[str, ...]]) -> dict[str, Tensor]:
        """Return "input_ids" (B, L) and "length" (B,); for pairs, maybe "token_type_ids" (B, L)."""
        if len(samples[0]) > 2:
            raise DataError(f"A tokenizer reads one text or two, not {len(samples[0])}")
        pairs = len(samples[0]) == 2
        texts = [tuple(map(_valid, sample)) for sample in samples]
        try:
            found = self._fast.encode_batch_fast(texts if pairs else [text for (text,) in texts])
        except Exception as error:  # the library raises no more specific one
            reason = str(error).partition("\n")[0]
            raise DataError(f"The tokenizer cannot read the texts: {reason}") from error
        lengths = [len(one) for one in found]
        made = {IDS: _padded([one.ids for one in found], lengths)}
        if self._types and pairs:
            made[TYPES] = _padded([one.type_ids for one in found], lengths)
        return {**made, LENGTH: _tensor(lengths)}


def _padded(rows: list[list[int]], lengths: list[int]) -> Tensor:
    """Return rows of different lengths as one tensor (B, L) int32, with 0 at their ends."""
    import numpy as np
    import torch

    total, longest = sum(lengths), max(lengths)
    padded = np.zeros((len(rows), longest), dtype=np.int32)
    used = np.arange(longest) < np.asarray(lengths)[:, None]
    padded[used] = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=total)
    return torch.from_numpy(padded)


def _tensor(lengths: list[int]) -> Tensor:
    import torch

    return torch.tensor(lengths, dtype=torch.int32)


def _valid(text: str) -> str:
    """Replace halves of surrogate pairs, which are no characters."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
