"""Images that are not upright or not of 8 bits, against Pillow's transposing and OpenCV."""

import io

import numpy as np
import pytest
from helpers.record_sets import encoded, jpeg, pixels
from PIL import Image, ImageOps

from arcface_cakd.data import DataError, decode_image, read_bin, write_bin
from arcface_cakd.data.images import decode_crop
from arcface_cakd.recordio import IRHeader, RecordIOError, codec, pack, unpack_img
from arcface_cakd.recordio.orientation import exif_orientation, jpeg_orientation

HEADER = IRHeader(0, 1.0, 0, 0)
NOISE = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def sideways(orientation: int, kind: str, image: np.ndarray = NOISE, order: str = ">") -> bytes:
    """An image whose EXIF data says ``orientation``."""
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    return encoded(Image.fromarray(image), kind, exif=exif, **lossless)


def transposed(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


class TestOrientation:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_value_turns_upright(self, orientation, kind):
        data = sideways(orientation, kind)
        assert orientation == 1 or Image.open(io.BytesIO(data)).getexif()[0x0112] == orientation
        expected = transposed(data)
        assert expected.shape[:2] == ((14, 9) if orientation >= 5 else (9, 14))
        np.testing.assert_array_equal(decode_image(data), expected)
        np.testing.assert_array_equal(unpack_img(pack(HEADER, data), 1)[1], expected[..., ::-1])
        assert unpack_img(pack(HEADER, data), 0)[1].shape == expected.shape[:2]
        assert codec.image_size(data) == expected.shape[:2]

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_as_opencv_does_by_the_same_flag(self, orientation, kind):
        cv2 = pytest.importorskip("cv2")
        if kind == "WEBP" and cv2.__version__ < "5":
            pytest.skip("OpenCV 4.11 does not turn them")
        data = sideways(orientation, kind)
        for iscolor in (1, 0, -1):
            theirs = cv2.imdecode(np.frombuffer(data, np.uint8), iscolor)
            ours = unpack_img(pack(HEADER, data), iscolor)[1]
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
            # Greys of colours, but for JPEG's own, are rounded in another way.
            allowed = int(iscolor == 0 and kind != "JPEG")
            assert np.abs(ours.astype(int) - theirs).max() <= allowed

    def test_avif_too(self):
        Image.init()
        if "AVIF" not in Image.SAVE:
            pytest.skip("this Pillow writes no AVIF")
        for orientation in range(1, 9):
            data = sideways(orientation, "AVIF")
            np.testing.assert_array_equal(decode_image(data), transposed(data))

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_a_crop_is_turned_whatever_it_is_decoded_into(self, kind):
        face = pixels(jpeg(3))
        data = sideways(6, kind, np.rot90(face))
        out = np.empty((112, 112, 3), dtype=np.uint8)
        for given in (None, out):
            assert np.abs(decode_crop(data, given).astype(int) - face).mean() < 4

    def test_a_verification_set_is_turned(self, tmp_path):
        face = pixels(jpeg(3))
        write_bin(tmp_path / "a.bin", [sideways(8, "PNG", np.rot90(face, -1)), jpeg(4)], [True])
        np.testing.assert_array_equal(read_bin(tmp_path / "a.bin").images[0], face)

    @pytest.mark.parametrize("order", "<>")
    def test_exif_behind_other_segments_and_in_either_byte_order(self, order):
        data = sideways(3, "JPEG", order=order)
        assert jpeg_orientation(data) == 3
        comment = b"\xff\xfe\x00\x08\xff\xda\xff\xd9xx"  # holds what looks like markers
        assert jpeg_orientation(data[:2] + comment + b"\xff" + data[2:]) == 3

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_a_value_that_means_nothing_is_upright(self, value):
        data = sideways(6, "JPEG").replace(b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06",
                                           b"\x01\x12\x00\x03\x00\x00\x00\x01"
                                           + value.to_bytes(2, "big"))  # fmt: skip
        assert decode_image(data).shape == (9, 14, 3) and jpeg_orientation(data) == 1

    @pytest.mark.parametrize("seed", range(3))
    def test_damaged_exif_never_raises(self, seed):
        rng = np.random.default_rng(seed)
        data = sideways(6, "JPEG")
        begin = data.index(b"Exif\0\0")
        for _ in range(300):
            damaged = bytearray(data)
            for place in rng.integers(2, begin + 40, rng.integers(1, 6)):
                damaged[place] = rng.integers(0, 256)
            damaged = bytes(damaged[: rng.integers(2, len(data))])
            assert 1 <= jpeg_orientation(damaged) <= 8
            assert 1 <= exif_orientation(damaged[begin:]) <= 8


class TestDeep:
    GREY = np.random.default_rng(1).integers(0, 65536, (9, 14), dtype=np.uint16)

    def grey(self, kind: str) -> bytes:
        if kind == "PGM":
            return b"P5 14 9 65535\n" + self.GREY.astype(">u2").tobytes()
        return encoded(Image.fromarray(self.GREY), kind)

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PGM"])
    def test_16_bit_grey_keeps_its_high_byte(self, kind):
        data = self.grey(kind)
        high = (self.GREY // 256).astype(np.uint8)
        np.testing.assert_array_equal(decode_image(data), np.dstack([high] * 3))
        np.testing.assert_array_equal(unpack_img(pack(HEADER, data), 1)[1], np.dstack([high] * 3))
        np.testing.assert_array_equal(unpack_img(pack(HEADER, data), 0)[1], high)
        stored = unpack_img(pack(HEADER, data), -1)[1]
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(stored, self.GREY)

    @pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm", ".pgm"])
    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_as_opencv_does_by_the_same_flag(self, suffix, channels):
        cv2 = pytest.importorskip("cv2")
        if (suffix, channels) in {(".ppm", 4), (".pgm", 3), (".pgm", 4), (".ppm", 1)}:
            pytest.skip("no such picture")
        shape = (9, 14) if channels == 1 else (9, 14, channels)
        values = np.random.default_rng(2).integers(0, 65536, shape, dtype=np.uint16)
        data = cv2.imencode(suffix, values)[1].tobytes()
        for iscolor in (1, 0, -1):
            theirs = cv2.imdecode(np.frombuffer(data, np.uint8), iscolor)
            ours = unpack_img(pack(HEADER, data), iscolor)[1]
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
            # Of TIFF and PPM, Pillow and OpenCV round colours each in its own way.
            close = int(iscolor == 0 or (iscolor == 1 and suffix in (".tiff", ".ppm")))
            if suffix == ".tiff" and channels == 4 and iscolor != -1:
                continue  # OpenCV multiplies colours by alpha here
            assert np.abs(ours.astype(int) - theirs).max() <= close

    @pytest.mark.parametrize("dtype", [np.float32, np.int32])
    def test_32_bits_are_refused_as_a_picture(self, dtype):
        values = np.random.default_rng(3).integers(0, 256, (9, 14)).astype(dtype)
        data = encoded(Image.fromarray(values), "TIFF")
        with pytest.raises(DataError, match="32-bit numbers of no known range: save it in 8 bits"):
            decode_image(data)
        for iscolor in (0, 1):
            with pytest.raises(RecordIOError, match="32-bit numbers"):
                unpack_img(pack(HEADER, data), iscolor)
        stored = unpack_img(pack(HEADER, data), -1)[1]
        assert stored.dtype == dtype
        np.testing.assert_array_equal(stored, values)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("transparent", [False, True])
def test_modes_as_opencv_reads_them(mode, transparent):
    cv2 = pytest.importorskip("cv2")
    image = Image.fromarray(NOISE).convert(mode)
    options = {"transparency": {"P": 3, "RGB": (1, 2, 3), "L": 3}[mode]} if (
        transparent and mode in ("P", "RGB", "L")) else {}  # fmt: skip
    data = encoded(image, "PNG", **options)
    for iscolor in (1, 0, -1):
        theirs = cv2.imdecode(np.frombuffer(data, np.uint8), iscolor)
        ours = unpack_img(pack(HEADER, data), iscolor)[1]
        assert ours.shape == theirs.shape
        assert np.abs(ours.astype(int) - theirs).max() <= int(iscolor == 0)
