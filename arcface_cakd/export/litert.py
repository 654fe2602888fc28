"""``.tflite``, by litert-torch: float32, or weights in int8."""

from pathlib import Path
from typing import Any

from torch import nn

from arcface_cakd.export.formats import Format, Request
from arcface_cakd.export.parity import faces
from arcface_cakd.silence import quiet


def _write(model: nn.Module, file: Path, request: Request) -> dict[str, Any]:
    with quiet():  # its dependencies print while they are imported
        import litert_torch

        litert_torch.convert(model, (faces(1),)).export(str(file))
        if request.precision == "int8":
            _int8_weights(file)
    return {}


def _int8_weights(file: Path) -> None:
    """Weights in int8 per channel, arithmetic in float32: a quarter of the size."""
    from ai_edge_quantizer import quantizer, recipe

    work = quantizer.Quantizer(str(file))
    work.load_quantization_recipe(recipe.weight_only_wi8_afp32())
    work.quantize().export_model(str(file), overwrite=True)


LITERT = Format(".tflite", ("fp32", "int8"), "litert_torch", _write, weights_only=("int8",))
