"""``.mlpackage``, by coremltools: for Apple's systems, which alone run it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from arcface_cakd.export.formats import Format, Request
from arcface_cakd.export.parity import faces
from arcface_cakd.silence import quiet


def _write(model: nn.Module, file: Path, request: Request) -> dict[str, Any]:
    half = request.precision == "fp16"
    with quiet():  # it warns, while it is imported, of versions that it was not tested with
        import coremltools

        precision = coremltools.precision
        example = faces(1)
        with torch.no_grad():
            traced = torch.jit.trace(model, example)
        package = coremltools.convert(
            traced,
            inputs=[coremltools.TensorType("data", example.shape, np.float32)],
            outputs=[coremltools.TensorType("embedding", dtype=np.float32)],
            convert_to="mlprogram",
            compute_precision=precision.FLOAT16 if half else precision.FLOAT32,
            minimum_deployment_target=coremltools.target.iOS16,
            skip_model_load=True,
        )
        package.user_defined_metadata.update(request.about)
        package.save(str(file))
    return {}


COREML = Format(".mlpackage", ("fp32", "fp16"), "coremltools", _write, runs_here=False)
