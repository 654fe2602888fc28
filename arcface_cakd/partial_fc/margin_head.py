"""What losses use of a margin softmax head, whoever wrote it."""

from typing import Protocol

from torch import Tensor


class MarginHead(Protocol):
    """A margin softmax over class centres, of which it holds this rank's shard.

    ``PartialFC`` is one, and so is arcface_torch's ``PartialFC_V2``. One that samples classes
    has, after a forward pass, also ``weight_index``: the rows of its shard that took part.

    Attributes:
        class_start: the first class of the shard.
        num_local: classes in the shard.
        sample_rate: share of the classes that take part in a step, 1 for all.
    """

    class_start: int
    num_local: int
    sample_rate: float

    @property
    def weight(self) -> Tensor:
        """(num_local, E), the class centres."""
