"""Snow, frost and fog, and the layers that they are made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from debiasbench.datasets._corruptions import layers, weather
from tests.datasets.corruptions.images import changed, draws, flat, pictures


@pytest.mark.parametrize(("severity", "c"), [(1, 0.2), (3, 0.75), (5, 1.5)])
def test_fog_on_a_flat_image_has_the_range_of_its_thickness(severity: int, c: float) -> None:
    v = 200 / 255
    result = changed("fog", flat(200), severity)
    assert (result.amax((1, 2, 3)) == 200).all()
    assert (result.amin((1, 2, 3)) == round(255 * v * v / (v + c))).all()
    assert torch.equal(result[:, 0], result[:, 2])  # fog is grey


def test_fog_lightens_dark_pixels_up_to_the_maximum() -> None:
    x = flat(30)
    x[:, :, 0, 0] = 255
    result = changed("fog", x, 5)
    assert result[:, :, 1:, 1:].mean() > 80
    assert result.max() <= 255


@pytest.mark.parametrize("decay", [1.75, 3.0])
def test_the_plasma_is_diamond_square_on_a_torus(decay: float) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32)).astype(np.float32)
    for image, fractal in zip(noise, weather.plasma(noise, decay), strict=True):
        height = {(0, 0): 0.0}
        step, amplitude = 32, 1.0
        while step > 1:
            h = step // 2
            grid = [(y, x) for y in range(0, 32, step) for x in range(0, 32, step)]
            for y, x in grid:
                near = [(y, x), (y + step, x), (y, x + step), (y + step, x + step)]
                mean = sum(height[a % 32, b % 32] for a, b in near) / 4
                height[y + h, x + h] = mean + amplitude * image[y + h, x + h]
            middles = dict(height)
            for y, x in [(y + h, x) for y, x in grid] + [(y, x + h) for y, x in grid]:
                near = [(y + h, x), (y - h, x), (y, x + h), (y, x - h)]
                mean = sum(middles[a % 32, b % 32] for a, b in near) / 4
                height[y, x] = mean + amplitude * image[y, x]
            step, amplitude = h, amplitude / decay**2
        wanted = np.array([[height[y, x] for x in range(32)] for y in range(32)])
        wanted = (wanted - wanted.min()) / (wanted.max() - wanted.min())
        np.testing.assert_allclose(fractal, wanted, atol=1e-5)


def test_frost_has_the_published_weights() -> None:
    weights = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)]
    black = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    frost = changed("frost", black, 5) / 0.45  # the texture, (200, 3, 32, 32)
    for severity, (image_weight, frost_weight) in enumerate(weights, 1):
        result = changed("frost", black + 40, severity)
        wanted = (image_weight * 40 + frost_weight * frost).clamp(max=255)
        assert (result - wanted).abs().max() <= 1.01
    ratio = [frost_weight / image_weight for image_weight, frost_weight in weights]
    assert ratio == sorted(ratio)


def test_frost_has_the_colours_of_its_kinds_and_varies() -> None:
    texture = 255 * weather.frost_texture(draws(600))  # (600, 3, 32, 32)
    wanted = weather.FROSTS[:, :3].mean(0)  # (3,)
    assert texture.mean((0, 2, 3)) == pytest.approx(wanted, abs=8)
    within = texture.std((2, 3)).mean()
    assert 12 < within < 40
    # bluish and fine-grained: neighbours differ nearly as much as distant pixels
    assert texture[:, 2].mean() > texture[:, 0].mean()
    assert np.abs(np.diff(texture, axis=3)).mean() > 0.5 * within


def test_snow_lightens_every_pixel() -> None:
    x = pictures(64)
    assert (changed("snow", x, 5) >= x).all()
    black = changed("snow", flat(0), 5)
    assert black.min() >= round(255 * 0.2 * 0.5)
    assert black.std((1, 2, 3)).min() > 2  # streaks
    torch.testing.assert_close(black, black.rot90(2, (2, 3)), atol=1, rtol=0)


def test_motion_blur_spreads_a_point_in_its_direction() -> None:
    point = np.zeros((1, 32, 32), dtype=np.float32)
    point[0, 10, 16] = 1
    trail = layers.motion_blur(point, 3, 2, np.array([-90], dtype=np.float32))[0]
    weights = np.exp(-0.5 * (np.arange(7) / 2) ** 2)
    assert trail[10:17, 16] == pytest.approx(weights / weights.sum(), abs=1e-6)
    assert trail.sum() == pytest.approx(1)


def test_motion_blur_keeps_a_uniform_layer() -> None:
    even = np.full((5, 32, 32), 0.3, dtype=np.float32)
    angles = np.linspace(-135, -45, 5).astype(np.float32)
    assert layers.motion_blur(even, 14, 12, angles) == pytest.approx(even, abs=1e-6)


@pytest.mark.parametrize("zoom", [1, 1.25, 1.75, 2.25])
def test_the_zoom_equals_that_of_scipy(zoom: float) -> None:
    layer = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    crop = int(np.ceil(32 / zoom))
    first = (32 - crop) // 2
    large = ndimage.zoom(layer[first : first + crop, first : first + crop], zoom, order=1)
    trim = (len(large) - 32) // 2
    wanted = large[trim : trim + 32, trim : trim + 32]
    np.testing.assert_allclose(layers.zoom_in(layer[None], zoom)[0], wanted, atol=1e-5)
