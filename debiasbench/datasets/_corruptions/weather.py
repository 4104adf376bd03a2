"""Weather corruptions: snow, frost and fog."""

from __future__ import annotations

import numpy as np

from debiasbench.datasets._corruptions.arrays import SIZE, Array
from debiasbench.datasets._corruptions.draws import Draws
from debiasbench.datasets._corruptions.layers import half_gaussian, motion_blur, smooth, zoom_in

# by severity: mean, standard deviation and zoom of the noise, its threshold, radius and sigma of
# the streaks, weight of the image
SNOW = (
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)


def snow(x: Array, severity: int, draws: Draws) -> Array:
    """Whiten the image, then add streaks at 45 to 135 degrees and the same streaks rotated by 180.

    The direction of the streaks is drawn once per image.
    """
    mean, deviation, zoom, threshold, radius, sigma, keep = SNOW[severity - 1]
    flakes = zoom_in(mean + deviation * draws.normal(SIZE, SIZE), zoom)  # (B, H, W)
    flakes = np.where(flakes < threshold, 0, flakes.clip(0, 1))
    streaks = motion_blur(flakes, int(radius), sigma, draws.uniform(-135, -45))  # (B, H, W)
    layer = streaks + streaks[:, ::-1, ::-1]  # (B, H, W)
    white = np.maximum(x, _grey(x) * 1.5 + 0.5)  # (B, 3, H, W)
    snowy: Array = keep * x + (1 - keep) * white + layer[:, None]
    return snowy


def _grey(x: Array) -> Array:
    """(B, 3, H, W) -> (B, 1, H, W) luma of ITU-R BT.601."""
    luma: Array = 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]
    return luma


# by severity: weights of image and frost
FROST = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))

# mean colour, standard deviation of the patches per channel and of the grain (0 to 255), skewness
FROSTS = np.array(
    [
        (78, 149, 166, 24, 8, 6, 11, 0.4),  # thin, on a bluish pane
        (201, 205, 214, 8, 8, 9, 17, -0.4),  # thick and white, with gaps
        (201, 205, 214, 8, 8, 9, 17, -0.4),  # twice, as among the photographs
        (138, 153, 165, 10, 10, 10, 26, 0.5),  # grey, with bright spots
        (112, 123, 135, 18, 18, 18, 31, 0.5),  # dark, with needles
    ],
    dtype=np.float32,
)


def frost(x: Array, severity: int, draws: Draws) -> Array:
    """Blend the image with frost.

    The published textures are crops of five photographs of unknown licence. They are replaced by
    noise with the same mean colours, broad patches and streaky, skewed grain of the same contrast.
    """
    image_weight, frost_weight = FROST[severity - 1]
    frosted: Array = image_weight * x + frost_weight * frost_texture(draws)
    return frosted


def frost_texture(draws: Draws) -> Array:
    """Make (B, 3, H, W) frost in [0, 1]."""
    kind = FROSTS[draws.choice(len(FROSTS))][:, :, None, None]  # (B, 8, 1, 1)
    colour, patchy, contrast, skew = kind[:, :3], kind[:, 3:6], kind[:, 6], kind[:, 7]
    patches = smooth(draws.normal(SIZE, SIZE), 6, mode="wrap")  # (B, H, W)
    patches *= 2 * np.pi**0.5 * 6  # restores the standard deviation that smoothing reduced
    needles = motion_blur(draws.normal(SIZE, SIZE), 1, 0.8, draws.uniform(0, 360))
    needles /= np.linalg.norm(half_gaussian(1, 0.8))
    # a standardised log-normal grain: its skewness makes bright spots or gaps stand out
    grain = (np.exp(skew * needles) - np.exp(skew**2 / 2)) / (
        skew * np.sqrt(np.expm1(skew**2) / skew**2) * np.exp(skew**2 / 2)
    )  # (B, H, W)
    texture = colour + patchy * patches[:, None] + (contrast * grain)[:, None]  # (B, 3, H, W)
    scaled: Array = (texture / 255).clip(0, 1)
    return scaled


# by severity: thickness, and the decay of the fractal's amplitude
FOG = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))


def fog(x: Array, severity: int, draws: Draws) -> Array:
    """Add a plasma fractal, and scale so that the maximum of each image stays an upper bound."""
    thickness, decay = FOG[severity - 1]
    maximum = x.max(axis=(1, 2, 3), keepdims=True)  # (B, 1, 1, 1)
    fractal = plasma(draws.uniform(-1, 1, SIZE, SIZE), decay)  # (B, H, W)
    foggy: Array = (x + thickness * fractal[:, None]) * maximum / (maximum + thickness)
    return foggy


def plasma(noise: Array, decay: float) -> Array:
    """Turn (B, 32, 32) noise in [-1, 1) into a fractal in [0, 1], by diamond-square on a torus.

    Each step sets the centres of squares, then of edges, to the mean of four neighbours plus
    noise; it then halves the distance and divides the amplitude by `decay` squared.
    """
    height = np.zeros_like(noise)
    step, amplitude = SIZE, 1.0
    while step > 1:
        half = step // 2
        # two passes: the neighbours in the second are corners and the centres of the first
        for parity in ("square", "edge"):
            for top, left in [(half, half)] if parity == "square" else [(0, half), (half, 0)]:
                points = (slice(None), slice(top, None, step), slice(left, None, step))
                height[points] = (
                    _neighbours(height, half, parity)[points] + amplitude * noise[points]
                )
        step, amplitude = half, amplitude / decay**2
    height -= height.min(axis=(1, 2), keepdims=True)
    fractal: Array = height / height.max(axis=(1, 2), keepdims=True)
    return fractal


def _neighbours(height: Array, distance: int, parity: str) -> Array:
    """Average the four points at a distance in pixels, diagonally (square) or straight (edge)."""
    if parity == "square":
        shifts = [
            (distance, distance),
            (distance, -distance),
            (-distance, distance),
            (-distance, -distance),
        ]
    else:
        shifts = [(distance, 0), (-distance, 0), (0, distance), (0, -distance)]
    total = sum(np.roll(height, shift, axis=(1, 2)) for shift in shifts)
    mean: Array = np.asarray(total) / 4
    return mean
