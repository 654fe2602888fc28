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
class Outcome:
    """What became of a photograph.

    Attributes:
        faces: that were found in it.
        crops: that were made of them.
        reason: for which there is none, None where there is one.
    """

    faces: int = 0
    crops: list[Crop] = field(default_factory=list)
    reason: str | None = None

    @property
    def kind(self) -> str | None:
        """The reason without what is particular to the photograph."""
        return self.reason and self.reason.split(":")[0]

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, entry: dict) -> "Outcome":
        return cls(entry["faces"], [Crop(**crop) for crop in entry["crops"]], entry["reason"])
