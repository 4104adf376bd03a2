"""The corruptions of CIFAR10-C: each does what defines it, and to an image on its own."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from debiasbench.datasets import _corruptions as corruptions
from debiasbench.datasets._corruptions import NAMES, Draws, corrupt

SEVERITIES = range(1, 6)
DRAWN = ("snow", "frost", "fog", "spatter", "elastic")


def pictures(n: int = 24) -> Tensor:
    """(N, 3, 32, 32) smooth shapes with some grain, dark to light."""
    rng = np.random.default_rng(0)
    smooth = ndimage.gaussian_filter(rng.normal(size=(n, 3, 32, 32)), (0, 0.7, 4, 4))
    x = 128 + 500 * smooth + rng.normal(size=(n, 3, 32, 32)) * 8
    return torch.from_numpy(x.clip(0, 255).astype(np.uint8))


def flat(level: int, n: int = 24) -> Tensor:
    return torch.full((n, 3, 32, 32), level, dtype=torch.uint8)


def changed(name: str, x: Tensor, severity: int) -> Tensor:
    return corrupt(name, x, severity, torch.arange(len(x))).float()


def draws(n: int) -> Draws:
    return Draws.of(0, "test", torch.arange(n))


def test_corruptions_stand_in_the_order_of_the_classes_of_cifar10() -> None:
    assert NAMES == (
        "snow", "frost", "fog", "brightness", "contrast",
        "spatter", "elastic", "jpeg", "pixelate", "saturate",
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_its_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, index = pictures(7), torch.tensor([3, 59_999, 0, 12, 5, 40, 41])
    together = corrupt(name, x, 5, index)
    alone = [corrupt(name, x[i : i + 1], 5, index[i : i + 1])[0] for i in range(7)]
    torch.manual_seed(1)  # global generators have no say
    np.random.seed(1)
    assert torch.equal(together, torch.stack(alone))
    assert torch.equal(together, corrupt(name, x.flip(0), 5, index.flip(0)).flip(0))
    monkeypatch.setattr(corruptions, "CHUNK", 3)
    assert torch.equal(together, corrupt(name, x, 5, index))
    assert together.dtype == torch.uint8
    assert together.shape == x.shape


@pytest.mark.parametrize("name", NAMES)
def test_the_given_images_stay_as_they_are(name: str) -> None:
    x = pictures(2)
    before = x.clone()
    assert not torch.equal(changed(name, x, 5), before.float())
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", NAMES)
def test_seed_and_number_matter_to_what_is_drawn_alone(name: str) -> None:
    x = pictures(1).expand(3, -1, -1, -1)
    a, b, again = corrupt(name, x, 5, torch.tensor([0, 1, 0]))
    other = corrupt(name, x[:1], 5, torch.tensor([0]), seed=1)[0]
    assert torch.equal(a, again)
    assert torch.equal(a, b) == torch.equal(a, other) == (name not in DRAWN)


@pytest.mark.parametrize("name", ["snow", "fog", "brightness", "contrast", "jpeg", "pixelate"])
def test_a_higher_severity_is_farther_from_the_clean_image(name: str) -> None:
    x = pictures(96)
    distance = [(changed(name, x, s) - x).abs().mean().item() for s in SEVERITIES]
    assert distance == sorted(distance)
    assert distance[0] > 0.5


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["brightness", "saturate"])
def test_hsv_changes_as_the_definition_says(name: str, severity: int) -> None:
    x = pictures(2)
    x[:, :, 0] = torch.tensor([0, 1, 77, 255]).repeat(8)  # greys, and black among them
    result = changed(name, x, severity)
    plus = {"brightness": (0.05, 0.1, 0.15, 0.2, 0.3)}
    times = {"saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))}
    pixels = [image.permute(0, 2, 3, 1).reshape(-1, 3).tolist() for image in (x, result)]
    for before, after in zip(*pixels, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in before))
        if name == "brightness":
            v = min(v + plus[name][severity - 1], 1)
        else:
            factor, shift = times[name][severity - 1]
            s = min(s * factor + shift, 1)
        wanted = [255 * c for c in colorsys.hsv_to_rgb(h, s, v)]
        assert after == pytest.approx(wanted, abs=0.51)


def test_saturate_takes_colour_away_twice_and_then_adds_it() -> None:
    x = pictures()
    spread = [(c.amax(1) - c.amin(1)).mean() for c in
              (changed("saturate", x, 2), changed("saturate", x, 1), x.float(),
               *(changed("saturate", x, s) for s in (3, 4, 5)))]  # fmt: skip
    assert spread == sorted(spread)


@pytest.mark.parametrize(("severity", "c"), [(1, 0.75), (2, 0.5), (3, 0.4), (4, 0.3), (5, 0.15)])
def test_contrast_keeps_means_and_scales_deviations(severity: int, c: float) -> None:
    x = pictures()
    result = changed("contrast", x, severity)
    # rounding to whole greys moves a mean by up to a half
    torch.testing.assert_close(result.mean((2, 3)), x.float().mean((2, 3)), atol=0.5, rtol=0)
    torch.testing.assert_close(result.std((2, 3)), c * x.float().std((2, 3)), atol=0.2, rtol=0)


@pytest.mark.parametrize(("severity", "quality"), [(1, 80), (2, 65), (3, 58), (4, 50), (5, 40)])
def test_jpeg_is_what_pillow_stores_at_that_quality(severity: int, quality: int) -> None:
    x = pictures(3)
    for clean, result in zip(x, corrupt("jpeg", x, severity, torch.arange(3)), strict=True):
        file = io.BytesIO()
        Image.fromarray(clean.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        assert np.array_equal(np.asarray(Image.open(file)), result.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("severity", "side"), [(1, 30), (2, 28), (3, 27), (4, 24), (5, 20)])
def test_pixelate_leaves_blocks_with_the_mean_of_what_they_cover(severity: int, side: int) -> None:
    x = pictures(3)
    result = changed("pixelate", x, severity)
    block = ((torch.arange(32) + 0.5) * side / 32).long()  # the block of each row and column
    first = torch.tensor([int((block == b).nonzero()[0]) for b in range(side)])
    blocks = result[:, :, first][:, :, :, first]
    assert torch.equal(result, blocks[:, :, block][:, :, :, block])
    covers = torch.zeros(side, 32)
    middles = torch.arange(32) + 0.5
    for b in range(side):  # Pillow's box takes pixels whose middle lies in it
        covers[b] = ((middles >= b * 32 / side) & (middles < (b + 1) * 32 / side)).float()
    covers /= covers.sum(1, keepdim=True)
    torch.testing.assert_close(blocks, covers @ x.float() @ covers.T, atol=1.01, rtol=0)


@pytest.mark.parametrize(("severity", "c"), [(1, 0.2), (3, 0.75), (5, 1.5)])
def test_fog_on_a_flat_image_spans_what_its_thickness_allows(severity: int, c: float) -> None:
    v = 200 / 255
    result = changed("fog", flat(200), severity)
    assert (result.amax((1, 2, 3)) == 200).all()
    assert (result.amin((1, 2, 3)) == round(255 * v * v / (v + c))).all()
    assert torch.equal(result[:, 0], result[:, 2])  # fog is grey


def test_fog_lightens_what_is_dark_and_keeps_the_greatest_value_the_limit() -> None:
    x = flat(30)
    x[:, :, 0, 0] = 255
    result = changed("fog", x, 5)
    assert result[:, :, 1:, 1:].mean() > 80
    assert result.max() <= 255


@pytest.mark.parametrize("decay", [1.75, 3.0])
def test_the_plasma_is_diamond_square_on_a_torus(decay: float) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32)).astype(np.float32)
    for image, fractal in zip(noise, corruptions._plasma(noise, decay), strict=True):
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


def test_frost_blends_with_the_published_weights_and_outweighs_the_image_more_and_more() -> None:
    weights = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)]
    black = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    frost = changed("frost", black, 5) / 0.45  # the texture, (200, 3, 32, 32)
    for severity, (of_image, of_frost) in enumerate(weights, 1):
        result = changed("frost", black + 40, severity)
        wanted = (of_image * 40 + of_frost * frost).clamp(max=255)
        assert (result - wanted).abs().max() <= 1.01
    ratio = [of_frost / of_image for of_image, of_frost in weights]
    assert ratio == sorted(ratio)


def test_frost_has_the_colours_of_its_kinds_and_varies() -> None:
    texture = 255 * corruptions._frost_texture(draws(600))  # (600, 3, 32, 32)
    wanted = corruptions.FROSTS[:, :3].mean(0)  # (3,)
    assert texture.mean((0, 2, 3)) == pytest.approx(wanted, abs=8)
    within = texture.std((2, 3)).mean()
    assert 12 < within < 40
    # bluish, and finer than patches: neighbours differ nearly as much as strangers
    assert texture[:, 2].mean() > texture[:, 0].mean()
    assert np.abs(np.diff(texture, axis=3)).mean() > 0.5 * within


def test_snow_only_lightens_and_whitens_all_of_a_black_image() -> None:
    x = pictures(64)
    assert (changed("snow", x, 5) >= x).all()
    black = changed("snow", flat(0), 5)
    assert black.min() >= round(255 * 0.2 * 0.5)
    assert black.std((1, 2, 3)).min() > 2  # streaks
    torch.testing.assert_close(black, black.rot90(2, (2, 3)), atol=1, rtol=0)


def test_motion_blur_trails_a_point_down_the_way_that_snow_falls() -> None:
    point = np.zeros((1, 32, 32), dtype=np.float32)
    point[0, 10, 16] = 1
    trail = corruptions._motion_blur(point, 3, 2, np.array([-90], dtype=np.float32))[0]
    weights = np.exp(-0.5 * (np.arange(7) / 2) ** 2)
    assert trail[10:17, 16] == pytest.approx(weights / weights.sum(), abs=1e-6)
    assert trail.sum() == pytest.approx(1)


def test_motion_blur_keeps_what_is_the_same_everywhere() -> None:
    even = np.full((5, 32, 32), 0.3, dtype=np.float32)
    angles = np.linspace(-135, -45, 5).astype(np.float32)
    assert corruptions._motion_blur(even, 14, 12, angles) == pytest.approx(even, abs=1e-6)


@pytest.mark.parametrize("zoom", [1, 1.25, 1.75, 2.25])
def test_the_zoom_magnifies_the_middle_as_scipy_does(zoom: float) -> None:
    layer = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    crop = int(np.ceil(32 / zoom))
    first = (32 - crop) // 2
    large = ndimage.zoom(layer[first : first + crop, first : first + crop], zoom, order=1)
    trim = (len(large) - 32) // 2
    wanted = large[trim : trim + 32, trim : trim + 32]
    np.testing.assert_allclose(corruptions._zoomed(layer[None], zoom)[0], wanted, atol=1e-5)


def test_spatter_covers_a_part_and_more_of_it_with_severity() -> None:
    x = pictures(300)
    covered = [(changed("spatter", x, s) != x).any(1).float().mean().item() for s in SEVERITIES]
    water, mud = covered[:3], covered[3:]
    assert water == sorted(water)
    assert mud == sorted(mud)
    assert all(0.01 < share < 0.4 for share in covered)


def test_water_lightens_and_mud_is_brown() -> None:
    grey = flat(100, 64)
    assert (changed("spatter", grey, 3) >= 100).all()
    red, green, blue = changed("spatter", grey, 5).permute(1, 0, 2, 3)  # (64, 32, 32) each
    cover = (100 - red) / (100 - 63)  # (63, 42, 20) where it covers all
    assert (cover > 0.99).any()
    assert ((cover == 0) | (cover > 0.78)).all()
    torch.testing.assert_close(green, 100 - 58 * cover, atol=1.5, rtol=0)
    torch.testing.assert_close(blue, 100 - 80 * cover, atol=2, rtol=0)


def test_a_dry_image_stays_as_it_is() -> None:
    dry = np.zeros((2, 32, 32), dtype=np.float32)
    assert not corruptions._water(dry).any()


def test_edges_of_a_drop_are_its_closed_outline() -> None:
    drop = np.zeros((1, 32, 32), dtype=np.float32)
    drop[0, 8:20, 10:25] = 200
    edges = corruptions._edges(drop)[0]
    near = ndimage.binary_dilation(drop[0] > 0) & ~ndimage.binary_erosion(drop[0] > 0)
    assert edges.any()
    assert not (edges & ~near).any()
    # nothing leaves the drop without crossing it
    outside = ndimage.binary_propagation(np.pad(np.zeros((30, 30), bool), 1, constant_values=True),
                                         mask=~edges)  # fmt: skip
    assert not outside[10:18, 12:23].any()


def test_a_weak_edge_counts_beside_a_strong_one_alone() -> None:
    grey = np.zeros((1, 32, 32), dtype=np.float32)
    grey[0, :16, 8:] = 20  # Sobel: 80, above 50
    assert not corruptions._edges(grey).any()
    grey[0, 16:, 8:] = 60  # 240, above 150
    assert corruptions._edges(grey)[0, 4, 7:9].any()


def test_equalised_levels_spread_over_all_greys() -> None:
    levels = np.repeat(np.arange(4), 256).reshape(1, 32, 32)
    assert np.unique(corruptions._equalised(levels)).tolist() == [0, 85, 170, 255]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_elastic_moves_pixels_and_makes_no_others(severity: int) -> None:
    assert (changed("elastic", flat(90), severity) == 90).all()
    x = pictures()
    result = changed("elastic", x, severity)
    moved = (result - x).abs().mean()
    levels = (result.flatten(2).sort().values - x.float().flatten(2).sort().values).abs().mean()
    assert levels < 0.7 * moved
    assert (result.amax((2, 3)) <= x.amax((2, 3))).all()
    assert (result.amin((2, 3)) >= x.amin((2, 3))).all()


def test_elastic_bends_less_as_a_whole_and_more_from_pixel_to_pixel() -> None:
    rough, reach = [], []
    for severity in SEVERITIES:
        right, _ = corruptions._displacements(severity, draws(50))
        rough.append(float(np.abs(np.diff(right, axis=2)).mean()))
        size = corruptions.ELASTIC[severity - 1][2]
        column, _ = corruptions._affine(draws(50).uniform(-size, size, 3, 2))
        reach.append(float(np.abs(column - np.arange(32)).mean()))
    assert rough == sorted(rough)
    assert rough[0] == 0
    assert reach == sorted(reach, reverse=True)


def test_the_affine_map_takes_anchors_where_they_move() -> None:
    shift = np.array([[(2, -1), (0, 3), (-2, 1)]], dtype=np.float32)  # (1, 3, 2), (x, y)
    column, row = corruptions._affine(shift)
    for (x, y), (dx, dy) in zip(corruptions.ANCHORS.astype(int), shift[0].astype(int), strict=True):
        assert (column[0, y + dy, x + dx], row[0, y + dy, x + dx]) == pytest.approx(
            (x, y), abs=1e-4
        )


@pytest.mark.parametrize(("align_corners", "left"), [(True, [2, 1, 0]), (False, [1, 0, 0])])
def test_images_are_mirrored_at_the_border(align_corners: bool, left: list[int]) -> None:
    x = np.broadcast_to(np.arange(32, dtype=np.float32), (1, 3, 32, 32)).copy()
    rows, columns = np.mgrid[:32, :32].astype(np.float32)[:, None]
    moved = corruptions._sampled(x, columns - 2, rows, align_corners=align_corners)
    assert moved[0, 0, 5, :3] == pytest.approx(left, abs=1e-4)
    assert moved[0, 0, 5, 3:] == pytest.approx(np.arange(1, 30), abs=1e-4)
