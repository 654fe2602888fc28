"""Pickles from strangers, read without executing anything of theirs."""

import codecs
import io
import pickle
from typing import Any

import numpy as np

from arcface_cakd.data.errors import DataError


def load_plain(data: bytes) -> Any:
    """Unpickle lists, tuples, dicts, bytes, strings, numbers, bools and arrays of them.

    Arrays of objects come out as lists.

    Strings of Python 2 come out as bytes.

    Raises:
        DataError: the pickle asks for anything else.
        Exception: of any kind, where the pickle is cut or damaged.
    """
    return _plain(_Unpickler(io.BytesIO(data), encoding="bytes").load())


class _Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _STAND_INS:
            raise DataError(f"the pickle asks for {module}.{name}: do not trust this file")
        return _Callable(_STAND_INS[module, name])


class _DType:
    """Stands in for ``numpy.dtype``, whose own unpickling trusts its input."""

    def __init__(self, name, *_):
        dtype = np.dtype(name.decode("ascii") if isinstance(name, bytes) else name)
        if dtype.kind not in "biufSO":
            raise DataError(f"the pickle holds an array of {dtype}, which no set needs")
        self.dtype = dtype

    def __setstate__(self, state):
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class _Array:
    """Stands in for ``numpy.ndarray``."""

    def __init__(self, *_):
        self.array: np.ndarray | list = np.zeros(0, dtype=np.uint8)

    def __setstate__(self, state):
        _, shape, dtype, is_fortran, raw = state
        if dtype.dtype.kind == "O":  # whose elements are pickled like any others
            if not isinstance(raw, list) or len(shape) != 1:
                raise DataError("the pickle holds a table of objects, which no set needs")
            self.array = raw
            return
        self.array = _from_buffer(raw, dtype, shape, "F" if is_fortran else "C")


def _from_buffer(raw, dtype, shape, order) -> np.ndarray:
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order=order)


def _scalar(dtype, raw):
    return np.frombuffer(raw, dtype.dtype, count=1)[0]


class _Callable:
    """What a pickle may call, and nothing else: it could set attributes of a function or class."""

    __slots__ = ("_make",)

    def __init__(self, make):
        self._make = make

    def __call__(self, *args):
        return self._make(*args)

    def __setstate__(self, state):
        raise DataError("the pickle changes what it calls: do not trust this file")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How protocols below 3 spell bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise DataError(f"the pickle asks for codec {str(encoding)[:20]!r}, which no set needs")
    return codecs.latin_1_encode(text)[0]


_STAND_INS = {
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): bytes,
    ("builtins", "bytearray"): bytearray,
    ("__builtin__", "bytearray"): bytearray,  # its module in protocols below 3
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
}
for _core in ("numpy.core", "numpy._core"):  # its names before and since numpy 2
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _Array
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _from_buffer


def _plain(value):
    """``value`` with arrays in place of what stood in for them."""
    if isinstance(value, _Array):
        return _plain(value.array)
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value
