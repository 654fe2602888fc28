"""Pickles from strangers, read without executing anything of theirs."""

import codecs
import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from arcface_cakd.data.errors import DataError

# What pickled lists, tuples, bytes, numbers and arrays consist of, in every protocol.
_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2"),
    *("LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "LIST"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
}

_SHOWN = 80
_ODD_FRAME = "a frame of the pickle ends where no opcode does"


def load_plain(data: bytes) -> Any:
    """Unpickle lists, tuples, bytes, strings, numbers, bools and arrays of them.

    Arrays of objects come out as lists, at the top, one below it, and one below that. Strings of
    Python 2 come out as bytes. The pickle takes no more memory than a few times its length.

    Raises:
        DataError: the pickle asks for anything else, or for more than it has.
        Exception: of any kind, where the pickle is cut or damaged.
    """
    end = _check_opcodes(data)
    if end != len(data):
        raise DataError(f"there are {len(data) - end} bytes behind the pickle's end: damaged")
    return _plain(_Unpickler(data).load(), levels=3, done={})


def _check_opcodes(data: bytes) -> int:
    """Look through a pickle before any of it is done; where it ends.

    Dicts and sets are among what is refused: to hash a tuple of tuples of tuples goes down them
    all, and further than the stack. An unpickler makes room for the highest place in its memo,
    and where a frame ends within an opcode's argument, C's takes another argument than is here.

    Raises:
        DataError: it has opcodes that no set needs, or numbers its memo beyond what it holds.
        ValueError: it is cut, an argument is longer than what is left, or a frame ends where no
            opcode does.
    """
    end, frame_end = 0, None
    for number, (opcode, argument, place) in enumerate(pickletools.genops(data)):
        assert place is not None  # of bytes it is known
        end = place + 1
        if place == frame_end:
            frame_end = None
        if frame_end is not None and (place > frame_end or opcode.name == "FRAME"):
            raise ValueError(_ODD_FRAME)
        if opcode.name == "FRAME":
            assert isinstance(argument, int)
            frame_end = place + 9 + argument
        if opcode.name not in _OPCODES:
            raise DataError(f"the pickle has {opcode.name}, which no set needs: do not trust it")
        puts = opcode.name in ("PUT", "BINPUT", "LONG_BINPUT")
        if puts and not (isinstance(argument, int) and 0 <= argument <= number):
            raise DataError(f"the pickle numbers its {number} steps {argument}: do not trust it")
    if frame_end not in (None, end):
        raise ValueError(_ODD_FRAME)
    return end  # behind the last opcode, which has no argument


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="bytes")
        # Bytes that calls may make: protocols below 3 spell a bytearray as bytes, and those as a
        # text.
        self._left = 2 * len(data)

    def find_class(self, module, name):
        if (module, name) in _MAKERS_OF_BYTES:
            return _Callable(self._bytes_by(_MAKERS_OF_BYTES[module, name]))
        if (module, name) not in _STAND_INS:
            asked = f"{module}.{name}"[:_SHOWN]  # which may be anything, of any length
            raise DataError(f"the pickle asks for {asked!r}: do not trust this file")
        return _Callable(_STAND_INS[module, name])

    def _bytes_by(self, make):
        def make_within_limits(*args):
            self._left -= sum(len(arg) for arg in args[:1])  # a number, as for zeros, has none
            if self._left < 0:
                raise DataError("the pickle makes more of its bytes than it has: do not trust it")
            return make(*args)

        return make_within_limits


class _DType:
    """Stands in for ``numpy.dtype``, whose own unpickling trusts its input."""

    def __init__(self, name, *_):
        dtype = np.dtype(name.decode("ascii") if isinstance(name, bytes) else str(name))
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


def _bytearray(content: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    return bytearray(_encode(content, encoding) if isinstance(content, str) else content)


_MAKERS_OF_BYTES = {
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): bytes,
    ("builtins", "bytearray"): _bytearray,
    ("__builtin__", "bytes"): bytes,  # their module in protocols below 3
    ("__builtin__", "bytearray"): _bytearray,
}
_STAND_INS: dict[tuple[str, str], Callable] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
}
for _core in ("numpy.core", "numpy._core"):  # its names before and since numpy 2
    _STAND_INS[f"{_core}.multiarray", "_reconstruct"] = _Array
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _from_buffer


def _plain(value, levels: int, done: dict):
    """``value`` with arrays in place of what stood in for them, so many levels down.

    Each list is gone through once: it may be in another many times, and that in a third.

    Args:
        value: what was unpickled, which lives until this is done.
        levels: how far down to look; a list may hold itself.
        done: what became of a list, by its identity and level.
    """
    if isinstance(value, _Array):
        value = value.array
    if levels == 1 or not isinstance(value, list | tuple):
        return value
    if (id(value), levels) not in done:
        plain = type(value)(_plain(item, levels - 1, done) for item in value)
        done[id(value), levels] = plain
    return done[id(value), levels]
