"""``.xml`` and ``.bin``, by OpenVINO's own converter."""

from pathlib import Path
from typing import Any

from torch import nn

from arcface_cakd.export.formats import Format, Request
from arcface_cakd.export.parity import faces
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.silence import quiet


def _write(model: nn.Module, file: Path, request: Request) -> dict[str, Any]:
    import openvino

    with quiet():
        converted = openvino.convert_model(
            model, example_input=faces(1), input=[-1, 3, CROP_SIZE, CROP_SIZE]
        )
        for key, value in request.about.items():
            converted.set_rt_info(value, ["arcface_cakd", key])
        openvino.save_model(converted, str(file), compress_to_fp16=request.precision == "fp16")
    return {}


OPENVINO = Format(
    ".xml", ("fp32", "fp16"), "openvino", _write, weights_only=("fp16",), any_batch=True
)
