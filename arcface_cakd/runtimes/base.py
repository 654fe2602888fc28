"""What every exported model is to its callers."""

import os
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.extras import check_extra, is_installed
from arcface_cakd.landmarks import CROP_SIZE

_HEAD = 200  # bytes of a file that say what it is


class RuntimeProblem(ArcfaceCakdError):
    """A file that its runtime does not run; the message says which."""


class ExportedModel(ABC):
    """A model in a file, run on the CPU by the runtime that the file is for.

    ``model(images)`` maps (B, 3, 112, 112) float32 in [-1, 1], RGB, to embeddings (B, E) float32
    on the CPU, whatever batches the file itself takes.

    Args:
        path: the file; of two, the one that describes the network.
        threads: of one run; 0 leaves that to the runtime.

    Attributes:
        RUNTIME: its name.
        PACKAGE: what must be importable.
        BESIDE: endings of the files that belong to it, in place of the path's own.
        BEGINNING: how the path's own file begins; anyhow where no others belong to it.

    Raises:
        MissingPackageError: the runtime is not installed.
        RuntimeProblem: there is no such file, or it does not hold a face recognition model.
    """

    RUNTIME: ClassVar[str]
    PACKAGE: ClassVar[str]
    BESIDE: ClassVar[tuple[str, ...]] = ()
    BEGINNING: ClassVar[re.Pattern[bytes]] = re.compile(b"")

    def __init__(self, path: str | os.PathLike, threads: int = 0):
        self.path = Path(path)
        for file in self.files(self.path):
            if not file.exists():
                raise RuntimeProblem(f"model {file}: no such file")
        check_extra(self.PACKAGE, "mobile", f"{self.path.name}, which {self.RUNTIME} runs,")
        try:
            self._load(threads)
            shape = self(torch.zeros(1, 3, CROP_SIZE, CROP_SIZE)).shape
        except RuntimeProblem:
            raise
        except Exception as error:  # each runtime has a family of its own
            raise RuntimeProblem(
                f"model {self.path} is no face recognition model that {self.RUNTIME} runs: "
                f"{one_line(error)}"
            ) from error
        self.embedding_size = int(shape[-1])

    @classmethod
    def installed(cls) -> bool:
        """Whether the runtime can be imported."""
        return is_installed(cls.PACKAGE)

    @classmethod
    def files(cls, path: Path) -> list[Path]:
        """All files of the model at ``path``."""
        return [path, *(path.with_suffix(ending) for ending in cls.BESIDE)]

    @classmethod
    def begins(cls, path: Path) -> bool:
        """Whether there is a file at ``path`` that begins as a model's does."""
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return cls.BEGINNING.match(file.read(_HEAD)) is not None

    def __call__(self, images: Tensor) -> Tensor:
        pixels = np.ascontiguousarray(images.detach().to("cpu", torch.float32).numpy())
        found = np.stack([self._embed(face) for face in pixels])
        return torch.from_numpy(found.astype(np.float32, copy=False))

    @abstractmethod
    def _load(self, threads: int) -> None:
        """Open the file."""

    @abstractmethod
    def _embed(self, face: np.ndarray) -> np.ndarray:
        """float32 (3, 112, 112) to (E,)."""


def one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
