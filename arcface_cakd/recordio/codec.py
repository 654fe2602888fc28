"""Images, encoded and decoded: JPEG by libjpeg-turbo, all else by Pillow.

Pixels of a JPEG equal those that mxnet, OpenCV and Pillow decode (no fast modes). EXIF
orientation is not applied.
"""

import io

import numpy as np
import simplejpeg

_JPEG = b"\xff\xd8\xff"
_SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def is_jpeg(encoded) -> bool:
    """Whether the bytes begin as a JPEG does."""
    return bytes(encoded[:3]) == _JPEG


def decode_rgb(encoded, out: np.ndarray | None = None, strict: bool = False) -> np.ndarray:
    """Decode an image to RGB.

    Args:
        encoded: bytes-like, any format that Pillow reads.
        out: uint8 (H, W, 3) contiguous, to decode into where the image is a JPEG of that size.
        strict: refuse a JPEG in which libjpeg sees damage even if all rows can be made up.

    Returns:
        uint8 (H, W, 3); shares memory with ``out`` or not.

    Raises:
        ValueError: the image does not decode.
    """
    if is_jpeg(encoded):
        try:
            return simplejpeg.decode_jpeg(encoded, "RGB", buffer=out)
        except ValueError as error:
            if strict:
                raise ValueError(_one_line(error)) from error
    return _decode_with_pillow(encoded, "RGB")


def decode(encoded, mode: str | None) -> np.ndarray:
    """Decode to Pillow's mode "RGB" (H, W, 3) or "L" (H, W), or as stored where it is None.

    Raises:
        ValueError: the image does not decode.
    """
    if is_jpeg(encoded) and _colourspace(encoded) in ("Gray", "YCbCr"):
        grey = mode == "L" or (mode is None and _colourspace(encoded) == "Gray")
        try:
            image = simplejpeg.decode_jpeg(encoded, "GRAY" if grey else "RGB")
            return image[..., 0] if grey else image
        except ValueError:
            pass  # Pillow forgives more
    return _decode_with_pillow(encoded, mode)


def image_size(encoded) -> tuple[int, int]:
    """(height, width), from the image's header alone.

    Raises:
        ValueError: no image.
    """
    if is_jpeg(encoded):
        try:
            return simplejpeg.decode_jpeg_header(encoded)[:2]
        except ValueError:
            pass  # Pillow forgives more
    with _opened(encoded) as image:
        return image.height, image.width


def encode(image: np.ndarray, quality: int = 95, suffix: str = ".jpg") -> bytes:
    """Encode a uint8 image, (H, W, 3) RGB or (H, W) grey.

    JPEG is written with 4:2:0 chroma, as OpenCV and so insightface's own tools do; for PNG,
    ``quality`` is the compression, at most 9.

    Raises:
        ValueError: no such image or format.
    """
    kind = _SUFFIXES.get(suffix.lower())
    if kind is None:
        raise ValueError(f"image format must be .jpg, .jpeg or .png, got {suffix!r}")
    grey = image.ndim == 2
    if image.dtype != np.uint8 or not (grey or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(
            f"an image must be uint8 (H, W, 3) or (H, W), got {image.dtype} {image.shape}"
        )
    if not image.size:
        raise ValueError(f"an image must have pixels, got {image.shape}")
    image = np.ascontiguousarray(image)
    if kind == "JPEG":
        if not 1 <= quality <= 100:
            raise ValueError(f"JPEG quality must be 1 to 100, got {quality}")
        pixels, space, chroma = (
            (image[..., None], "GRAY", "Gray") if grey else (image, "RGB", "420")
        )
        return simplejpeg.encode_jpeg(pixels, quality, space, chroma)
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=min(quality, 9))
    return file.getvalue()


def _decode_with_pillow(encoded, mode: str | None) -> np.ndarray:
    with _opened(encoded) as image:
        if mode is None:
            mode = image.mode if image.mode in ("L", "RGB", "RGBA") else "RGB"
        return np.array(image.convert(mode))


class _opened:
    """A Pillow image whose every failure is a ValueError of one line."""

    def __init__(self, encoded):
        self.encoded = encoded

    def __enter__(self):
        from PIL import Image, UnidentifiedImageError

        try:
            self.image = Image.open(io.BytesIO(self.encoded))
        except UnidentifiedImageError as error:  # whose own text is a memory address
            raise ValueError("its bytes are of no known image format") from error
        except Exception as error:
            self.__exit__(type(error), error, None)
        return self.image

    def __exit__(self, kind, error, trace):
        # Damaged data drives Pillow's decoders into errors of many kinds.
        if isinstance(error, Exception):
            raise ValueError(_one_line(error)) from error


def _colourspace(encoded) -> str | None:
    try:
        return simplejpeg.decode_jpeg_header(encoded)[2]
    except ValueError:
        return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
