"""Encoded images to pixels."""

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.recordio import codec

CROP = (CROP_SIZE, CROP_SIZE, 3)


def decode_image(encoded: bytes) -> np.ndarray:
    """Decode an image of any format that Pillow reads (JPEG by libjpeg-turbo), upright.

    Returns:
        uint8 (H, W, 3) RGB.

    Raises:
        DataError: it does not decode.
    """
    try:
        return codec.decode_rgb(encoded)
    except ValueError as error:
        raise DataError(f"the image does not decode: {error}") from error


def decode_crop(encoded: bytes, out: np.ndarray | None = None, strict: bool = False) -> np.ndarray:
    """Decode a face crop, which must be 112 x 112.

    Args:
        encoded: the image.
        out: uint8 (112, 112, 3) that may be decoded into.
        strict: refuse a JPEG in which libjpeg sees any damage.

    Returns:
        uint8 (112, 112, 3) RGB; shares memory with ``out`` or not.

    Raises:
        DataError: it does not decode, or has another size.
    """
    if not len(encoded):
        raise DataError("there is no image")
    try:
        image = codec.decode_rgb(encoded, out, strict)
    except ValueError as error:
        raise DataError(f"the image does not decode: {error}") from error
    if image.shape != CROP:
        height, width = image.shape[:2]
        raise DataError(
            f"the image is {width} x {height}, not 112 x 112: align and crop the faces first"
        )
    return image
