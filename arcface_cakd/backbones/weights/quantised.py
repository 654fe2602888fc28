"""State dicts of dynamically quantised networks, as EdgeFace publishes two, in float again."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_PACKED = "._packed_params._packed_params"  # (quantised weight, bias or None) of a linear layer
_BESIDE = ("._packed_params.dtype", ".scale", ".zero_point")  # of the activations: not needed


def dequantised(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict with every dynamically quantised linear layer as an ordinary one.

    Its weight is the rounded one that the quantised layer multiplies with, in float32; what it
    would round of its input is not rounded any more. All else comes back as it is.

    Args:
        state: of a model that went through torch's ``quantize_dynamic``, or any other.
    """
    places = {key.removesuffix(_PACKED) for key in state if _is_packed(key, state[key])}
    if not places:
        return dict(state)
    plain: dict[str, Any] = {}
    for key, value in state.items():
        place = next((p for end in (_PACKED, *_BESIDE) if (p := key.removesuffix(end)) != key), "")
        if place not in places:
            plain[key] = value
        elif key.endswith(_PACKED):
            weight, bias = value
            plain[f"{place}.weight"] = weight.dequantize()
            if bias is not None:
                plain[f"{place}.bias"] = bias.detach()
    return plain


def _is_packed(key: str, value: object) -> bool:
    return (
        isinstance(key, str)
        and key.endswith(_PACKED)
        and isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], Tensor)
        and value[0].is_quantized
    )
