"""What insightface and mxnet store in a record: a header, then an encoded image."""

import numbers
import struct
from collections import namedtuple

import numpy as np

from arcface_cakd.recordio.framing import RecordIOError

IRHeader = namedtuple("IRHeader", ["flag", "label", "id", "id2"])
IRHeader.__doc__ = """Header of an image record.

flag: 0 for a scalar label, else the number of labels. label: a number, or a float32 array of
``flag`` numbers. Labels are float32, exact for integers up to 2^24. id, id2: unsigned 64-bit
numbers of the user's own.
"""

_FIXED = struct.Struct("<IfQQ")
HEADER_SIZE = _FIXED.size  # bytes before the labels


def pack(header: IRHeader, s: bytes) -> bytes:
    """Payload of a header and an encoded image.

    Args:
        header: its ``flag`` is set from the label: 0 for a number, else how many there are.
        s: the encoded image, or nothing.

    Raises:
        RecordIOError: a label or id that the format cannot hold.
    """
    flag, label, id_, id2 = header
    labels = b""
    try:
        if isinstance(label, numbers.Number):
            flag = 0
        else:
            values = np.asarray(label, dtype="<f4")
            flag, label, labels = values.size, 0, values.tobytes()
        return _FIXED.pack(flag, label, id_, id2) + labels + s
    except (struct.error, TypeError, ValueError, OverflowError) as error:
        raise RecordIOError(f"{header} does not fit an image record: {error}") from error


def unpack(s: bytes) -> tuple[IRHeader, bytes]:
    """The header and the encoded image of a payload.

    Raises:
        RecordIOError: the payload is too short to hold them.
    """
    if len(s) < _FIXED.size:
        raise RecordIOError(f"no image record, {len(s)} bytes are less than its header")
    header = IRHeader(*_FIXED.unpack_from(s))
    begin = _FIXED.size
    if header.flag > 0:
        begin += 4 * header.flag
        if len(s) < begin:
            raise RecordIOError(f"no image record, too short for its {header.flag} labels")
        header = header._replace(label=np.frombuffer(s, "<f4", header.flag, _FIXED.size))
    return header, s[begin:]


def pack_img(header: IRHeader, img: np.ndarray, quality: int = 95, img_fmt: str = ".jpg") -> bytes:
    """Payload of a header and an image, encoded.

    Args:
        header: as in ``pack``.
        img: uint8, (H, W, 3) in BGR order or (H, W) grey.
        quality: 1 to 100 for JPEG, compression 1 to 9 for PNG.
        img_fmt: ".jpg", ".jpeg" or ".png".

    Raises:
        RecordIOError: another format, or an array that is no image.
    """
    from arcface_cakd.recordio import codec

    try:
        return pack(
            header, codec.encode(img[..., ::-1] if img.ndim == 3 else img, quality, img_fmt)
        )
    except ValueError as error:
        raise RecordIOError(str(error)) from error


def unpack_img(s: bytes, iscolor: int = -1) -> tuple[IRHeader, np.ndarray]:
    """The header and the decoded image of a payload.

    Args:
        s: the payload.
        iscolor: as in OpenCV's ``imdecode``. 1 for (H, W, 3) in BGR order and 0 for (H, W) grey,
            both uint8, turned upright by the EXIF orientation; -1 as stored (grey, BGR, or BGRA
            where there is an alpha channel), not turned and with 16 bits where it has them.

    Raises:
        RecordIOError: no header, or an image that does not decode.
    """
    from arcface_cakd.recordio import codec

    header, encoded = unpack(s)
    try:
        mode = {1: "RGB", 0: "L", -1: None}[iscolor]
        image = codec.decode(encoded, mode)
    except KeyError:
        raise RecordIOError(f"iscolor must be 1, 0 or -1, got {iscolor}") from None
    except ValueError as error:
        raise RecordIOError(f"the image does not decode: {error}") from error
    if image.ndim == 3:
        order = [2, 1, 0, 3][: image.shape[2]]
        image = np.ascontiguousarray(image[..., order])
    return header, image
