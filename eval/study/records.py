"""What the study keeps of a run, one JSON each; pairs' scores, and who is on the pairs."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from grid import Cell, StudyError

from arcface_cakd.data.bins import load_bin
from arcface_cakd.data.images import decode_crop
from arcface_cakd.evaluation import (
    PairScores,
    People,
    accuracy,
    one_minus_auc,
    tar_at_one_percent,
)
from arcface_cakd.files import write_text

RUNS = Path(__file__).parent / "runs"
FIGURES = {"1-auc": one_minus_auc, "accuracy": accuracy, "tar@far=0.01": tar_at_one_percent}
_STEPS = 65535  # cosines are kept as 16-bit numbers; the figures are those of what is kept


@dataclass(frozen=True)
class PairSet:
    """A .bin set as the study scores it: each image once.

    Attributes:
        images: (N, 112, 112, 3) uint8, every image of the set once.
        places: (P, 2) int, the two images of each pair.
        people: who is on the pairs.
        sha256: of the .bin, its first 16 digits.
    """

    images: np.ndarray
    places: np.ndarray
    people: People
    sha256: str

    @classmethod
    def read(cls, folder: Path, name: str) -> "PairSet":
        """<name>.bin and <name>_people.tsv.

        Raises:
            DataError: the set cannot be read.
            StudyError: the people of its pairs are not there.
            EvaluationError: they contradict the set.
        """
        encoded, issame = load_bin(folder / f"{name}.bin")
        tsv = folder / f"{name}_people.tsv"
        if not tsv.is_file():
            raise StudyError(
                f"{tsv}: no such file, which must have a line for each pair, the two people's "
                "names with a tab between: make the set with eval/study's builders, or write it"
            )
        couples = [line.split("\t") for line in tsv.read_text(encoding="utf-8").splitlines()]
        names = sorted({name for couple in couples for name in couple})
        number = {name: k for k, name in enumerate(names)}
        persons = np.array([[number[name] for name in couple] for couple in couples])
        place = {image: k for k, image in enumerate(dict.fromkeys(encoded))}
        return cls(
            images=np.stack([decode_crop(image) for image in place]),
            places=np.array([place[image] for image in encoded]).reshape(-1, 2),
            people=People(issame, persons),
            sha256=hashlib.sha256((folder / f"{name}.bin").read_bytes()).hexdigest()[:16],
        )

    def cosines(self, embeddings: np.ndarray) -> np.ndarray:
        """(P,) of the pairs, of embeddings (N, E) of the images."""
        units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        one, other = units[self.places[:, 0]], units[self.places[:, 1]]
        return np.einsum("ij,ij->i", one, other)


def scored(pairs: PairSet, cosines: np.ndarray) -> dict[str, Any]:
    """What a record says of one set: its digest, the figures, and the scores of its pairs."""
    kept = unpacked_scores(packed_scores(cosines))
    judged = PairScores(kept, pairs.people.issame)
    figures = {name: rounded(float(figure(judged, None)[0])) for name, figure in FIGURES.items()}
    return {"bin": pairs.sha256, "figures": figures, "scores": packed_scores(cosines)}


def packed_scores(cosines: np.ndarray) -> str:
    """Cosines as text: base64 of 16-bit little-endian steps from -1 to 1."""
    steps = np.rint((np.clip(cosines, -1, 1) + 1) / 2 * _STEPS).astype("<u2")
    return base64.b64encode(steps.tobytes()).decode()


def unpacked_scores(text: str) -> np.ndarray:
    """(P,) float64, within 2e-5 of what ``packed_scores`` was given."""
    return np.frombuffer(base64.b64decode(text), dtype="<u2") / _STEPS * 2 - 1


def write_people(runs: Path, data: str, name: str, pairs: PairSet) -> None:
    """Keep who is on the pairs of a set, as numbers: a table is made without the images.

    Raises:
        StudyError: another set of that name is kept already.
    """
    path = runs / data / "pairs" / f"{name}.json"
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))["bin"]
        if kept != pairs.sha256:
            raise StudyError(
                f"{path} is of another {name}.bin ({kept}, this one is {pairs.sha256}): the data "
                "are frozen; build them anew by eval/study/README.md, or keep runs elsewhere"
            )
        return
    persons = base64.b64encode(pairs.people.persons.astype("<u2").tobytes()).decode()
    text = json.dumps({"bin": pairs.sha256, "pairs": len(pairs.places), "persons": persons})
    write_text(path, text + "\n")


def read_people(runs: Path, data: str, name: str) -> tuple[People, str]:
    """Who is on the pairs of a set, and the digest of the .bin.

    Raises:
        StudyError: it is not kept.
    """
    path = runs / data / "pairs" / f"{name}.json"
    if not path.is_file():
        raise StudyError(f"{path}: no such file: no cell of {data} has been run into {runs}")
    kept = json.loads(path.read_text(encoding="utf-8"))
    persons = np.frombuffer(base64.b64decode(kept["persons"]), dtype="<u2").astype(np.int64)
    persons = persons.reshape(-1, 2)
    return People(persons[:, 0] == persons[:, 1], persons), kept["bin"]


def record_path(runs: Path, cell: Cell) -> Path:
    return runs / cell.data / cell.method / f"{cell.seed}.json"


def read_record(runs: Path, cell: Cell) -> dict[str, Any] | None:
    """What is kept of a cell, None where it has not been run."""
    path = record_path(runs, cell)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_record(runs: Path, cell: Cell, record: Mapping[str, Any]) -> None:
    write_text(record_path(runs, cell), json.dumps(record, indent=1) + "\n")


def records(runs: Path, data: str) -> dict[Cell, dict[str, Any]]:
    """Everything that is kept of some data, by cell."""
    found = {}
    for path in sorted((runs / data).glob("*/*.json")):
        if path.parent.name != "pairs" and path.stem.isdecimal():
            cell = Cell(data, path.parent.name, int(path.stem))
            found[cell] = json.loads(path.read_text(encoding="utf-8"))
    return found


def rounded(value: Any, digits: int = 6) -> Any:
    """Numbers to so many significant digits, in nested dicts and lists too."""
    if isinstance(value, Mapping):
        return {key: rounded(inner, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner, digits) for inner in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{digits}g}")
    return value
