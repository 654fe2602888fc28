"""insightface's own detectors, of the model packs that it downloads."""

from typing import Any

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.preparation.align.faces import Face

MODEL_PACK = "buffalo_l"


class InsightFaceModels:
    """The detector of one of insightface's model packs, as its ``FaceAnalysis`` runs it.

    insightface downloads the pack where it is not there (into ``~/.insightface``). The packs are
    for research that is not commercial, as their page says.

    Args:
        pack: name of a model pack, or a folder of one.
        min_score: that a face must have, 0 to 1.
        size: of the square that photographs are scaled to before it looks.
        analyser: what stands for a prepared ``FaceAnalysis``.

    Raises:
        DataError: there is no such pack, and it cannot be downloaded.
    """

    nothing = "no face was found"

    def __init__(
        self,
        pack: str = MODEL_PACK,
        min_score: float = 0.5,
        size: int = 640,
        analyser: Any = None,
    ):
        if not 0 < min_score < 1:
            raise DataError(f"a face's least score is {min_score}: it must be between 0 and 1")
        self._arguments = pack, min_score, size, analyser
        self._analyser = analyser or _prepared(pack, min_score, size)

    def faces(self, image: np.ndarray, name: str = "") -> list[Face]:
        """The faces of a photograph; see ``Detector``."""
        found = []
        for face in self._analyser.get(image):
            if face.kps is None:
                raise DataError(
                    f"{self._arguments[0]}: its detector finds no landmarks: take another pack"
                )
            left, top, right, bottom = (float(number) for number in face.bbox)
            found.append(
                Face(
                    np.asarray(face.kps, dtype=np.float32),
                    (left, top, right - left, bottom - top),
                    float(face.det_score),
                )
            )
        return found

    def description(self) -> dict[str, str | float | int]:
        """What its result hangs on; see ``Detector``."""
        import insightface

        pack, min_score, size, _ = self._arguments
        return {
            "detector": "insightface",
            "pack": pack,
            "min_score": min_score,
            "size": size,
            "insightface": insightface.__version__,
        }

    def __reduce__(self):
        return type(self), self._arguments


def _prepared(pack: str, min_score: float, size: int):
    from insightface.app import FaceAnalysis

    try:
        analyser = FaceAnalysis(name=pack, allowed_modules=["detection"])
        analyser.prepare(ctx_id=0, det_thresh=min_score, det_size=(size, size))
    except Exception as error:  # of a download, a ZIP file, onnxruntime
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise DataError(
            f"insightface's model pack {pack} cannot be loaded ({problem}): give the name of one "
            "that it can download, or a folder of its .onnx files, with --weights"
        ) from error
    return analyser
