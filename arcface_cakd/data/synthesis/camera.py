"""From radiance to a JPEG: exposure, blur, noise, compression."""

import numpy as np
import simplejpeg

from arcface_cakd.data.synthesis.canvas import F32
from arcface_cakd.data.synthesis.nuisance import Camera


def expose(radiance: np.ndarray, camera: Camera) -> np.ndarray:
    """uint8 (H, W, 3) picture of linear ``radiance`` (3, H, W) by a camera.

    The tone curve is a soft shoulder and a gamma of 2.
    """
    x = np.maximum(radiance, 0)
    image = np.sqrt(x * F32(1.25) / (1 + F32(0.25) * x))
    if camera.blur > 0.15:
        image = _blur(image, camera.blur)
    if camera.saturation != 1.0:
        grey = F32(0.3) * image[0] + F32(0.59) * image[1] + F32(0.11) * image[2]
        image = grey + F32(camera.saturation) * (image - grey)
    image = F32(0.45) + F32(camera.contrast) * (image - F32(0.45))
    image = image * F32(255)
    if camera.noise > 0:
        rng = np.random.default_rng(camera.seed)
        image += F32(camera.noise) * rng.standard_normal(image.shape, dtype=F32)
    return np.ascontiguousarray(
        np.clip(image + F32(0.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    )


def encode(image: np.ndarray, quality: int) -> bytes:
    """The JPEG of a uint8 (H, W, 3) RGB image."""
    return simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB")


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    radius = max(1, int(np.ceil(2.5 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(F32)
    for axis in (1, 2):
        size = image.shape[axis]
        padding = [(radius, radius) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image, padding, mode="edge")
        cut = (slice(None),) * axis
        image = sum(w * padded[(*cut, slice(k, k + size))] for k, w in enumerate(kernel))
    return image
