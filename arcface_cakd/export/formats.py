"""What every format is to ``export_model``."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from arcface_cakd.export.errors import ExportError
from arcface_cakd.export.parity import Reference
from arcface_cakd.extras import check_extra
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.registry import did_you_mean

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Request:
    """What a file is to be.

    Attributes:
        precision: one of ``PRECISIONS``.
        opset: of the ONNX operators, where the format has them.
        tolerance: how far from torch's an embedding may be, of its length.
        expected: faces and torch's embeddings of them.
        calibration: uint8 (N, 112, 112, 3) RGB, faces to find the ranges of activations with;
            none of ``expected``. None where the precision needs none.
        about: what the file says of itself, by key.
    """

    precision: str
    opset: int
    tolerance: float
    expected: Sequence[Reference]
    calibration: np.ndarray | None = None
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        ending: of its files' names; of several files, that of the one which names the model.
        precisions: those that it has, of ``PRECISIONS``.
        converter: the package that writes it, by its import name.
        write: writes a model (in eval mode, float32, on the CPU) to a path, and returns what
            there is to say of it, by name: fields of ``ExportReport``.
        runs_here: whether there is a runtime for it here, by which it is compared with torch.
        calibrated: those of its precisions whose ranges are found on faces.
        weights_only: those of its precisions that only weights have; arithmetic is float32.
        any_batch: whether it takes any number of faces at once, or one.
        opsets: by precision, those of the ONNX operators that it is written at, where it has any.
    """

    ending: str
    precisions: tuple[str, ...]
    converter: str
    write: Callable[[nn.Module, Path, Request], dict[str, Any]]
    runs_here: bool = True
    calibrated: tuple[str, ...] = ()
    weights_only: tuple[str, ...] = ()
    any_batch: bool = False
    opsets: Mapping[str, range] = field(default_factory=dict)

    def check(self, precision: str, *, opset: int, with_faces: bool, judged: bool) -> None:
        """See, before any work, that such a file can be written here.

        Args:
            precision: that of the file.
            opset: of the ONNX operators, where the format has them.
            with_faces: whether there are some to find ranges and compare on.
            judged: whether it is to be judged before it is in its place.

        Raises:
            ExportError: the format has no such precision, not without faces or at no such opset,
                or does not run here, and is to be.
            MissingPackageError: the converter is not installed.
        """
        if precision not in self.precisions:
            raise ExportError(
                f"{self.ending} files have no precision {precision!r}; "
                f"{did_you_mean(precision, self.precisions)}"
            )
        if precision in self.calibrated and not with_faces:
            raise ExportError(
                f"{precision} needs faces to calibrate with: give some by --calibrate"
            )
        written = self.opsets.get(precision, (opset,))
        if opset not in written:
            raise ExportError(
                f"opset {opset}: {self.ending} files in {precision} are written at {written[0]} to "
                f"{written[-1]}: choose one of these"
            )
        if judged and not self.runs_here:
            raise ExportError(
                f"{self.ending} files do not run here and cannot be judged: judge an .onnx file of "
                "the same weights"
            )
        if with_faces and not self.runs_here:
            raise ExportError(
                f"{self.ending} files do not run here, so there is nothing to compare on faces: "
                "drop --calibrate"
            )
        check_extra(self.converter, "mobile", f"writing {self.ending} files")

    @property
    def shapes(self) -> tuple[str, str]:
        """Those of its input and its output, in words."""
        batch = "N" if self.any_batch else "1"
        return f"({batch}, 3, {CROP_SIZE}, {CROP_SIZE})", f"({batch}, E)"

    def in_words(self, precision: str) -> str:
        """A precision, and what has it where that is not all of the file."""
        return f"{precision} (weights)" if precision in self.weights_only else precision


def format_of(path: str | os.PathLike, formats: Sequence[Format]) -> Format:
    """The format that a file's name asks for.

    Raises:
        ExportError: none.
    """
    for known in formats:
        if Path(path).name.endswith(known.ending):
            return known
    endings = ", ".join(known.ending for known in formats)
    raise ExportError(f"output {path} must end in one of {endings}: the name says the format")
