"""Folders around an exported ``.onnx`` file, each for what loads it there."""

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from arcface_cakd.export.errors import ExportError
from arcface_cakd.files import put_folder_in_place, scratch_folder


class Bundle(ABC):
    """A folder that holds a student as ``.onnx``, and what else something needs to run it.

    Args:
        folder: where to; there must be nothing, or an empty folder other than the current one,
            for it is replaced.

    Attributes:
        MODEL: the student's name in it.
        folder: see above.

    Raises:
        ExportError: something is there, or it is the current folder.
    """

    MODEL: ClassVar[str] = "recognition.onnx"

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        place = self._place
        if place.exists() and place.samefile(os.curdir):
            raise ExportError(
                f"output {folder} is the current folder, which would be replaced: name a new one "
                f"in it, as {self.folder / 'new'}"
            )
        try:
            vacant = not os.path.lexists(place) or (
                place.is_dir() and not place.is_symlink() and not os.listdir(place)
            )
        except OSError as error:
            raise ExportError(f"output {folder} cannot be read: {error.strerror}") from error
        if not vacant:
            raise ExportError(
                f"output {folder} is there and is no empty folder: name another, or remove it"
            )

    @property
    def _place(self) -> Path:
        return Path(os.path.abspath(self.folder))  # "." has no place beside it

    @contextlib.contextmanager
    def filled(self) -> Iterator[Path]:
        """Yield a folder to fill with files, which then stand in ``folder`` together.

        Raises:
            ExportError: it cannot be written.
        """
        try:
            with scratch_folder(self._place) as scratch:
                yield scratch
                put_folder_in_place(scratch, self._place)
        except OSError as error:
            raise ExportError(
                f"output {self.folder} cannot be written: {error.strerror}"
            ) from error

    @abstractmethod
    def complete(self, filled: Path, about: Mapping[str, str]) -> str:
        """Add what belongs to the student, and see that it is whole.

        Args:
            filled: the folder, for the time being; the student is in it.
            about: what its file says of itself, by key.

        Returns:
            A line for the user: how it is run.

        Raises:
            ExportError: what belongs to it does not fit.
        """
