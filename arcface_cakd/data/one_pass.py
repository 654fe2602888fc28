"""Every image of a training set once, as it is, in the order of the keys."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.images import CROP, decode_crop
from arcface_cakd.data.loader import FaceImages
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.recordio import RecordIOError


class OnePass:
    """Iterates over some images in order, none of them flipped; no random number is drawn.

    Yields ``(images, labels)``: uint8 (B, 112, 112, 3) RGB and int64 (B,), the last batch shorter.

    Args:
        images: of the training set.
        positions: of the images in it, in the order in which they come.
        batch_size: B.
        num_workers: processes that read and decode; 0 does it in this one.

    Raises:
        RecordIOError, DataError: while iterating, see ``FaceLoader``.
    """

    def __init__(
        self, images: FaceImages, positions: Sequence[int], batch_size: int, num_workers: int = 0
    ):
        chunks = _Chunks(images, positions, batch_size)
        self._loader = DataLoader(
            chunks,
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
                raise batch
            yield batch


class _Chunks(Dataset):
    def __init__(self, images: FaceImages, positions: Sequence[int], size: int):
        self._images, self._positions, self._size = images, positions, size

    def __len__(self) -> int:
        return -(-len(self._positions) // self._size)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor] | ArcfaceCakdError:
        positions = self._positions[number * self._size : (number + 1) * self._size]
        pixels = np.empty((len(positions), *CROP), dtype=np.uint8)
        labels = np.empty(len(positions), dtype=np.int64)
        for i, position in enumerate(positions):
            try:
                encoded, labels[i] = self._images.encoded(position)
                pixels[i] = decode_crop(encoded, out=pixels[i])
            except RecordIOError as error:
                return error  # raised in a worker, it would come out as many lines
            except DataError as error:
                return DataError(f"{self._images.describe(position)}: {error}")
        return torch.from_numpy(pixels), torch.from_numpy(labels)
