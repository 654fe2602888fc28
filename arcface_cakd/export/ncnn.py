"""``.ncnn.param`` and ``.ncnn.bin``, by pnnx."""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from arcface_cakd.export.errors import ExportError
from arcface_cakd.export.formats import Format, Request
from arcface_cakd.export.parity import faces
from arcface_cakd.silence import quiet


def _write(model: nn.Module, file: Path, request: Request) -> dict[str, Any]:
    import pnnx

    example = faces(1)
    with tempfile.TemporaryDirectory() as folder:
        traced = Path(folder) / "model.pt"  # pnnx names its files by it
        with quiet(), torch.no_grad():
            torch.jit.trace(model, example).save(str(traced))
        shape = str(list(example.shape)).replace(" ", "")
        half = int(request.precision == "fp16")
        done = subprocess.run(
            [pnnx.EXEC_PATH, str(traced), f"inputshape={shape}", f"fp16={half}"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        made = {kind: traced.with_suffix(f".ncnn.{kind}") for kind in ("param", "bin")}
        if done.returncode or not all(part.is_file() for part in made.values()):
            raise ExportError(f"pnnx fails: {(done.stderr or done.stdout)[-200:]}")
        made["param"].rename(file)
        made["bin"].rename(file.with_suffix(".bin"))
    return {}


NCNN = Format(".ncnn.param", ("fp32", "fp16"), "pnnx", _write, weights_only=("fp16",))
