"""Files that hold weights and something else besides: what they are, and how to take them out."""

import pickletools
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch

_NAMED = 3
_MOST = 1 << 24  # bytes of a pickle that are looked through
# What a plain state dict asks for: its tensors and their storages.
_HARMLESS = (
    *("torch._utils.", "collections.OrderedDict", "torch.Float", "torch.Half", "torch.Double"),
    *("torch.BFloat16", "torch.Long", "torch.Int", "torch.Bool", "torch.Byte"),
)
# Of AdaFace's checkpoints: the class centres, and the first layer of its network.
_ADAFACE = ("head.kernel", "model.input_layer.0.weight")


def why_foreign(path: Path) -> str | None:
    """What a file is that ``torch.load`` refuses as weights, and what to do; None if not known.

    Nothing in it is run.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if any(name.endswith("/constants.pkl") for name in names):
                    return (
                        "are a TorchScript archive: take its weights out by torch.save(torch.jit."
                        f"load({str(path)!r}).state_dict(), 'weights.pt'), and give those"
                    )
                data = next((name for name in names if name.endswith("/data.pkl")), None)
                texts = b""
                if data is not None:
                    with archive.open(data) as file:
                        texts = file.read(_MOST)
            if all(key.encode() in texts for key in _ADAFACE):
                return of_adaface(_ADAFACE)
            asked = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        else:
            asked = _globals_of_old(path)
    except Exception:  # damaged files end in errors of every kind
        return None
    named = ", ".join(asked[:_NAMED]) + (", ..." if len(asked) > _NAMED else "")
    if any(name.startswith("torch.nn.modules.") for name in asked):
        return (
            f"hold a whole pickled model ({named}), which is read by running its code: where you "
            "trust it, take its weights out by torch.save(torch.load("
            f"{str(path)!r}, weights_only=False).state_dict(), 'weights.pt'), and give those"
        )
    if asked:
        return (
            f"hold more than tensors ({named}): where you trust the file, torch.load it with "
            "weights_only=False, and torch.save the state dict that is in it alone"
        )
    return None


def of_adaface(keys: Iterable[str]) -> str | None:
    """What to do where these keys are those of an AdaFace checkpoint, else None."""
    if not set(_ADAFACE) <= set(keys):
        return None
    return (
        "are an AdaFace checkpoint, whose network takes BGR images, and ours RGB ones: turn them "
        "to RGB once, as docs/config.md does under 'AdaFace'"
    )


def _globals_of_old(path: Path) -> list[str]:
    """What a file of torch before 1.6 asks for, of which a state dict needs some too."""
    found = []
    with open(path, "rb") as file:
        for _ in range(4):  # magic number, protocol, byte order, and then the object
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == "GLOBAL":
                    found.append(str(argument).replace(" ", "."))
    return sorted(name for name in set(found) if not name.startswith(_HARMLESS))
