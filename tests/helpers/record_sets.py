"""Small data sets whose every image is known, made with Pillow."""

import io

import numpy as np
from PIL import Image
from torch import Tensor

from arcface_cakd.recordio import IRHeader, MXIndexedRecordIO, pack


def jpeg(seed: int, size=(112, 112), quality: int = 90) -> bytes:
    """A JPEG of smooth noise, by Pillow."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return encoded(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), quality=quality)


def ends_early(image: bytes) -> bytes:
    """A JPEG whose end mark comes too soon, with the rest behind it: some decoders make that up."""
    return image[:900] + b"\xff\xd9\xff" + image[903:]


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def write_records(folder, records: dict[int, tuple[object, bytes]]) -> None:
    """``train.rec`` of key -> (label or labels, image), in the order given."""
    with MXIndexedRecordIO(folder / "train.idx", folder / "train.rec", "w") as writer:
        for key, (label, image) in records.items():
            writer.write_idx(key, pack(IRHeader(0, label, key, 0), image))


def write_insightface_set(folder) -> dict[int, tuple[float, bytes]]:
    """26 images of 4 identities, key 0 written last; key -> (label, JPEG)."""
    images = {key: (float((key - 1) // 7), jpeg(key)) for key in range(1, 27)}
    headers = {27 + i: ([1 + 7 * i, min(8 + 7 * i, 27)], b"") for i in range(4)}
    write_records(folder, {**images, **headers, 0: ([27, 31], b"")})
    return images


def identify(image: Tensor, known: dict[int, np.ndarray]) -> tuple[int, bool]:
    """Which key an image of a batch shows, and whether it is flipped."""
    restored = ((image.permute(1, 2, 0).numpy().astype(np.float64) + 1) * 127.5).round()
    for key, original in known.items():
        for flipped in (False, True):
            if np.array_equal(restored, original[:, ::-1] if flipped else original):
                return key, flipped
    raise AssertionError("an image that is not in the data set")
