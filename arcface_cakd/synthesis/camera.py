"""From radiance to a JPEG: exposure, blur, noise, compression."""

import numpy as np
import simplejpeg

from arcface_cakd.synthesis.nuisance import Camera
from arcface_cakd.synthesis.shapes import F32, positive

# Drawing noise anew for every picture would take longer than anything else a camera does.
_NOISE = np.random.default_rng(20230615).standard_normal(1 << 19, dtype=F32)


def expose(radiance: np.ndarray, camera: Camera) -> np.ndarray:
    """uint8 (H, W, 3) picture of linear ``radiance`` (3, H, W) by a camera.

    The tone curve is a soft shoulder and a gamma of 2.
    """
    x = positive(radiance)
    image = x * F32(1.25)
    x *= F32(0.25)
    x += 1
    image /= x
    np.sqrt(image, out=image)
    if camera.blur > 0.15:
        image = _blur(image, camera.blur)
    # Saturation about grey and contrast about 0.45, both in one, in units of 255.
    grey = F32(0.3) * image[0] + F32(0.59) * image[1] + F32(0.11) * image[2]
    grey *= F32(255 * camera.contrast * (1 - camera.saturation))
    grey += F32(255 * 0.45 * (1 - camera.contrast) + 0.5)
    image *= F32(255 * camera.contrast * camera.saturation)
    image += grey
    if camera.noise > 0:
        start = camera.seed % (len(_NOISE) - image.size)
        image += F32(camera.noise) * _NOISE[start : start + image.size].reshape(image.shape)
    image.clip(0, 255, out=image)
    return np.ascontiguousarray(image.astype(np.uint8).transpose(1, 2, 0))


def encode(image: np.ndarray, quality: int) -> bytes:
    """The JPEG of a uint8 (H, W, 3) RGB image."""
    return simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB")


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    radius = max(1, int(np.ceil(2.5 * sigma)))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(F32)
    for _ in range(2):
        size = image.shape[1]
        before, after = image[:, :1].repeat(radius, 1), image[:, -1:].repeat(radius, 1)
        padded = np.concatenate([before, image, after], axis=1)
        image = kernel[radius] * image
        for k in range(radius):
            both = padded[:, k : k + size] + padded[:, 2 * radius - k : 2 * radius - k + size]
            both *= kernel[k]
            image += both
        image = image.transpose(0, 2, 1)  # rows first, then columns
    return image
