"""Accuracy of an exported file beside its original's."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from arcface_cakd.evaluation import Embedder, VerificationResult
from arcface_cakd.evaluation.protocols import BinPairs
from arcface_cakd.evaluation.uncertainty import DRAWS
from arcface_cakd.export.errors import ExportError


class Judge:
    """Judges exported files on verification sets; for ``export_model``.

    Args:
        original: the backbone that is exported.
        paths: folders of ``.bin`` sets, and sets.
        max_loss: points of accuracy that may be lost on each of them; None: any.
        draws: of people or pairs, for the intervals; 0: none.

    Attributes:
        original: what the backbone reaches, by set, with intervals.
        exported: what the last file that was judged reaches.

    Raises:
        EvaluationError, DataError: sets that are not there, or cannot be judged.
    """

    def __init__(
        self,
        original: nn.Module,
        paths: Sequence[Path],
        max_loss: float | None = None,
        draws: int = DRAWS,
    ):
        self._protocol = BinPairs(paths)
        self._max_loss = max_loss
        self._draws = draws
        self.original: dict[str, VerificationResult] = self._judged(original)
        self.exported: dict[str, VerificationResult] = {}

    @property
    def sets(self) -> list[Path]:
        """The files that are judged on."""
        return list(self._protocol.sets.values())

    def __call__(self, exported: Callable[[Tensor], Tensor]) -> None:
        """Judge a file.

        Raises:
            ExportError: it loses more than is allowed.
        """
        self.exported = self._judged(exported)
        for name, loss in self.losses().items():
            if self._max_loss is not None and not loss <= self._max_loss:
                found = 100 * self.exported[name].accuracy
                raise ExportError(
                    f"on {name} the file has {found:.2f} %, {loss:.2f} points less than its "
                    f"original; at most {self._max_loss:g} are allowed (--max-loss): nothing is "
                    "written"
                )

    def _judged(self, model: Callable[[Tensor], Tensor]) -> dict[str, VerificationResult]:
        return self._protocol.judge(Embedder(model), self._draws)

    def losses(self) -> dict[str, float]:
        """Points of accuracy lost, by set; negative where the file is the better one."""
        return {
            name: 100 * (self.original[name].accuracy - found.accuracy)
            for name, found in self.exported.items()
        }
