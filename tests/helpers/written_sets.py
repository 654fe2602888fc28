"""What is in a record set that was written, read without the code under test."""

from dataclasses import dataclass, field

import numpy as np

from arcface_cakd.recordio import MXIndexedRecordIO, unpack


@dataclass
class Shown:
    """Its images in the order of their keys, and what stands beside them."""

    labels: list[int] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    heading: str = ""
    landmarks: np.ndarray | None = None

    def people(self) -> dict[str, list[bytes]]:
        """Images by the name of who they show."""
        found: dict[str, list[bytes]] = {}
        for label, image in zip(self.labels, self.images, strict=True):
            found.setdefault(self.names.get(label, str(label)), []).append(image)
        return found


def shown(folder) -> Shown:
    found = Shown()
    reader = MXIndexedRecordIO(folder / "train.idx", folder / "train.rec", "r")
    for key in sorted(reader.keys):
        header, image = unpack(reader.read_idx(key))
        if image:
            found.labels.append(int(np.ravel(header.label)[0]))
            found.images.append(image)
    if (folder / "labels.tsv").exists():
        heading, *rows = (folder / "labels.tsv").read_text("utf-8").rstrip("\n").split("\n")
        found.heading = heading.split("\t")[1]
        found.names = {int(label): name for label, name in (row.split("\t") for row in rows)}
    if (folder / "train_landmarks.npy").exists():
        found.landmarks = np.load(folder / "train_landmarks.npy")
    return found
