"""A sequence classifier of transformers as a network: token ids and lengths in, logits out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from debiasbench.core.head import last_linear
from debiasbench.core.inputs import LENGTH
from debiasbench.core.modes import evaluating
from debiasbench.core.objective import ParameterGroup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

IDS, TYPES = "input_ids", "token_type_ids"


class NotLinear(ValueError):  # noqa: N818 - what is wrong with a model
    """The logits of a model are not the outputs of a linear layer, or depend on padding."""


class SequenceClassifier(nn.Module):
    """Calls a model of transformers with a mapping, and returns its logits.

    `network`: the model. `head`: the name of its last linear layer. `last`: whether the head reads
    the features of the last token; models such as GPT-2 apply it to all of them. `pad`: the id that
    padding gets. The mask is computed from the lengths, so padding has no effect, whatever it is.
    """

    def __init__(self, network: nn.Module, head: str, *, last: bool, pad: int) -> None:
        super().__init__()
        self.network = network
        self._head, self._last, self._pad = head, last, pad

    def forward(self, x: Mapping[str, Tensor]) -> Tensor:
        """Return logits (B, C) for the tensors of the tokenizer."""
        network: Any = self.network
        length = x[LENGTH].long()
        used = torch.arange(x[IDS].shape[1], device=length.device) < length[:, None]  # (B, L)
        # positions of some models are computed from the ids
        inputs = {IDS: x[IDS].long().masked_fill(~used, self._pad), "attention_mask": used.long()}
        if TYPES in x:
            inputs[TYPES] = x[TYPES].long()
        if not self._last:
            logits: Tensor = network(**inputs).logits
            return logits
        hidden = network.base_model(**inputs)[0]  # (B, L, D)
        features = hidden[torch.arange(len(hidden), device=hidden.device), length - 1]
        of_last: Tensor = network.get_submodule(self._head)(features)
        return of_last

    def parameter_groups(self) -> Sequence[ParameterGroup]:
        """Return biases and the weights of normalisation layers, which have no weight decay."""
        return [ParameterGroup([p for p in self.parameters() if p.dim() < 2], weight_decay=0.0)]


@torch.no_grad()
def classifier(network: nn.Module, *, longest: int) -> SequenceClassifier:
    """Return a model of transformers as a network, after finding its head on a short sequence.

    `longest`: tokens of the longest sequence. Raises `NotLinear` if the logits are not the outputs
    of a linear layer or depend on padding, and what the model raises for `longest` tokens.
    """
    config: Any = network.config
    text: Any = config.get_text_config()
    text.use_cache = False  # what generation would need
    special = _special(text)
    pad = special[0] if special else 0
    _use_linear(network)
    name = next((n for n, m in network.named_modules() if m is last_linear(network)), "")
    if not name:
        raise NotLinear("it has no linear layer")
    head = network.get_submodule(name)

    plain = [i for i in range(min(64, text.vocab_size)) if i not in special] or [0]
    ids = torch.tensor([(plain * 8)[: min(8, longest)]])
    if text.eos_token_id in special:
        ids[0, -1] = text.eos_token_id  # without it, BART refuses a sequence
    outputs: list[Tensor] = []
    handle = head.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    model: Any = network
    with evaluating(network):
        try:
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        finally:
            handle.remove()
        last = len(outputs) == 1 and outputs[0].dim() == 3
        made = SequenceClassifier(network, name, last=last, pad=pad)
        length = torch.tensor([ids.shape[1]], dtype=torch.int32)
        own = made({IDS: ids, LENGTH: length})
        matches = len(outputs) == 1 and (last or outputs[0].shape == logits.shape)
        if not matches or not _close(own if last else outputs[0], logits):
            raise NotLinear(f"its logits are not the outputs of its last linear layer, {name}")
        padded = torch.zeros(1, longest, dtype=torch.int64)
        padded[0, : ids.shape[1]] = ids[0]
        if not _close(made({IDS: padded, LENGTH: length}), logits):
            raise NotLinear("its logits depend on the padding at the end of a sequence")
    return made


def tokens(
    config: Any, shapes: Mapping[str, tuple[int, ...]], samples: int, rng: torch.Generator
) -> dict[str, Tensor]:
    """Return random tokens (B, L) of random lengths, one of them L, as a tokenizer does."""
    text = config.get_text_config()
    special = _special(text)
    plain = torch.tensor([i for i in range(text.vocab_size) if i not in special] or [0])
    longest = shapes[IDS][0]
    ids = plain[torch.randint(len(plain), (samples, longest), generator=rng)].int()
    length = torch.randint(min(8, longest), longest + 1, (samples,), generator=rng).int()
    length[0] = longest
    if text.eos_token_id in special:
        ids[torch.arange(samples), length.long() - 1] = text.eos_token_id
    made = {IDS: ids, LENGTH: length}
    if TYPES in shapes:
        made[TYPES] = (torch.arange(longest) >= longest // 2).int().expand(samples, -1).clone()
    return {name: made[name] for name in shapes}


def _special(text: Any) -> list[int]:
    """Return the ids of padding, the end and the beginning that a configuration names."""
    found = [text.pad_token_id, text.eos_token_id, text.bos_token_id]
    return [i for i in found if isinstance(i, int) and i < text.vocab_size]


def _use_linear(network: nn.Module) -> None:
    """Replace the `Conv1D` of transformers, as in GPT-2, by the linear layers that they are.

    They can be sparse like all others then.
    """
    from transformers.pytorch_utils import Conv1D

    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not Conv1D:
                continue
            layer: Any = child
            inputs, outputs = layer.weight.shape
            linear: Any = nn.Linear(inputs, outputs, device="meta")
            linear.weight = nn.Parameter(layer.weight.detach().T.contiguous())
            linear.bias = layer.bias
            setattr(parent, name, linear)


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() <= 1e-3 * b.abs().max() + 1e-5)
