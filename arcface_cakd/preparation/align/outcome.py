"""What becomes of a photograph."""

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Crop:
    """A crop that was made.

    Attributes:
        file: its path below the folder that is written, with slashes.
        bytes: of the file.
        landmarks: x and y of the five, pixels of the crop.
        box: x, y, width and height of the face, pixels of the photograph.
        score: of the detector, None where there was none.
        side: pixels of the photograph along a side of the crop.
    """

    file: str
    bytes: int
    landmarks: list[float]
    box: list[float]
    score: float | None
    side: float


@dataclass(frozen=True)
class LeftOut:
    """A photograph, or one of its faces, of which there is no crop.

    Attributes:
        reason: why.
        face: its number among those of the photograph, from 1, where all of them are taken.
    """

    reason: str
    face: int | None = None

    @property
    def kind(self) -> str:
        """The reason without what is particular to the photograph."""
        return self.reason.split(":")[0]

    def __str__(self) -> str:
        return self.reason if self.face is None else f"face {self.face}: {self.reason}"


@dataclass(frozen=True)
class Outcome:
    """What became of a photograph.

    Attributes:
        faces: that were found in it.
        crops: that were made of them.
        left_out: what there is no crop of: the photograph, or some of its faces.
    """

    faces: int = 0
    crops: list[Crop] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, entry: dict) -> "Outcome":
        crops = [Crop(**crop) for crop in entry["crops"]]
        if "left_out" not in entry:  # of a former version
            reason = entry["reason"]
            return cls(entry["faces"], crops, [] if reason is None else [LeftOut(reason)])
        return cls(entry["faces"], crops, [LeftOut(**each) for each in entry["left_out"]])
