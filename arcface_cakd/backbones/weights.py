"""Weights in files: plain state dicts, read whole and fitting, or not at all."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from arcface_cakd.backbones._base import BackboneError
from arcface_cakd.files import atomic_path

_DDP_PREFIX = "module."
_NAMED = 3  # keys of each kind that a message spells out
_PROBES = (2, 3)  # embedding widths whose shapes are compared to see which depend on the width


class WeightsError(BackboneError):
    """Weights that cannot be read or do not fit; the message names the file and the keys."""


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU.

    The file is read with ``weights_only=True``: it cannot run code. Where every key starts with
    ``module.``, as DistributedDataParallel writes them, that prefix is dropped.

    Raises:
        WeightsError: no such file, one that is cut or damaged, or no state dict in it.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"weights {path}: no such file; give the model.pt of a finished run")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise WeightsError(f"weights {path} cannot be read: {error.strerror}") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(
            f"weights {path} cannot be read: the file is cut, damaged, or holds more than "
            f"tensors; copy it again, or save it with torch.save(model.state_dict(), path) "
            f"({type(error).__name__}: {reason})"
        ) from error
    if not isinstance(state, Mapping) or not len(state):
        raise WeightsError(
            f"weights {path} hold a {type(state).__name__}, not a state dict with tensors in it; "
            "give a model.pt, as torch.save(model.state_dict(), path) writes it"
        )
    odd = [str(k) for k, v in state.items() if not (isinstance(k, str) and _is_plain(v))]
    if odd:
        raise WeightsError(
            f"weights {path} hold no plain state dict (not dense tensors: {_some(odd)}); give a "
            "model.pt, as torch.save(model.state_dict(), path) writes it"
        )
    if all(key.startswith(_DDP_PREFIX) for key in state):
        state = {key.removeprefix(_DDP_PREFIX): value for key, value in state.items()}
    return dict(state)


def copy_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a state dict into a model, all of it or nothing.

    Args:
        model: any module.
        state: must have exactly the model's keys and shapes; floating-point values may be of
            another precision.
        source: what to call the weights in messages.

    Raises:
        WeightsError: keys that are missing, unexpected, of another shape or kind, or whose
            values are not finite. The model is as it was.
    """
    own = model.state_dict()
    faults = []
    missing = [key for key in own if key not in state]
    if missing:
        faults.append(f"{len(missing)} missing ({_some(missing)})")
    unexpected = [key for key in state if key not in own]
    if unexpected:
        faults.append(f"{len(unexpected)} unexpected ({_some(unexpected)})")
    shared = [key for key in own if key in state]
    reshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in shared
        if state[key].shape != own[key].shape
    ]
    if reshaped:
        faults.append(f"{len(reshaped)} of another shape ({_some(reshaped)})")
    retyped = [
        f"{key} {state[key].dtype} instead of {own[key].dtype}"
        for key in shared
        if state[key].dtype != own[key].dtype
        and not (state[key].is_floating_point() and own[key].is_floating_point())
    ]
    if retyped:
        faults.append(f"{len(retyped)} of another type ({_some(retyped)})")
    if faults:
        raise WeightsError(
            f"{source} do not fit {type(model).__name__}, which has {len(own)} keys: "
            f"{', '.join(faults)}; give the network and width that they were saved from"
        )
    broken = [key for key in shared if not torch.isfinite(state[key]).all()]
    if broken:
        raise WeightsError(
            f"{source} are not finite in {len(broken)} keys ({_some(broken)}); "
            "they come from a run that diverged: use an earlier checkpoint"
        )
    model.load_state_dict(state)


def load_weights(model: nn.Module, path: str | os.PathLike) -> None:
    """Load a ``model.pt`` into a model, strictly; a failure leaves the model as it was.

    Raises:
        WeightsError: the file cannot be read (see ``read_weights``), or its weights do not fit
            (see ``copy_weights``).
    """
    copy_weights(model, read_weights(path), f"weights {path}")


def save_weights(model: nn.Module, path: str | os.PathLike) -> None:
    """Write a model's state dict, as arcface_torch's scripts load it, atomically.

    Keys, shapes and module versions are those of ``torch.save(model.state_dict(), path)``;
    the tensors are on the CPU and contiguous, whatever device and memory format the model uses.

    Raises:
        WeightsError: the file cannot be written, as on a full disk; a former one stays.
    """
    state = model.state_dict()
    for key, value in state.items():
        state[key] = value.cpu().contiguous()
    with atomic_path(path) as partial:
        try:
            torch.save(state, partial)
        except RuntimeError as error:  # how torch reports a write that failed
            raise WeightsError(f"{path} cannot be written: free space on its disk") from error


def embedding_size_of(state: Mapping[str, Tensor], build: Callable[[int], nn.Module]) -> int | None:
    """The width E of the embedding for which weights were saved.

    Args:
        state: a state dict, as ``read_weights`` gives it.
        build: makes the network for an embedding of given width, as
            ``lambda width: get_model("mbf", num_features=width)``.

    Returns:
        the width, read off the shapes that depend on it; None where they do not agree on one or
        are not there.
    """
    one, other = (_shapes(build, width) for width in _PROBES)
    widths = set()
    for key, shape in one.items():
        if key not in state or state[key].dim() != len(shape):
            continue
        for axis, (size, grown) in enumerate(zip(shape, other[key], strict=True)):
            if (size, grown) == _PROBES:
                widths.add(state[key].shape[axis])
    return widths.pop() if len(widths) == 1 else None


def _shapes(build: Callable[[int], nn.Module], width: int) -> dict[str, torch.Size]:
    try:
        with torch.device("meta"):  # shapes only: no memory, no random numbers
            model = build(width)
    except Exception:  # a user's network may compute with numbers while it is built
        model = build(width)
    return {key: value.shape for key, value in model.state_dict().items()}


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
