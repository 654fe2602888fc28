"""The few names of mxnet that arcface_torch's scripts use, where mxnet itself does not import.

``recordio`` is ours; ``image``, ``ndarray`` and ``gluon`` hold what ``dataset.py``,
``eval/verification.py``, ``onnx_ijbc.py`` and ``scripts/shuffle_rec.py`` ask of them. Pixels equal
mxnet's. Importing it needs neither torch nor OpenCV.
"""

from types import SimpleNamespace

import numpy as np

from arcface_cakd import recordio
from arcface_cakd.data import decode_image

__all__ = ["NDArray", "gluon", "image", "nd", "ndarray", "recordio"]


class NDArray:
    """An array with as much of mxnet's interface as the scripts use."""

    def __init__(self, values: np.ndarray):
        self._values = values

    @property
    def shape(self) -> tuple[int, ...]:
        return self._values.shape

    def asnumpy(self) -> np.ndarray:
        """A copy, contiguous and writable, as ``torch.from_numpy`` asks."""
        return self._values.copy(order="C")


class _Dataset:
    """Base of data sets: ``__getitem__`` and ``__len__`` are the subclass's own."""


def _imdecode(buf) -> NDArray:
    """Decode an image.

    Args:
        buf: bytes-like, or a uint8 array of the encoded bytes, as old ``.bin`` files hold.

    Returns:
        uint8 (H, W, 3) RGB, also of a grey image.

    Raises:
        arcface_cakd.data.DataError: it does not decode.
    """
    return NDArray(decode_image(bytes(buf)))


def _resize_short(src: NDArray, size: int, interp: int = 2) -> NDArray:
    """Resize (H, W, 3) so that the shorter side is ``size`` pixels; ``interp`` as in OpenCV, whose
    2 is bicubic."""
    import cv2

    height, width = src.shape[:2]
    if height > width:
        new = (size, size * height // width)
    else:
        new = (size * width // height, size)
    return NDArray(cv2.resize(src.asnumpy(), new, interpolation=interp))


def _transpose(data: NDArray, axes=None) -> NDArray:
    """Reorder the axes; turn them round where ``axes`` are not given."""
    return NDArray(np.transpose(data._values, axes))


def _flip(data: NDArray, axis) -> NDArray:
    """Reverse the order along ``axis``, a number or several."""
    return NDArray(np.flip(data._values, axis))


image = SimpleNamespace(imdecode=_imdecode, resize_short=_resize_short)
ndarray = nd = SimpleNamespace(NDArray=NDArray, transpose=_transpose, flip=_flip)
gluon = SimpleNamespace(data=SimpleNamespace(Dataset=_Dataset))
