"""What tells one network from another: its weights, and the code that computes with them."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from arcface_cakd.backbones.base import FaceBackbone
from arcface_cakd.backbones.onnx_teacher import OnnxTeacher

# Of FaceBackbone's file when it last computed otherwise: renewed where it does so again. It is the
# base of every network, and each change of its checks and words would cost every cache.
_BASE = "847fd4fbd8649a6c367298d1f3a9b92ca3b9d8b10cb218618b184b5a9260b871"
_BLOCK = 1 << 20  # bytes of a file that are read at once


def weights_digest(network: nn.Module) -> str:
    """SHA-256, in hex, of a network's state dict, or of an ``OnnxTeacher``'s files.

    The same on every device and in every memory format; another one for another precision.
    """
    found = hashlib.sha256()
    if isinstance(network, OnnxTeacher):
        for path in onnx_files(Path(network.path)):
            with open(path, "rb") as file:
                while block := file.read(_BLOCK):
                    found.update(block)
    for name, tensor in sorted(network.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        found.update(values.view(torch.uint8).numpy())
    return found.hexdigest()


def source_digest(network: nn.Module, factory: Callable | None = None) -> str:
    """SHA-256, in hex, of the source files that define a network's modules and their bases.

    Those of torch and of Python itself are left out; a class without a source file counts by its
    name.

    Args:
        network: whose modules count.
        factory: what built it. Its file counts too, as it may choose numbers that no weight tells,
            such as heads; one of this package does not.
    """
    classes = {
        kind
        for module in network.modules()
        for kind in type(module).__mro__
        if kind.__module__.split(".")[0] not in ("torch", "builtins", "abc", "typing")
    }
    sources = [_source(kind) for kind in classes - {FaceBackbone}]
    if factory is not None:
        sources += _sources_of(factory)
    found = {hashlib.sha256(source).hexdigest() for source in sources}
    if FaceBackbone in classes:
        found.add(_BASE)
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()


def _source(kind: Any) -> bytes:
    try:
        return Path(inspect.getfile(kind)).read_bytes()
    except (TypeError, OSError):
        return kind.__qualname__.encode()


def _sources_of(factory: Callable) -> Iterator[bytes]:
    factory = inspect.unwrap(factory)
    while isinstance(factory, functools.partial):
        yield repr(_told((*factory.args, factory.keywords))).encode()
        factory = inspect.unwrap(factory.func)
    if not (inspect.isroutine(factory) or inspect.isclass(factory)):
        factory = type(factory)
    if factory.__module__.split(".")[0] != __name__.split(".")[0]:
        yield _source(factory)


def _told(argument: Any) -> Any:
    """What an argument says of itself in every process: no address."""
    if isinstance(argument, dict):
        return sorted((name, _told(value)) for name, value in argument.items())
    if isinstance(argument, list | tuple):
        return [_told(value) for value in argument]
    if isinstance(argument, str | bytes | int | float | complex | None):
        return argument
    kind = argument if hasattr(argument, "__qualname__") else type(argument)
    return f"{kind.__module__}.{kind.__qualname__}"


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of an ONNX file: of the graph, of branches and functions, of attributes."""
    for _, value in message.ListFields():
        # A field is a number or text, a message, or several of one kind.
        items = value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else ()
        for item in items or (value,):
            if hasattr(item, "ListFields"):
                if item.DESCRIPTOR.name == "TensorProto":
                    yield item
                else:
                    yield from _tensors(item)
            else:
                break


def onnx_files(path: Path) -> list[Path]:
    """An ONNX file, and those that hold its tensors where it does not."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    beside = {
        entry.value
        for tensor in _tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path, *(path.parent / name for name in sorted(beside))]
