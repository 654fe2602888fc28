"""A model as protocols see it: faces in, embeddings that can be judged out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from arcface_cakd.evaluation.embedding import Faces, check_finite, embed, unit, warn_of_zeros
from arcface_cakd.evaluation.errors import EvaluationError

# Unit embeddings that lie no further apart than this, in every component, are rounding's.
_NOISE = 1e-6


@dataclass(frozen=True)
class Embedder:
    """Embeds faces with one model, the mirror image's embedding added.

    Attributes:
        backbone: as ``embed`` takes it, and ``batch_size`` and ``device`` with it.
        batch_size: see ``backbone``.
        device: see ``backbone``.
    """

    backbone: Callable[[Tensor], Tensor]
    batch_size: int = 128
    device: str | torch.device | None = None

    def __call__(self, faces: Faces, description: str = "embedding") -> np.ndarray:
        """Embeddings (N, E) float64 of faces, not normalised.

        Raises:
            EvaluationError: see ``embed``, ``check_finite`` and ``check_different``.
            DataError: a face cannot be read.
        """
        found = embed(self.backbone, faces, self.batch_size, self.device, description=description)
        check_finite(found)
        check_different(found)
        warn_of_zeros(found, description)
        return found

    def part(self, faces: Faces, part: slice, description: str) -> np.ndarray:
        """Embeddings of some of many faces; nobody asks whether they are all the same.

        Raises:
            EvaluationError: see ``embed`` and ``check_finite``.
            DataError: a face cannot be read.
        """
        found = embed(
            self.backbone, faces[part], self.batch_size, self.device, description=description
        )
        check_finite(found)
        warn_of_zeros(found, description)
        return found


def check_different(embeddings: np.ndarray) -> None:
    """Refuse embeddings (N, E) that are all the same, which any figure would flatter.

    Raises:
        EvaluationError: there are several, and all of one direction.
    """
    if len(embeddings) < 2:
        return
    units = unit(embeddings)
    if np.ptp(units, axis=0).max() <= _NOISE:
        raise EvaluationError(
            f"all {len(embeddings)} embeddings are the same: the model tells nobody apart; "
            "give one that was trained, of the network that it was trained as"
        )
