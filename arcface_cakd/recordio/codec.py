"""Images, encoded and decoded: JPEG by libjpeg-turbo, all else by Pillow.

Pixels of a JPEG equal those that mxnet, OpenCV and Pillow decode (no fast modes). As by OpenCV,
an image that is decoded to RGB or grey is turned upright by its EXIF orientation and has its
16-bit numbers shifted to 8; decoded as it is stored, it is left as it is.
"""

import io
from functools import lru_cache

import numpy as np
import simplejpeg

from arcface_cakd.recordio.orientation import exif_orientation, jpeg_orientation, upright

_JPEG = b"\xff\xd8\xff"
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")  # Pillow's modes of more than 8 bits
# Of Pillow's formats those of pictures: some others run programs, as PostScript does.
_FORMATS = (
    *("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000"),
    *("PCX", "TGA", "ICO"),
)
MAX_PIXELS = 1 << 26
"""Of an image: no memory is taken for one whose header says more, which few bytes can."""
_SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


def is_jpeg(encoded) -> bool:
    """Whether the bytes begin as a JPEG does."""
    return bytes(encoded[:3]) == _JPEG


def decode_rgb(encoded, out: np.ndarray | None = None, strict: bool = False) -> np.ndarray:
    """Decode an image to RGB.

    Args:
        encoded: bytes-like, a picture of a format that Pillow reads.
        out: uint8 (H, W, 3) contiguous, to decode into where the image is an upright JPEG of that
            size.
        strict: refuse a JPEG in which libjpeg sees damage even if all rows can be made up.

    Returns:
        uint8 (H, W, 3); shares memory with ``out`` or not.

    Raises:
        ValueError: the image does not decode, or has more than ``MAX_PIXELS``.
    """
    if is_jpeg(encoded):
        orientation = jpeg_orientation(encoded)
        try:
            _refuse_large(*simplejpeg.decode_jpeg_header(encoded)[:2])
            if orientation == 1:
                return simplejpeg.decode_jpeg(encoded, "RGB", buffer=out)
            return upright(simplejpeg.decode_jpeg(encoded, "RGB"), orientation)
        except ValueError as error:
            if strict:
                raise ValueError(_one_line(error)) from error
    return _decode_with_pillow(encoded, "RGB")


def decode(encoded, mode: str | None) -> np.ndarray:
    """Decode to Pillow's mode "RGB" (H, W, 3) or "L" (H, W), uint8, or as stored where it is None.

    As stored is uint8 or uint16 (int32 or float32 of a TIFF) of shape (H, W), (H, W, 3), or
    (H, W, 4) where there is an alpha channel; not turned, save TIFF, which OpenCV turns too.

    Raises:
        ValueError: the image does not decode, has more than ``MAX_PIXELS``, or its 32-bit numbers
            say nothing of their range.
    """
    if is_jpeg(encoded) and _colourspace(encoded) in ("Gray", "YCbCr"):
        grey = mode == "L" or (mode is None and _colourspace(encoded) == "Gray")
        try:
            _refuse_large(*simplejpeg.decode_jpeg_header(encoded)[:2])
            image = simplejpeg.decode_jpeg(encoded, "GRAY" if grey else "RGB")
            image = image[..., 0] if grey else image
            return image if mode is None else upright(image, jpeg_orientation(encoded))
        except ValueError:
            pass  # Pillow forgives more
    return _decode_with_pillow(encoded, mode)


def image_size(encoded) -> tuple[int, int]:
    """(height, width) of the upright image, from its header alone.

    Raises:
        ValueError: no image.
    """
    if is_jpeg(encoded):
        try:
            height, width = simplejpeg.decode_jpeg_header(encoded)[:2]
            return (height, width) if jpeg_orientation(encoded) < 5 else (width, height)
        except ValueError:
            pass  # Pillow forgives more
    with _opened(encoded) as image:
        if _orientation(image) < 5:
            return image.height, image.width
        return image.width, image.height


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
        _refuse_large(image.height, image.width)
        image.load()  # before its EXIF data is known
        if mode is None:
            return _as_stored(image, encoded)
        return upright(_in_8_bits(image, mode), _orientation(image))


def _in_8_bits(image, mode: str) -> np.ndarray:
    if image.mode not in _DEEP:
        return np.array(image.convert(mode))
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise ValueError("its pixels are 32-bit numbers of no known range: save it in 8 bits")
    grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
    return grey if mode == "L" else np.repeat(grey[..., None], 3, axis=2)


def _as_stored(image, encoded) -> np.ndarray:
    if image.mode in _DEEP:
        pixels = np.array(image)
        of_32_bits = image.mode == "F" or (image.mode == "I" and image.format == "TIFF")
        return pixels if of_32_bits else pixels.astype(np.uint16)
    if _has_16_bits(encoded):
        return _with_opencv(encoded)
    if image.mode in ("1", "L"):
        return np.array(image.convert("L"))
    alpha = image.mode in ("RGBA", "LA", "PA", "La") or "transparency" in image.info
    return np.array(image.convert("RGBA" if alpha else "RGB"))


def _has_16_bits(encoded) -> bool:
    """Whether the colours are of 16 bits, of which Pillow keeps 8."""
    with _opened(encoded) as image:  # anew: what is decoded has no tiles
        return any(";16" in str(tile[3]) or "65535" in str(tile[3]) for tile in image.tile)


def _with_opencv(encoded) -> np.ndarray:
    try:
        import cv2
    except ImportError:
        raise ValueError(
            "16-bit colours as they are stored need OpenCV: pip install opencv-python-headless, "
            "or decode with iscolor=1"
        ) from None
    image = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("OpenCV does not decode it")
    return np.ascontiguousarray(image[..., [2, 1, 0, 3][: image.shape[2]]])


def _orientation(image) -> int:
    """As EXIF data says, of what Pillow opened; TIFF it turns itself."""
    return exif_orientation(image.info.get("exif") or b"")


class _opened:
    """A Pillow image whose every failure is a ValueError of one line."""

    def __init__(self, encoded):
        self.encoded = encoded

    def __enter__(self):
        from PIL import Image, UnidentifiedImageError

        try:
            self.image = Image.open(io.BytesIO(self.encoded), formats=_known_formats())
        except UnidentifiedImageError as error:  # whose own text is a memory address
            raise ValueError("its bytes are of no known image format") from error
        except Exception as error:
            self.__exit__(type(error), error, None)
        return self.image

    def __exit__(self, kind, error, trace):
        # Damaged data drives Pillow's decoders into errors of many kinds.
        if isinstance(error, Exception):
            raise ValueError(_one_line(error)) from error


@lru_cache(maxsize=1)
def _known_formats() -> list[str]:
    """Those that this Pillow has."""
    from PIL import Image

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _refuse_large(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"its header says {width} x {height} pixels, which are more than {MAX_PIXELS}"
        )


def _colourspace(encoded) -> str | None:
    try:
        return simplejpeg.decode_jpeg_header(encoded)[2]
    except ValueError:
        return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
