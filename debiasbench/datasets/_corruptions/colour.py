"""Colour corruptions: brightness, contrast and saturation."""

from __future__ import annotations

import numpy as np

from debiasbench.datasets._corruptions.arrays import Array
from debiasbench.datasets._corruptions.draws import Draws

BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)  # by severity, added to V


def brightness(x: Array, severity: int, draws: Draws) -> Array:
    """Raise V of HSV, to 1 at most: with H and S constant, all channels scale equally."""
    value = x.max(axis=1, keepdims=True)  # (B, 1, H, W)
    raised = np.minimum(value + BRIGHTNESS[severity - 1], 1)
    black = value == 0
    bright: Array = np.where(black, raised, x * raised / np.where(black, 1, value))
    return bright


CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # by severity, factor


def contrast(x: Array, severity: int, draws: Draws) -> Array:
    """Scale the difference from the mean of each channel."""
    mean = x.mean(axis=(2, 3), keepdims=True)  # (B, 3, 1, 1)
    pale: Array = mean + CONTRAST[severity - 1] * (x - mean)
    return pale


# by severity: factor and shift of S; the first two reduce it
SATURATE = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))


def saturate(x: Array, severity: int, draws: Draws) -> Array:
    """Scale and shift S of HSV, clipped to [0, 1]. Greys have hue 0: a shift makes them reddish."""
    factor, shift = SATURATE[severity - 1]
    value = x.max(axis=1, keepdims=True)  # (B, 1, H, W)
    spread = value - x.min(axis=1, keepdims=True)
    grey = spread == 0
    wanted = (factor * spread / np.where(value > 0, value, 1) + shift).clip(0, 1)
    red = np.array([0, 1, 1], dtype=np.float32)[:, None, None]
    below = np.where(grey, red, (value - x) / np.where(grey, 1, spread))  # (B, 3, H, W)
    saturated: Array = value * (1 - wanted * below)
    return saturated
