"""`FeaturesOf`: logits and features of a network in one forward pass, for use in a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from debiasbench.common.errors import OptionError
from debiasbench.core.head import NoHead, recorded

if TYPE_CHECKING:
    from torch import Tensor, nn

    from debiasbench.core.head import Head
    from debiasbench.core.inputs import Inputs
    from debiasbench.core.model import Model


@dataclass(frozen=True)
class FeaturesOf:
    """Computes logits and features of networks of a model, with gradients; a loss may keep it."""

    model: Model

    def __call__(self, network: nn.Module, x: Inputs) -> tuple[Tensor, Tensor]:
        """Return the logits (B, C) for inputs, and the features (B, D), in one forward pass.

        `network`: one of the model, also after `lab.replace_head`. The features are the inputs of
        its last linear layer; without a head, both results are the features.
        """
        with recorded(find_head(self.model, network)) as features:
            logits: Tensor = network(x)
        if len(features) != 1:
            raise OptionError(
                f"The head of {type(network).__name__} was used {len(features)} times in a forward "
                "pass, must be once. Use another --model"
            )
        return logits, features[0]


def find_head(model: Model, network: nn.Module) -> Head | NoHead:
    """Return the head of a network, or what stands in its place.

    A network of several encoders without heads has a head of its own, its last linear layer.
    """
    removed = [module for module in network.modules() if isinstance(module, NoHead)]
    return removed[0] if len(removed) == 1 else model.head(network)
