"""EXIF orientation: how an image that was stored on its side is turned upright."""

import struct

import numpy as np

_APP1, _SOS, _EOI = 0xE1, 0xDA, 0xD9
_PREFIX = b"Exif\0\0"
_TAG = 0x0112
_SHORT = 3


def jpeg_orientation(encoded) -> int:
    """The EXIF orientation of a JPEG, 1 to 8; 1 (upright) where it says nothing of it."""
    position, size = 2, len(encoded)
    while position + 4 <= size and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker in (_SOS, _EOI):
            break
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        after = position + 2 + (encoded[position + 2] << 8 | encoded[position + 3])
        if marker == _APP1 and bytes(encoded[position + 4 : position + 10]) == _PREFIX:
            return exif_orientation(bytes(encoded[position + 10 : after]))
        position = after
    return 1


def exif_orientation(exif: bytes) -> int:
    """The orientation in EXIF data, 1 to 8; 1 where it is not there, or damaged.

    Args:
        exif: a TIFF structure, behind ``Exif\\0\\0`` or not. Its first directory is looked at,
            as OpenCV does.
    """
    exif = exif.removeprefix(_PREFIX)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
            if tag == _TAG:
                return value if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (H, W) or (H, W, C) as it is meant to be seen, contiguous.

    Args:
        image: as it is stored.
        orientation: 1 to 8; from 5 on, height and width change places.
    """
    if orientation == 1:
        return image
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    # What of the image, or of its transpose, is mirrored.
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(image[rows, columns])
