"""The ten corruptions of biased CIFAR10-C for images of 32x32, written from their definitions.

Definitions and parameters: Hendrycks & Dietterich, ICLR 2019, in their sizes for CIFAR-10. Unlike
the published generator this one rounds where that cuts off fractions of a grey level, works on
batches, and needs neither OpenCV nor ImageMagick. Only `_frost` replaces what cannot be defined.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Array: TypeAlias = npt.NDArray[np.floating[Any]]

SIZE = 32
CHUNK = 512  # images at a time: their floats and intermediate layers take some 50 MB


def corrupt(name: str, x: Tensor, severity: int, index: Tensor, seed: int = 0) -> Tensor:
    """Corrupt (N, 3, 32, 32) uint8 images; `severity` from 1 to 5, `name` one of `NAMES`.

    `index`: (N,) int64 numbers >= 0 of the images in their source. An image's bytes depend on
    its pixels, its number and the other arguments, never on the images beside it. Severities
    share their random numbers.

    Snow, fog, brightness, contrast, jpeg and pixelate take an image farther from the clean one
    with every severity. As published, the others mean different things: frost outweighs the image
    more; spatter covers more, first as water (1 to 3), then as mud (4, 5); elastic bends less as a
    whole and more from pixel to pixel; saturate takes colour away (1, 2), then adds it (3 to 5).
    """
    change = _CORRUPTIONS[name]
    out = torch.empty_like(x)
    for start in range(0, len(x), CHUNK):
        part = slice(start, start + CHUNK)
        clean = x[part].numpy().astype(np.float32) / 255  # (B, 3, H, W)
        draws = Draws.of(seed, name, index[part])
        out[part] = torch.from_numpy(_to_bytes(change(clean, severity, draws)))
    return out


@dataclass(frozen=True)
class Draws:
    """Random numbers of B images, each image's from a generator of its own."""

    generators: tuple[np.random.Generator, ...]

    @classmethod
    def of(cls, seed: int, name: str, index: Tensor) -> Draws:
        """Key a generator by seed, corruption and number for each of (B,) images."""
        digest = blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
        key = int.from_bytes(digest, "big")
        return cls(
            tuple(
                np.random.Generator(np.random.Philox(key=np.array([key, i], dtype=np.uint64)))
                for i in index.tolist()
            )
        )

    def normal(self, *shape: int) -> Array:
        """Draw (B, *shape) from the standard normal distribution."""
        return np.stack([g.standard_normal(shape, dtype=np.float32) for g in self.generators])

    def uniform(self, low: float, high: float, *shape: int) -> Array:
        """Draw (B, *shape) from [low, high)."""
        unit = np.stack([g.random(shape, dtype=np.float32) for g in self.generators])
        drawn: Array = unit * np.float32(high - low) + np.float32(low)
        return drawn

    def choice(self, count: int) -> npt.NDArray[np.int64]:
        """Draw (B,) integers from 0 to count - 1."""
        return np.array([g.integers(count) for g in self.generators])


# mean, deviation and zoom of the noise, its threshold, radius and sigma of the streaks, share kept
SNOW = (
    (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
    (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
    (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)


def _snow(x: Array, severity: int, draws: Draws) -> Array:
    """Whiten the image and lay streaks over it that fall at 45 to 135 degrees, and their mirror."""
    mean, deviation, zoom, threshold, radius, sigma, keep = SNOW[severity - 1]
    flakes = _zoomed(mean + deviation * draws.normal(SIZE, SIZE), zoom)  # (B, H, W)
    flakes = np.where(flakes < threshold, 0, flakes.clip(0, 1))
    streaks = _motion_blur(flakes, int(radius), sigma, draws.uniform(-135, -45))  # (B, H, W)
    layer = streaks + streaks[:, ::-1, ::-1]  # (B, H, W)
    white = np.maximum(x, _grey(x) * 1.5 + 0.5)  # (B, 3, H, W)
    snowy: Array = keep * x + (1 - keep) * white + layer[:, None]
    return snowy


# weights of image and frost
FROST = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))

# mean colour, deviation of patches per channel, deviation of crystals (0 to 255), their skew
FROSTS = np.array(
    [
        (78, 149, 166, 24, 8, 6, 11, 0.4),  # thin, on a bluish pane
        (201, 205, 214, 8, 8, 9, 17, -0.4),  # thick and white, with gaps
        (201, 205, 214, 8, 8, 9, 17, -0.4),  # twice, as among the photographs
        (138, 153, 165, 10, 10, 10, 26, 0.5),  # grey, with glints
        (112, 123, 135, 18, 18, 18, 31, 0.5),  # dark, with needles
    ],
    dtype=np.float32,
)


def _frost(x: Array, severity: int, draws: Draws) -> Array:
    """Blend the image with frost.

    The published textures are crops of five photographs of unknown licence. Here they are
    noise with their mean colours, broad patches and streaky, skewed grain of their contrast.
    """
    of_image, of_frost = FROST[severity - 1]
    frosted: Array = of_image * x + of_frost * _frost_texture(draws)
    return frosted


def _frost_texture(draws: Draws) -> Array:
    """Make (B, 3, H, W) frost in [0, 1]."""
    kind = FROSTS[draws.choice(len(FROSTS))][:, :, None, None]  # (B, 8, 1, 1)
    colour, patchy, contrast, skew = kind[:, :3], kind[:, 3:6], kind[:, 6], kind[:, 7]
    patches = _smooth(draws.normal(SIZE, SIZE), 6, mode="wrap")  # (B, H, W)
    patches *= 2 * np.pi**0.5 * 6  # what smoothing took from the deviation
    needles = _motion_blur(draws.normal(SIZE, SIZE), 1, 0.8, draws.uniform(0, 360))
    needles /= np.linalg.norm(_half_gaussian(1, 0.8))
    # the logarithm of a grain is normal, standardised: a skew lets glints or gaps stand out
    grain = (np.exp(skew * needles) - np.exp(skew**2 / 2)) / (
        skew * np.sqrt(np.expm1(skew**2) / skew**2) * np.exp(skew**2 / 2)
    )  # (B, H, W)
    texture = colour + patchy * patches[:, None] + (contrast * grain)[:, None]  # (B, 3, H, W)
    frost: Array = (texture / 255).clip(0, 1)
    return frost


# thickness, and how fast the fractal's steps decay
FOG = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))


def _fog(x: Array, severity: int, draws: Draws) -> Array:
    """Add a plasma fractal, and scale so that an image's greatest value stays the greatest."""
    thickness, decay = FOG[severity - 1]
    greatest = x.max(axis=(1, 2, 3), keepdims=True)  # (B, 1, 1, 1)
    fractal = _plasma(draws.uniform(-1, 1, SIZE, SIZE), decay)  # (B, H, W)
    foggy: Array = (x + thickness * fractal[:, None]) * greatest / (greatest + thickness)
    return foggy


def _plasma(noise: Array, decay: float) -> Array:
    """Turn (B, 32, 32) noise in [-1, 1) into a fractal from 0 to 1, by diamond-square on a torus.

    Every halving of the step sets the middles of squares, then of edges, to the mean of four
    neighbours plus noise, and divides the noise by `decay` twice.
    """
    height = np.zeros_like(noise)
    step, amplitude = SIZE, 1.0
    while step > 1:
        half = step // 2
        # two passes: the second one's neighbours are the corners and the first one's middles
        for parity in ("square", "edge"):
            for top, left in [(half, half)] if parity == "square" else [(0, half), (half, 0)]:
                here = (slice(None), slice(top, None, step), slice(left, None, step))
                height[here] = _neighbours(height, half, parity)[here] + amplitude * noise[here]
        step, amplitude = half, amplitude / decay**2
    height -= height.min(axis=(1, 2), keepdims=True)
    fractal: Array = height / height.max(axis=(1, 2), keepdims=True)
    return fractal


def _neighbours(height: Array, away: int, parity: str) -> Array:
    """Average four points that lie `away` pixels diagonally (square) or straight (edge)."""
    if parity == "square":
        shifts = [(away, away), (away, -away), (-away, away), (-away, -away)]
    else:
        shifts = [(away, 0), (-away, 0), (0, away), (0, -away)]
    total = sum(np.roll(height, shift, axis=(1, 2)) for shift in shifts)
    mean: Array = np.asarray(total) / 4
    return mean


BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)


def _brightness(x: Array, severity: int, draws: Draws) -> Array:
    """Raise V of HSV, at most to 1: with H and S kept, all channels scale alike."""
    value = x.max(axis=1, keepdims=True)  # (B, 1, H, W)
    raised = np.minimum(value + BRIGHTNESS[severity - 1], 1)
    black = value == 0
    bright: Array = np.where(black, raised, x * raised / np.where(black, 1, value))
    return bright


CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)


def _contrast(x: Array, severity: int, draws: Draws) -> Array:
    """Scale the distance to each channel's mean."""
    mean = x.mean(axis=(2, 3), keepdims=True)  # (B, 3, 1, 1)
    pale: Array = mean + CONTRAST[severity - 1] * (x - mean)
    return pale


# mean, deviation and smoothing of the noise, its threshold, opacity of water or smoothing of mud
SPATTER = (
    (0.62, 0.1, 0.7, 0.7, 0.5),
    (0.65, 0.1, 0.8, 0.7, 0.5),
    (0.65, 0.3, 1, 0.69, 0.5),
    (0.65, 0.1, 0.7, 0.69, 0.6),
    (0.65, 0.1, 0.5, 0.68, 0.6),
)
MUDDY = 4  # the first severity with mud in place of water
WATER = np.array([175, 238, 238], dtype=np.float32) / 255
MUD = np.array([63, 42, 20], dtype=np.float32) / 255


def _spatter(x: Array, severity: int, draws: Draws) -> Array:
    """Splash water over the image (severities 1 to 3), or mud (4 and 5)."""
    mean, deviation, smoothing, threshold, amount = SPATTER[severity - 1]
    liquid = _smooth(mean + deviation * draws.normal(SIZE, SIZE), smoothing)  # (B, H, W)
    liquid = np.where(liquid < threshold, 0, liquid)
    if severity < MUDDY:
        return x + WATER[:, None, None] * (amount * _water(liquid))[:, None]
    cover = _smooth((liquid > 0).astype(np.float32), amount)  # (B, H, W)
    cover = np.where(cover < 0.8, 0, cover)[:, None]  # (B, 1, H, W)
    return x * (1 - cover) + MUD[:, None, None] * cover


def _water(liquid: Array) -> Array:
    """Shade (B, H, W) liquid, zero where it is dry, by its distance to edges: 0 to 1."""
    distance = np.stack([_distance(edge) for edge in _edges(np.floor(255 * liquid))])  # (B, H, W)
    levels = ndimage.uniform_filter(distance, (1, 3, 3), mode="mirror").astype(np.int64)
    relief = ndimage.correlate(_equalised(levels), _RELIEF, mode="mirror").clip(0, 255)
    shade = liquid * ndimage.uniform_filter(relief, (1, 3, 3), mode="mirror")  # (B, H, W)
    most = shade.max(axis=(1, 2), keepdims=True)
    water: Array = shade / np.where(most > 0, most, 1)
    return water


FARTHEST = 20  # pixels; distances to an edge count up to it
WEAK_EDGE, STRONG_EDGE = 50, 150  # grey levels of Sobel's gradient, in the sum norm
_SOBEL = np.array([[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]], dtype=np.float32)
_RELIEF = np.array([[[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]], dtype=np.float32)  # light from a corner


def _edges(grey: Array) -> npt.NDArray[np.bool_]:
    """Find Canny's edges in (B, H, W) grey levels: ridges of the gradient, weak beside strong."""
    across = ndimage.correlate(grey, _SOBEL, mode="nearest")
    down = ndimage.correlate(grey, _SOBEL.transpose(0, 2, 1), mode="nearest")
    steep = abs(across) + abs(down)  # (B, H, W)
    # the neighbour to which the gradient points, to the nearest eighth of a turn
    eighth = np.tan(np.pi / 8)
    column = (abs(across) > eighth * abs(down)).astype(np.int64)
    row = (abs(down) > eighth * abs(across)).astype(np.int64)
    diagonal = (row * column).astype(bool)
    row = np.where(diagonal & (across * down < 0), -row, row)
    padded = np.pad(steep, ((0, 0), (1, 1), (1, 1)))
    image, y, x = np.indices(steep.shape, sparse=True)
    ahead = padded[image, y + 1 + row, x + 1 + column]
    behind = padded[image, y + 1 - row, x + 1 - column]
    # of two equal neighbours one stays, but for diagonals: OpenCV's rule
    ridge = (steep > behind) & np.where(diagonal, steep > ahead, steep >= ahead)
    strong, weak = ridge & (steep > STRONG_EDGE), ridge & (steep > WEAK_EDGE)
    edges: npt.NDArray[np.bool_] = ndimage.binary_propagation(
        strong, structure=np.ones((1, 3, 3)), mask=weak
    )
    return edges


def _distance(edge: npt.NDArray[np.bool_]) -> Array:
    """Give every pixel of one (H, W) image its distance to an edge."""
    if not edge.any():
        return np.full(edge.shape, FARTHEST, dtype=np.float32)
    distance: Array = ndimage.distance_transform_edt(~edge).astype(np.float32)
    return distance.clip(0, FARTHEST)


def _equalised(levels: npt.NDArray[np.int64]) -> Array:
    """Spread each image's (B, H, W) levels over 0 to 255, so that they occur about equally."""
    counts = np.stack([(levels == v).sum(axis=(1, 2)) for v in range(FARTHEST + 1)], axis=1)
    lowest = np.take_along_axis(counts, (counts > 0).argmax(axis=1)[:, None], axis=1)  # (B, 1)
    above = counts.cumsum(axis=1) - lowest  # (B, levels)
    table = np.rint(255 * above / np.maximum(SIZE * SIZE - lowest, 1)).clip(0)
    flat = np.take_along_axis(table, levels.reshape(len(levels), -1), axis=1)
    return flat.reshape(levels.shape).astype(np.float32)


# in pixels: size and smoothing of local displacements, reach of the random affine map
ELASTIC = ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96))
ANCHORS = np.array([(26, 26), (26, 6), (6, 6)], dtype=np.float64)  # (x, y) that fix the affine map


def _elastic(x: Array, severity: int, draws: Draws) -> Array:
    """Map the image affinely, then move every pixel a little on its own; bilinear both times."""
    _, _, reach = ELASTIC[severity - 1]
    column, row = _affine(draws.uniform(-reach, reach, 3, 2))  # (B, H, W) each
    x = _sampled(x, column, row, align_corners=True)
    right, down = _displacements(severity, draws)
    rows, columns = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    return _sampled(x, columns + right, rows + down, align_corners=False)


def _affine(shift: Array) -> tuple[Array, Array]:
    """Say where each target pixel comes from if the anchors move by (B, 3, 2) pixels."""
    moved = np.concatenate([ANCHORS + shift, np.ones((len(shift), 3, 1))], axis=2)  # (B, 3, 3)
    back = np.linalg.solve(moved, np.broadcast_to(ANCHORS, shift.shape))  # (B, 3, 2)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    a, b, c = back.transpose(1, 2, 0)[..., None, None]  # (2, B, 1, 1) each
    column, row = (a * columns + b * rows + c).astype(np.float32)  # (B, H, W) each
    return column, row


def _displacements(severity: int, draws: Draws) -> tuple[Array, Array]:
    """Draw (B, H, W) pixels to the right and down."""
    size, smoothing, _ = ELASTIC[severity - 1]
    noise = [draws.uniform(-1, 1, SIZE, SIZE) for _ in range(2)]
    right, down = (size * _smooth(n, smoothing, mode="reflect", truncate=3) for n in noise)
    return right, down


def _sampled(x: Array, column: Array, row: Array, *, align_corners: bool) -> Array:
    """Read (B, 3, H, W) images at (B, H, W) positions in pixels, mirrored at the border.

    The mirror is the border pixels' middle with `align_corners`, else their outer edge.
    """
    at = np.stack([column, row], axis=-1)  # (B, H, W, 2)
    grid = 2 * at / (SIZE - 1) - 1 if align_corners else (2 * at + 1) / SIZE - 1
    sampled: Array = F.grid_sample(
        torch.from_numpy(x),
        torch.from_numpy(grid),
        padding_mode="reflection",
        align_corners=align_corners,
    ).numpy()
    return sampled


JPEG = (80, 65, 58, 50, 40)  # quality


def _jpeg(x: Array, severity: int, draws: Draws) -> Array:
    """Store the image as Pillow's JPEG and read it again."""

    def stored(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=JPEG[severity - 1])
        return Image.open(file)

    return _by_pillow(x, stored)


PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)  # share of rows and columns that is left


def _pixelate(x: Array, severity: int, draws: Draws) -> Array:
    """Average the image into fewer pixels, and blow these up again."""
    side = int(SIZE * PIXELATE[severity - 1])
    box = Image.Resampling.BOX
    return _by_pillow(x, lambda image: image.resize((side, side), box).resize((SIZE, SIZE), box))


# factor and shift of S; the first two take colour away
SATURATE = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))


def _saturate(x: Array, severity: int, draws: Draws) -> Array:
    """Scale and shift S of HSV, within 0 to 1. Greys have hue 0: a shift makes them reddish."""
    factor, shift = SATURATE[severity - 1]
    value = x.max(axis=1, keepdims=True)  # (B, 1, H, W)
    spread = value - x.min(axis=1, keepdims=True)
    grey = spread == 0
    wanted = (factor * spread / np.where(value > 0, value, 1) + shift).clip(0, 1)
    red = np.array([0, 1, 1], dtype=np.float32)[:, None, None]
    below = np.where(grey, red, (value - x) / np.where(grey, 1, spread))  # (B, 3, H, W)
    saturated: Array = value * (1 - wanted * below)
    return saturated


_CORRUPTIONS: dict[str, Callable[[Array, int, Draws], Array]] = {
    "snow": _snow,
    "frost": _frost,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "spatter": _spatter,
    "elastic": _elastic,
    "jpeg": _jpeg,
    "pixelate": _pixelate,
    "saturate": _saturate,
}

NAMES = tuple(_CORRUPTIONS)
"""Corruption k goes with CIFAR-10's class k, as in LfF (Nam et al., NeurIPS 2020)."""


def _to_bytes(x: Array) -> npt.NDArray[np.uint8]:
    levels: npt.NDArray[np.uint8] = np.rint(255 * x.clip(0, 1)).astype(np.uint8)
    return levels


def _by_pillow(x: Array, change: Callable[[Image.Image], Image.Image]) -> Array:
    """Change images one by one as Pillow's."""
    images = _to_bytes(x).transpose(0, 2, 3, 1)  # (B, H, W, 3)
    changed = np.stack([np.asarray(change(Image.fromarray(image))) for image in images])
    return changed.transpose(0, 3, 1, 2).astype(np.float32) / 255


def _grey(x: Array) -> Array:
    """(B, 3, H, W) -> (B, 1, H, W) luma of ITU-R BT.601."""
    luma: Array = 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]
    return luma


def _smooth(layer: Array, sigma: float, *, mode: str = "nearest", truncate: float = 4) -> Array:
    """Smooth each of (B, H, W) by a Gaussian of `sigma` pixels, cut off at `truncate` sigma."""
    smooth: Array = ndimage.gaussian_filter(layer, (0, sigma, sigma), mode=mode, truncate=truncate)
    return smooth


def _zoomed(layer: Array, zoom: float) -> Array:
    """Magnify the middle of (B, 32, 32) bilinearly; zoom >= 1."""
    crop = int(np.ceil(SIZE / zoom))
    large = round(crop * zoom)
    first, trim = (SIZE - crop) // 2, (large - SIZE) // 2
    at = (np.arange(SIZE) + trim) * ((crop - 1) / (large - 1))  # (32,) pixels of the crop
    low = np.minimum(at.astype(np.int64), crop - 2)
    weight = (at - low).astype(np.float32)
    low += first
    rows = layer[:, low] * (1 - weight)[:, None] + layer[:, low + 1] * weight[:, None]
    zoomed: Array = rows[:, :, low] * (1 - weight) + rows[:, :, low + 1] * weight
    return zoomed


def _motion_blur(layer: Array, radius: int, sigma: float, degrees: Array) -> Array:
    """Trail each of (B, H, W) along its angle, clockwise from the right, as ImageMagick does.

    The trail is half a Gaussian of 2 * radius + 1 pixels; rows and columns go on past the border.
    """
    radians = np.deg2rad(degrees.astype(np.float64))[:, None]  # (B, 1)
    image = np.arange(len(layer))[:, None, None]
    pixel = np.arange(SIZE)
    blurred = np.zeros_like(layer)
    for distance, weight in enumerate(_half_gaussian(radius, sigma)):
        row = np.rint(distance * np.sin(radians)).astype(np.int64) + pixel  # (B, H)
        column = np.rint(distance * np.cos(radians)).astype(np.int64) + pixel  # (B, W)
        row, column = row.clip(0, SIZE - 1), column.clip(0, SIZE - 1)
        blurred += weight * layer[image, row[:, :, None], column[:, None, :]]
    return blurred


def _half_gaussian(radius: int, sigma: float) -> Array:
    """(2 * radius + 1,) weights that sum to 1, falling from the first on."""
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    normalised: Array = (weights / weights.sum()).astype(np.float32)
    return normalised
