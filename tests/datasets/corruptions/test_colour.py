"""Brightness, contrast and saturation follow their definitions."""

from __future__ import annotations

import colorsys

import pytest
import torch

from tests.datasets.corruptions.images import SEVERITIES, changed, pictures


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["brightness", "saturate"])
def test_hsv_changes_by_definition(name: str, severity: int) -> None:
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


def test_saturate_reduces_colour_then_increases_it() -> None:
    x = pictures()
    less = [changed("saturate", x, s) for s in (2, 1)]
    more = [changed("saturate", x, s) for s in (3, 4, 5)]
    spread = [(c.amax(1) - c.amin(1)).mean() for c in (*less, x.float(), *more)]
    assert spread == sorted(spread)


@pytest.mark.parametrize(("severity", "c"), [(1, 0.75), (2, 0.5), (3, 0.4), (4, 0.3), (5, 0.15)])
def test_contrast_keeps_means_and_scales_deviations(severity: int, c: float) -> None:
    x = pictures()
    result = changed("contrast", x, severity)
    # rounding to grey levels moves a mean by up to 0.5
    torch.testing.assert_close(result.mean((2, 3)), x.float().mean((2, 3)), atol=0.5, rtol=0)
    torch.testing.assert_close(result.std((2, 3)), c * x.float().std((2, 3)), atol=0.2, rtol=0)
