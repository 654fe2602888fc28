"""Preservation: what keeps a prompted teacher discriminative."""

from collections.abc import Callable
from typing import Annotated, Literal

from torch import Tensor, nn

from arcface_cakd.config import Range
from arcface_cakd.losses.base import LossError
from arcface_cakd.losses.embedding_cosine_loss import embedding_cosine_loss
from arcface_cakd.registry import SECTIONS


@SECTIONS.register("preservation")
class Preservation(nn.Module):
    """Keeps the prompted teacher a good recogniser while its prompts move.

    That it stays discriminative is promised by Zhao et al. (ACM MM 2023, APT); how could not be
    recovered, so both kinds are choices of this project.

    Args:
        kind: ``"embedding"``, mean of 1 - cos(prompted, unprompted), which costs a second
            forward of the teacher; or ``"margin"``, ArcFace (s = 64, m = 0.5) of the prompted
            embeddings over the teacher's own class centres, which it needs.
        weight: weight of the term.

    Attributes:
        needs_unprompted: whether ``forward`` uses the unprompted embedding.
        needs_centers: whether ``forward`` uses the teacher's margin softmax head.
    """

    def __init__(
        self,
        *,
        kind: Literal["embedding", "margin"] = "embedding",
        weight: Annotated[float, Range(0.0)] = 64.0,
    ):
        super().__init__()
        self.kind = kind
        self.weight = weight
        self.needs_unprompted = kind == "embedding"
        self.needs_centers = kind == "margin"

    def forward(
        self,
        prompted: Tensor,
        unprompted: Tensor | None = None,
        labels: Tensor | None = None,
        teacher_fc: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The loss, not weighted: a scalar.

        Args:
            prompted: (B, E_T) embeddings of the prompted teacher.
            unprompted: (B, E_T) of the same images without prompts; no gradient reaches it.
            labels: (B,) int64.
            teacher_fc: (embeddings, labels) -> scalar, a Partial FC that holds the teacher's
                frozen class centres.

        Raises:
            LossError: what the kind needs is not there.
        """
        if self.needs_centers:
            if teacher_fc is None or labels is None:
                raise LossError(
                    "preservation of kind 'margin' needs labels and the teacher's class centres: "
                    "set cakd.teacher.centers, or kind='embedding'"
                )
            return teacher_fc(prompted, labels)
        if unprompted is None:
            raise LossError("preservation of kind 'embedding' needs the unprompted embedding")
        return embedding_cosine_loss(prompted, unprompted.detach())
