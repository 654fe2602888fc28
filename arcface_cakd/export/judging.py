"""Accuracy of an exported file beside its original's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from arcface_cakd.data import VerificationSet
from arcface_cakd.evaluation import evaluate_set
from arcface_cakd.export.errors import ExportError


@dataclass(frozen=True)
class Accuracies:
    """10-fold accuracies on one set, in percent."""

    original: float
    exported: float

    @property
    def loss(self) -> float:
        """In points; negative where the file is the better one."""
        return self.original - self.exported


class Judge:
    """Judges exported files on verification sets; for ``export_model``.

    Args:
        original: the backbone that is exported.
        sets: by name.
        max_loss: points of accuracy that may be lost on each of them; None: any.

    Attributes:
        accuracies: of the last file that was judged, by set.
    """

    def __init__(
        self,
        original: nn.Module,
        sets: Mapping[str, VerificationSet],
        max_loss: float | None = None,
    ):
        self._sets = sets
        self._max_loss = max_loss
        self._original = {name: _percent(original, pairs) for name, pairs in sets.items()}
        self.accuracies: dict[str, Accuracies] = {}

    def __call__(self, exported: Callable[[Tensor], Tensor]) -> None:
        """Raises:
        ExportError: it loses more than is allowed.
        """
        self.accuracies = {
            name: Accuracies(self._original[name], _percent(exported, pairs))
            for name, pairs in self._sets.items()
        }
        for name, found in self.accuracies.items():
            if self._max_loss is not None and not found.loss <= self._max_loss:
                raise ExportError(
                    f"on {name} the file has {found.exported:.2f} %, {found.loss:.2f} points less "
                    f"than the original's {found.original:.2f} %; at most {self._max_loss:g} are "
                    "allowed: nothing is written"
                )


def _percent(model: Callable[[Tensor], Tensor], pairs: VerificationSet) -> float:
    return 100 * evaluate_set(model, pairs).accuracy
