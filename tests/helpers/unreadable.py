"""Folders that cannot be read, also for root."""

import errno
import os


def make_unreadable(monkeypatch, name: str) -> None:
    """Folders of that name cannot be listed, whoever asks."""
    scandir = os.scandir

    def refuse(path="."):
        if os.path.basename(path) == name:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
