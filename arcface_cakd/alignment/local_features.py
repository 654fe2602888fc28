"""What URFM gives: the local features of one side, and of both."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LocalFeatures:
    """One side's local features, float32.

    Attributes:
        h: (B, L, d) local features, one for each local centre.
        attended: (B, L, d), MSA(h).
        attention: (B, heads, L, L), the softmax maps of that MSA.
        lookup: (B, heads, L, N + t), where each local centre looks: its attention over the
            patches, then the prompts that count as tokens. Detached.
    """

    h: Tensor
    attended: Tensor
    attention: Tensor
    lookup: Tensor

    def detach(self) -> "LocalFeatures":
        """The same values without their graph."""
        parts = (self.h, self.attended, self.attention, self.lookup)
        return LocalFeatures(*(part.detach() for part in parts))


@dataclass(frozen=True)
class Alignment:
    """What the alignment losses compare, and what the anchoring holds fast.

    Attributes:
        student: the student's local features.
        teacher: the teacher's.
        anchored: (B, L, d), MSA(h) of the teacher, from which ``Anchoring`` predicts: the values
            of ``teacher.attended``, but their gradient reaches the teacher-side parameters.
    """

    student: LocalFeatures
    teacher: LocalFeatures
    anchored: Tensor
