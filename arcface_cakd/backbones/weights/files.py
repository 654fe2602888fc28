"""Files of weights: what is in them, as plain state dicts."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from arcface_cakd.backbones.weights.description import check_description
from arcface_cakd.backbones.weights.errors import WeightsError
from arcface_cakd.backbones.weights.foreign import of_adaface, why_foreign
from arcface_cakd.backbones.weights.hub import HUB, from_hub
from arcface_cakd.backbones.weights.quantised import dequantised
from arcface_cakd.tensor_files import DamagedFile, load_tensors

logger = logging.getLogger("arcface_cakd")

_DDP_PREFIX = "module."
_NAMED = 3  # keys of each kind that a message spells out
_LONGEST_NAME = 100  # characters
_NESTED = ("state_dict", "model")  # where timm's and Microsoft's checkpoints keep the state dict
_IN_FOLDER = ("model.safetensors", "pretrained_model/model.pt")  # as CVLface lays them out
_SETTINGS_IN_FOLDER = ("config.json", "pretrained_model/model.yaml", "model.yaml")
_BGR = re.compile(r"""color_space["']?\s*:\s*["']?BGR""", re.IGNORECASE)


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU.

    No file can run code: torch's are read with ``weights_only=True``. A state dict under the
    checkpoint's key ``state_dict`` or ``model``, as timm and Microsoft's Swin write it, is taken
    from there. Where every key starts with ``module.``, as DistributedDataParallel writes them,
    that prefix is dropped. Linear layers that were dynamically quantised come back in float.

    Args:
        path: a file of torch's (``model.pt``) or a ``.safetensors`` file, or a folder as CVLface
            has them on Hugging Face, with ``model.safetensors`` or ``pretrained_model/model.pt``,
            or ``hf:<owner>/<name>`` for what is on the Hub, see ``from_hub``.

    Raises:
        WeightsError: the Hub does not give them, no such file, one that is cut or damaged or that
            the ``model.json`` beside it is not of, no state dict in it (a whole model, a
            TorchScript archive), or one of a model that takes BGR images: AdaFace's, or where
            CVLface's settings, in the folder, beside the file or in the folder above it, say so.
    """
    if os.fspath(path).startswith(HUB):
        path = from_hub(os.fspath(path), _SETTINGS_IN_FOLDER)
    if not os.fspath(path):
        raise WeightsError("weights '': no path at all; give the model.pt of a finished run")
    path = Path(path)
    if path.is_dir():
        path = _in_folder(path)
    elif path.is_file():
        folder = path.absolute().parent
        _refuse_bgr(path, folder, folder.parent)
    if not path.is_file():
        raise WeightsError(f"weights {path}: no such file; give the model.pt of a finished run")
    check_description(path)
    try:
        state = _load(path)
    except PermissionError as error:
        raise WeightsError(f"weights {path} cannot be read: {error.strerror}") from error
    except ImportError as error:
        raise WeightsError(
            f"weights {path} need the package safetensors: pip install safetensors"
        ) from error
    except UnicodeEncodeError as error:
        raise WeightsError(
            f"weights {path} cannot be opened: the path is no UTF-8: rename the file or its folder"
        ) from error
    except DamagedFile as error:
        raise WeightsError(
            f"weights {path} cannot be read: the file is cut or damaged: {error}; copy it again"
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        if foreign := why_foreign(path):
            raise WeightsError(f"weights {path} {foreign}") from error
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(
            f"weights {path} cannot be read: the file is cut, damaged, or holds more than "
            f"tensors; copy it again, or save it with torch.save(model.state_dict(), path) "
            f"({type(error).__name__}: {reason})"
        ) from error
    if isinstance(state, Mapping):
        nested = [key for key in _NESTED if isinstance(state.get(key), Mapping)]
        if nested:
            _say_what_is_left_out(path, nested[0], state)
            state = state[nested[0]]
        if foreign := of_adaface(state):
            raise WeightsError(f"weights {path} {foreign}")
    if not isinstance(state, Mapping) or not len(state):
        raise WeightsError(
            f"weights {path} hold a {type(state).__name__}, not a state dict with tensors in it; "
            "give a model.pt, as torch.save(model.state_dict(), path) writes it"
        )
    state = dequantised(state)
    odd = [str(k) for k, v in state.items() if not (isinstance(k, str) and _is_plain(v))]
    if odd:
        raise WeightsError(
            f"weights {path} hold no plain state dict (not dense tensors: {some(odd)}); give a "
            "model.pt, as torch.save(model.state_dict(), path) writes it"
        )
    if all(key.startswith(_DDP_PREFIX) for key in state):
        state = {key.removeprefix(_DDP_PREFIX): value for key, value in state.items()}
    return dict(state)


def some(names: list[str]) -> str:
    """The first few of ``names``, for a message of one line, whatever a file has for names."""
    short = [" ".join(name.split())[:_LONGEST_NAME] for name in names[:_NAMED]]
    return ", ".join(short) + (", ..." if len(names) > _NAMED else "")


def _in_folder(folder: Path) -> Path:
    _refuse_bgr(folder, folder)
    for name in _IN_FOLDER:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(
        f"weights {folder}: a folder, and no such file in it as {' or '.join(_IN_FOLDER)}; give "
        "the model.pt of a finished run"
    )


def _refuse_bgr(weights: Path, *folders: Path) -> None:
    """Refuse weights where CVLface's settings in one of the folders say that they are for BGR."""
    for settings in (folder / name for folder in folders for name in _SETTINGS_IN_FOLDER):
        try:
            text = settings.read_bytes().decode(errors="replace") if settings.is_file() else ""
        except OSError:  # a folder above that is not ours to read
            continue
        if _BGR.search(text):
            raise WeightsError(
                f"weights {weights}: {settings} says that this model takes BGR images, and ours "
                "are RGB: take a model for RGB"
            )


def _load(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    # Mapped, so that what does not fit a network is refused before it takes memory.
    return load_tensors(path, mapped=True)


def _say_what_is_left_out(path: Path, taken: str, checkpoint: Mapping) -> None:
    """Other weights in a checkpoint, such as averaged ones, are not taken: a line says so."""
    left = [
        str(key)
        for key, value in checkpoint.items()
        if key != taken and isinstance(value, Mapping) and len(value) > 1
        if all(isinstance(entry, Tensor) for entry in value.values())
    ]
    if left:
        logger.info(
            "weights %s: taken are those under %r; the file also has %s: to take others, save them "
            "alone with torch.save",
            path,
            taken,
            some(left),
        )


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
    )
