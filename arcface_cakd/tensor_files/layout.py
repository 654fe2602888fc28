"""What a pickle of tensors asks for, known before any of it is made.

A file names the size of each storage and tensor in its pickle, and torch believes it: it allocates,
and in a zip reads, as many bytes, whether the file has them or not.
"""

import math
import pickle
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

_ITEM_SIZES = {
    **{"ComplexDoubleStorage": 16, "ComplexFloatStorage": 8, "DoubleStorage": 8, "LongStorage": 8},
    **{"FloatStorage": 4, "IntStorage": 4, "QInt32Storage": 4},
    **{"HalfStorage": 2, "BFloat16Storage": 2, "ShortStorage": 2},
}  # and 1
# What makes tensors of a size, without a storage of that size; no state dict has them.
_REFUSED = (
    *("builtins.bytearray", "__builtin__.bytearray", "torch._utils._rebuild_wrapper_subclass"),
    *("torch._utils._rebuild_device_tensor_from_numpy", "torch._utils._rebuild_nested_tensor"),
)
_DEEPEST = 32  # tuples in tuples: hashing one goes down them all, and further than the stack


class Readable(Protocol):
    """A file that reads no more than it has: a buffered one makes room for all that is asked."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self) -> bytes: ...


class AsksTooMuch(pickle.UnpicklingError):
    """A pickle that asks for more than its file has; the message says what of."""


def storages_of(file: Readable) -> dict[str, int]:
    """The bytes of each storage, by its key, that the pickle at this place of a file asks for.

    Nothing is run, and nothing of these sizes made; the file is read up to the pickle's end.

    Raises:
        AsksTooMuch: a tensor is larger than its storage, repeats it (a stride of 0), or has no
            storage.
        UnpicklingError: the pickle is damaged.
    """
    found = _Measuring(file)
    try:
        found.load()
    except AsksTooMuch:
        raise
    except Exception as error:  # of any kind, where it is damaged
        raise pickle.UnpicklingError(f"no pickle of tensors: {error}") from error
    return found.storages


class _Storage:
    def __init__(self, count: int):
        self.count = count

    def __setstate__(self, state):
        raise AsksTooMuch("it changes a storage")


class _Tensor:
    """Stands in for what makes a tensor of a storage."""

    def __call__(self, storage: Any, offset: int, size: tuple, stride: Any, *rest: Any) -> None:
        if not isinstance(storage, _Storage):
            raise AsksTooMuch("a tensor without a storage")
        numbers = (*size, *stride)
        if len(size) != len(stride) or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise AsksTooMuch("a tensor whose size and strides make no sense")
        repeats = any(step == 0 and length > 1 for length, step in zip(size, stride, strict=True))
        if repeats or math.prod(size) > storage.count:
            raise AsksTooMuch(
                f"a tensor {str(tuple(size))[:60]} with strides {str(tuple(stride))[:60]} of a "
                f"storage of {storage.count} numbers"
            )

    def __setstate__(self, state):
        raise AsksTooMuch("it changes what it calls")


class _Anything(dict):
    """Stands in for whatever a pickle asks for, and takes whatever is done to it."""

    def __new__(cls, *args, **options):
        return super().__new__(cls)

    def __init__(self, *args, **options):
        super().__init__()

    def __setstate__(self, state):
        pass

    def append(self, item):
        pass

    def extend(self, items):
        pass


class _Measuring(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Python's own unpickler in Python, whose memo takes no more than what is put in it."""

    dispatch: ClassVar[dict[int, Callable]] = dict(
        pickle._Unpickler.dispatch  # type: ignore[attr-defined]
    )
    stack: list

    def __init__(self, file: Readable):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, int] = {}
        self._depths: dict[int, int] = {}
        self._tuples: list[tuple] = []  # kept, for the numbers of dead ones are given anew

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _REFUSED:
            raise AsksTooMuch(f"it asks for {full}, which no state dict needs")
        if full.startswith("torch._utils._rebuild_") and full.endswith(("tensor_v2", "tensor_v3")):
            return _Tensor()
        if full in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_qtensor"):
            return _Tensor()
        kind = type(name, (_Anything,), {})
        kind.item_size = _ITEM_SIZES.get(name, 1)  # type: ignore[attr-defined]
        return kind

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] != "storage":
            return None
        _, kind, key, _, count, *_ = pid
        if not isinstance(count, int) or count < 0:
            raise AsksTooMuch(f"a storage of {str(count)[:20]} numbers")
        size = count * getattr(kind, "item_size", 1)
        self.storages[str(key)] = max(size, self.storages.get(str(key), 0))
        return _Storage(count)

    def _note_depth(self) -> None:
        made = self.stack[-1]
        depth = 1 + max((self._depths.get(id(item), 0) for item in made), default=0)
        if depth > _DEEPEST:
            raise AsksTooMuch(f"tuples in tuples, more than {_DEEPEST} deep")
        self._depths[id(made)] = depth
        self._tuples.append(made)


def _noting(load: Callable) -> Callable:
    def load_and_note(unpickler: _Measuring) -> None:
        load(unpickler)
        unpickler._note_depth()

    return load_and_note


# It makes as many bytes as it names, and torch does not know it.
del _Measuring.dispatch[pickle.BYTEARRAY8[0]]
for _opcode in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    _Measuring.dispatch[_opcode[0]] = _noting(_Measuring.dispatch[_opcode[0]])
