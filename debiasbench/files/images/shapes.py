"""Scale and crop images to one size."""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

Shape = Callable[[Image.Image], Image.Image]
"""Changes the size of an RGB image; raises `ValueError` for an image that it cannot take."""


def stretched(height: int, width: int) -> Shape:
    """Scale to a size and ignore the proportions; bilinear with antialiasing."""
    return lambda image: image.resize((width, height), Image.Resampling.BILINEAR)


def cropped(height: int, width: int) -> Shape:
    """Crop the centre; raises `ValueError` for an image that is smaller."""

    def crop(image: Image.Image) -> Image.Image:
        if image.height < height or image.width < width:
            raise ValueError(
                f"is {image.width}x{image.height} (width x height), smaller than the crop of "
                f"{width}x{height}. Use the original images"
            )
        # rounded like torchvision's CenterCrop
        top, left = round((image.height - height) / 2), round((image.width - width) / 2)
        return image.crop((left, top, left + width, top + height))

    return crop


def chained(*shapes: Shape) -> Shape:
    """Apply several shapes one after the other."""

    def apply(image: Image.Image) -> Image.Image:
        for shape in shapes:
            image = shape(image)
        return image

    return apply
