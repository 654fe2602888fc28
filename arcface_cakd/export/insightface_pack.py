"""A folder that ``insightface.app.FaceAnalysis`` loads: a detector, and the student behind it."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from arcface_cakd.export.bundle import Bundle
from arcface_cakd.export.errors import ExportError
from arcface_cakd.silence import quiet

_DETECTOR = "detection.onnx"


class InsightFacePack(Bundle):
    """``recognition.onnx`` and ``detection.onnx``, as ``FaceAnalysis`` has a model pack.

    It finds out by itself what each file is for, by inputs and outputs, and aligns each face
    that the detector finds by ``insightface.utils.face_align``.

    Args:
        folder: where to, see ``Bundle``.
        detector: an ``.onnx`` file of one of insightface's packs, as buffalo_l's
            ``det_10g.onnx``.

    Raises:
        ExportError: something is at ``folder``, or no file at ``detector``.
    """

    def __init__(self, folder: str | os.PathLike, detector: str | os.PathLike):
        super().__init__(folder)
        if not Path(detector).is_file():
            raise ExportError(f"detector {detector}: no such file")
        self._detector = Path(detector)

    def complete(self, filled: Path, about: Mapping[str, str]) -> str:
        """Copy the detector, and see that ``FaceAnalysis`` takes both; see ``Bundle``."""
        from insightface.app import FaceAnalysis

        shutil.copyfile(self._detector, filled / _DETECTOR)
        try:
            with quiet():
                models = FaceAnalysis(str(filled), providers=["CPUExecutionProvider"]).models
        except Exception as error:  # of onnxruntime, of protobuf; an assertion where it has none
            reason = " ".join(str(error).split())[:200] or "it finds none in it"
            raise ExportError(
                f"insightface does not take {self._detector} for a detector ({reason}): give that "
                "of one of its packs, as det_10g.onnx of buffalo_l"
            ) from error
        if not getattr(models["detection"], "use_kps", False):
            raise ExportError(
                f"detector {self._detector} finds no landmarks, by which faces are aligned: give "
                "another, as det_10g.onnx of buffalo_l"
            )
        found = models.get("recognition")
        if found is None or Path(found.model_file).name != self.MODEL:
            raise ExportError(f"insightface does not take {self.MODEL} for a recognition model")
        return f"insightface.app.FaceAnalysis({str(self.folder)!r}) loads it"
