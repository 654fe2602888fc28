"""Which runtime a file is for, by its ending."""

import os
from pathlib import Path

from arcface_cakd.runtimes.base import ExportedModel, RuntimeProblem
from arcface_cakd.runtimes.litert import LiteRtModel
from arcface_cakd.runtimes.ncnn import NcnnModel
from arcface_cakd.runtimes.onnx import OnnxExported
from arcface_cakd.runtimes.openvino import OpenVinoModel

ENDINGS: dict[str, type[ExportedModel]] = {
    ".onnx": OnnxExported,
    ".tflite": LiteRtModel,
    ".ncnn.param": NcnnModel,
    ".xml": OpenVinoModel,
}


def ending_of(path: str | os.PathLike) -> str | None:
    """The ending of ``ENDINGS`` that a path has, in capitals or not, or None."""
    name = Path(path).name.lower()
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def installed() -> list[str]:
    """The endings whose runtimes are installed."""
    return [ending for ending, model in ENDINGS.items() if model.installed()]


def files_of(path: str | os.PathLike) -> list[Path]:
    """All files of the exported model at ``path``; see ``open_exported``."""
    return _model_of(path).files(Path(path))


def open_exported(path: str | os.PathLike, threads: int = 0) -> ExportedModel:
    """An exported model, in its own runtime.

    Args:
        path: with an ending of ``ENDINGS``.
        threads: of one run; 0 leaves that to the runtime.

    Raises:
        RuntimeProblem: an ending that no runtime here is for, and as ``ExportedModel``.
    """
    return _model_of(path)(path, threads)


def _model_of(path: str | os.PathLike) -> type[ExportedModel]:
    ending = ending_of(path)
    if ending is None:
        raise RuntimeProblem(
            f"model {path} is of no format that runs here: its name must end in "
            f"{', '.join(ENDINGS)}"
        )
    return ENDINGS[ending]
