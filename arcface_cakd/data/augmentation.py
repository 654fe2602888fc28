"""Augmentation of face crops as AdaFace has it: crop, low resolution, photometric.

Kim, Jain, Liu, CVPR 2022 (arXiv 2204.00964), section 4.1 and the published code, where each has
a probability of 0.2. An augmentation here is a function of an image and of numbers in [0, 1)
that are drawn for it, so that whoever has the same numbers sees the same image.
"""

import itertools
from typing import Annotated

import numpy as np
from PIL import Image

from arcface_cakd.config.settings import Range
from arcface_cakd.registry import SECTIONS

Probability = Annotated[float, Range(0.0, 1.0)]

_FILTERS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BILINEAR,
    Image.Resampling.BOX,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_ORDERS = tuple(itertools.permutations(("brightness", "contrast", "saturation")))


@SECTIONS.register("augment")
class Augmentation:
    """What may happen to a crop, each by itself, in this order.

    Args:
        crop: probability that a part of the image is kept where it is and the rest is black.
            Nothing moves, so landmarks stay what they are.
        low_resolution: probability that the image is made smaller and large again.
        photometric: probability that brightness, contrast and saturation change.

    Attributes:
        draws: how many numbers ``__call__`` takes for an image.
    """

    draws = 14

    def __init__(
        self,
        *,
        crop: Probability = 0.2,
        low_resolution: Probability = 0.2,
        photometric: Probability = 0.2,
    ):
        self.crop = crop
        self.low_resolution = low_resolution
        self.photometric = photometric

    @property
    def settings(self) -> dict[str, float]:
        """The settings that it was made with."""
        return dict(vars(self))

    def __call__(self, pixels: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """An image as it is seen.

        Args:
            pixels: uint8 (H, W, 3) RGB, which is left as it is.
            drawn: (``draws``,) uniform numbers in [0, 1).

        Returns:
            uint8 (H, W, 3); ``pixels`` itself where nothing happens.
        """
        if drawn[0] < self.crop:
            pixels = cropped(pixels, *drawn[1:5])
        if drawn[5] < self.low_resolution:
            pixels = resampled(pixels, *drawn[6:9])
        if drawn[9] < self.photometric:
            pixels = recoloured(pixels, *drawn[10:14])
        return pixels


def cropped(pixels: np.ndarray, area: float, ratio: float, top: float, left: float) -> np.ndarray:
    """Black but for a rectangle of 0.2 to 1 of the area, of a side ratio from 3/4 to 4/3.

    The area is uniform and the ratio log-uniform, as in torchvision's RandomResizedCrop, by
    which AdaFace draws it. A side that would be longer than the image is cut to it, where
    torchvision draws anew.

    Args:
        pixels: uint8 (H, W, 3).
        area: with ``ratio``, ``top`` and ``left`` a number in [0, 1) each.
    """
    height, width = pixels.shape[:2]
    size = height * width * (0.2 + 0.8 * area)
    aspect = (4 / 3) ** (2 * ratio - 1)
    h = min(height, max(1, round((size / aspect) ** 0.5)))
    w = min(width, max(1, round((size * aspect) ** 0.5)))
    y, x = int(top * (height - h + 1)), int(left * (width - w + 1))
    out = np.zeros_like(pixels)
    out[y : y + h, x : x + w] = pixels[y : y + h, x : x + w]
    return out


def resampled(pixels: np.ndarray, side: float, down: float, up: float) -> np.ndarray:
    """Made smaller, to 0.2 to 1 of its sides, and as large again as it was.

    Each time by one of Pillow's nearest, bilinear, box, bicubic and Lanczos filters. AdaFace
    takes OpenCV's of the same names (area for box), which but for that one look at the nearest
    pixels alone where an image shrinks, and so alias.

    Args:
        pixels: uint8 (H, W, 3).
        side: with ``down`` and ``up``, which choose the filters, a number in [0, 1) each.
    """
    height, width = pixels.shape[:2]
    share = 0.2 + 0.8 * side
    small = max(1, int(share * width)), max(1, int(share * height))
    image = Image.fromarray(pixels).resize(small, _FILTERS[int(down * len(_FILTERS))])
    return np.asarray(image.resize((width, height), _FILTERS[int(up * len(_FILTERS))]))


def recoloured(
    pixels: np.ndarray, brightness: float, contrast: float, saturation: float, order: float
) -> np.ndarray:
    """Brightness, contrast and saturation changed, each by a factor from 0.5 to 1.5.

    As torchvision's ColorJitter, by which AdaFace does it: a blend with black, with the image's
    mean luma, with each pixel's luma; one after the other in any order, each cut to the range of
    pixels. Numbers are rounded once, at the end.

    Args:
        pixels: uint8 (H, W, 3) RGB.
        brightness: with ``contrast``, ``saturation`` and ``order``, which chooses one of the six
            orders, a number in [0, 1) each.
    """
    factors = {
        "brightness": 0.5 + brightness,
        "contrast": 0.5 + contrast,
        "saturation": 0.5 + saturation,
    }
    image = pixels.astype(np.float32)
    for name in _ORDERS[int(order * len(_ORDERS))]:
        other: np.ndarray | float = 0.0
        if name != "brightness":
            luma = image @ _LUMA
            other = float(luma.mean()) if name == "contrast" else luma[..., None]
        factor = np.float32(factors[name])
        image = np.clip(factor * image + (1 - factor) * other, 0.0, 255.0)
    return np.rint(image).astype(np.uint8)
