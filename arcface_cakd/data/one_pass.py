"""Images of a training set in batches that are named beforehand, none of them flipped."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from arcface_cakd.data.reading import Views
from arcface_cakd.errors import ArcfaceCakdError


class OnePass:
    """Iterates over batches of images, in order; no random number is drawn.

    Yields ``(planes, labels)``: uint8 (B, 3, 112, 112) RGB and int64 (B,).

    Args:
        views: the training set.
        batches: of each batch the view, and the places (B,) of its images among the keys.
        num_workers: processes that read and decode; 0 does it in this one.

    Raises:
        RecordIOError, DataError: while iterating, see ``FaceLoader``.
    """

    def __init__(
        self, views: Views, batches: Sequence[tuple[int, np.ndarray]], num_workers: int = 0
    ):
        self._loader = DataLoader(
            _Unflipped(views, batches),
            batch_size=None,  # an item is a whole batch
            num_workers=num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # its own, or starting would draw from torch's
        )

    def __len__(self) -> int:
        """Batches."""
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            if isinstance(batch, ArcfaceCakdError):
                try:
                    raise batch
                finally:
                    del batch  # see ``FaceLoader``
            planes, labels = batch
            yield planes, labels


class _Unflipped(Dataset):
    def __init__(self, views: Views, batches: Sequence[tuple[int, np.ndarray]]):
        self._views, self._batches = views, batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor] | ArcfaceCakdError:
        view, positions = self._batches[number]
        try:
            planes, labels = self._views.read(positions, view, np.zeros(len(positions), bool))
        except ArcfaceCakdError as error:
            return error  # raised in a worker, it would come out as many lines
        return torch.from_numpy(planes), torch.from_numpy(labels)
