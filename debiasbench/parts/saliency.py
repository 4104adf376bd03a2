"""Saliency: which pixels of an image a network's prediction rests on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

EPS = 1e-7


def saliency(network: nn.Module, x: Tensor) -> Tensor:
    """Return (B, H, W) heat in [0, 1] of the predicted class, by XGradCAM.

    `x`: (B, K, H, W) prepared images; gradients must be enabled. The target layer is the last one
    with spatial activations (`last_spatial`). A network without such a layer, such as an mlp, gets
    the heat of its input: gradient times value, summed over channels.
    """
    x = x.detach().requires_grad_()
    with last_spatial(network, x.shape[2:]) as found:
        logits: Tensor = network(x)
    target = found[-1] if found else x
    top = logits.gather(1, logits.argmax(1, keepdim=True)).sum()
    (gradients,) = torch.autograd.grad(top, target)
    activations, gradients = target.detach().float(), gradients.float()
    heat = xgradcam(activations, gradients) if found else (activations * gradients).sum(1).relu()
    resized = F.interpolate(scaled(heat)[:, None], x.shape[2:], mode="bilinear")[:, 0]
    return scaled(resized)


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return (B, h, w) heat, not negative: channels are weighted by their share of the logit.

    `activations`, `gradients`: (B, K, h, w), of a layer and of a logit with respect to it.

    Fu et al. Axiom-based Grad-CAM. BMVC 2020.
    """
    weight = (gradients * activations).sum((2, 3)) / (activations.sum((2, 3)) + EPS)  # (B, K)
    return (weight[:, :, None, None] * activations).sum(1).relu()


def scaled(heat: Tensor) -> Tensor:
    """Return (B, H, W) heat with the smallest value of each image 0 and the largest 1.

    The heat of an image without any difference becomes 0.
    """
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    return (heat - low) / (high - low + EPS)


def unsalient(heat: Tensor, deviations: float = 2.0) -> Tensor:
    """Return (B, H, W) bool: the pixels that are not salient.

    A pixel is salient if its heat is larger than the mean plus `deviations` standard deviations
    (of the population) of the positive heat of its image. `heat`: (B, H, W), not negative.
    """
    flat = heat.flatten(1)
    positive = (flat > 0).to(flat.dtype)
    count = positive.sum(1).clamp(min=1)  # (B,)
    mean = flat.sum(1) / count
    variance = (positive * (flat - mean[:, None]) ** 2).sum(1) / count
    return heat <= (mean + deviations * variance.sqrt())[:, None, None]


@contextmanager
def last_spatial(network: nn.Module, size: tuple[int, ...]) -> Iterator[list[Tensor]]:
    """Yield a list that, after a forward pass, has the activations of the last spatial layer.

    It stays empty without one. Activations (B, K, h, w) are spatial if they have several positions,
    and the height and width of the image, `size`, in the same proportion. Pooling layers are not
    counted, nor containers that end with one, so that the finer activations before the last pooling
    are found.
    """
    found: list[Tensor] = []
    pooled: list[object] = [None]
    height, width = size

    def record(module: nn.Module, _args: object, output: object) -> None:
        if "Pool" in type(module).__name__:
            pooled[:] = [output]
        if not isinstance(output, Tensor) or output.dim() != 4 or output is pooled[0]:
            return
        h, w = output.shape[2:]
        # the proportion leaves out activations (B, h, w, K), as of Swin
        if h * w > 1 and abs(h * width - w * height) <= max(height, width):
            found[:] = [output]

    handles = [module.register_forward_hook(record) for module in network.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
