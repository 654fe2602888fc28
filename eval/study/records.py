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
from arcface_cakd.evaluation.protocols.bins import people_of
from arcface_cakd.files import write_text

RUNS = Path(__file__).parent / "runs"
FIGURES = {"1-auc": one_minus_auc, "accuracy": accuracy, "tar@far=0.01": tar_at_one_percent}
ON_LISTED = {"accuracy"}  # figures on the pairs of the .bin alone, which are of both kinds evenly
_STEPS = 65535  # cosines are kept as 16-bit numbers; the figures are those of what is kept


@dataclass(frozen=True)
class PairSet:
    """A .bin set as the study scores it: each image once, and more pairs of two people.

    Attributes:
        images: (N, 112, 112, 3) uint8, every image of the set once.
        places: (P, 2) int, the two images of each pair.
        people: who is on the pairs.
        listed: how many of the pairs, the first ones, are those of the .bin.
        sha256: of the .bin, its first 16 digits.
    """

    images: np.ndarray
    places: np.ndarray
    people: People
    listed: int
    sha256: str

    @classmethod
    def read(cls, folder: Path, name: str, negatives: int = 1) -> "PairSet":
        """<name>.bin and <name>_people.tsv.

        Args:
            folder: where they are.
            name: of the set.
            negatives: pairs of two people for each pair of one person; what the .bin lacks of
                them is drawn from its images, see ``more_negatives``.

        Raises:
            DataError: the set cannot be read.
            StudyError: the people of its pairs are not there.
            EvaluationError: they contradict the set.
        """
        encoded, issame = load_bin(folder / f"{name}.bin")
        who = people_of(folder / f"{name}.bin", issame)
        if not isinstance(who, People):
            raise StudyError(
                f"{folder / name}_people.tsv: no such file, which must have a line for each pair, "
                "the two people's names with a tab between: make the set with eval/study's "
                "builders, or write it"
            )
        persons = who.persons
        place = {image: k for k, image in enumerate(dict.fromkeys(encoded))}
        places = np.array([place[image] for image in encoded]).reshape(-1, 2)
        whose = np.zeros(len(place), dtype=np.int64)
        whose[places] = persons
        wanted = negatives * np.count_nonzero(issame) - np.count_nonzero(~issame)
        drawn = more_negatives(places, whose, wanted)
        places, persons = np.concatenate([places, drawn]), np.concatenate([persons, whose[drawn]])
        return cls(
            images=np.stack([decode_crop(image) for image in place]),
            places=places,
            people=People(persons[:, 0] == persons[:, 1], persons),
            listed=len(issame),
            sha256=hashlib.sha256((folder / f"{name}.bin").read_bytes()).hexdigest()[:16],
        )

    def cosines(self, embeddings: np.ndarray) -> np.ndarray:
        """(P,) of the pairs, of embeddings (N, E) of the images."""
        units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        one, other = units[self.places[:, 0]], units[self.places[:, 1]]
        return np.einsum("ij,ij->i", one, other)


def more_negatives(places: np.ndarray, whose: np.ndarray, wanted: int) -> np.ndarray:
    """Pairs of images of two people, none twice and none that is listed; always the same ones.

    A .bin has few such pairs: what chance there is in their choice costs more of what can be
    seen than the people do, and a FAR of 0.01 rests on a handful. Images of the same people are
    there to make more of them.

    Args:
        places: (P, 2) int, the images of the listed pairs.
        whose: (N,) int, the person on each image.
        wanted: how many; fewer where there are not so many.

    Returns:
        (M, 2) int.
    """
    one, other = np.triu_indices(len(whose), 1)
    listed = np.sort(places, axis=1)
    known = np.isin(one * len(whose) + other, listed[:, 0] * len(whose) + listed[:, 1])
    free = np.flatnonzero((whose[one] != whose[other]) & ~known)
    order = np.random.default_rng(2026).permutation(len(free))[: max(wanted, 0)]
    return np.stack([one[free[order]], other[free[order]]], axis=1)


def scored(pairs: PairSet, cosines: np.ndarray) -> dict[str, Any]:
    """What a record says of one set: its digest, the figures, and the scores of its pairs."""
    kept = unpacked_scores(packed_scores(cosines))
    figures = {}
    for name, figure in FIGURES.items():
        upto = pairs.listed if name in ON_LISTED else len(kept)
        judged = PairScores(kept[:upto], pairs.people.issame[:upto])
        figures[name] = rounded(float(figure(judged, None)[0]))
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
    persons = base64.b64encode(pairs.people.persons.astype("<u2").tobytes()).decode()
    now = {"bin": pairs.sha256, "listed": pairs.listed, "persons": persons}
    if not path.is_file():
        write_text(path, json.dumps(now) + "\n")
    elif json.loads(path.read_text(encoding="utf-8")) != now:
        raise StudyError(
            f"{path} is of other pairs than {name}.bin ({pairs.sha256}) gives: the data are "
            "frozen; build them anew by eval/study/README.md, or keep runs elsewhere"
        )


def read_people(runs: Path, data: str, name: str) -> tuple[People, int, str]:
    """Who is on the pairs of a set, how many of them are the .bin's, and the digest of that.

    Raises:
        StudyError: it is not kept.
    """
    path = runs / data / "pairs" / f"{name}.json"
    if not path.is_file():
        raise StudyError(f"{path}: no such file: no cell of {data} has been run into {runs}")
    kept = json.loads(path.read_text(encoding="utf-8"))
    persons = np.frombuffer(base64.b64decode(kept["persons"]), dtype="<u2").astype(np.int64)
    persons = persons.reshape(-1, 2)
    return People(persons[:, 0] == persons[:, 1], persons), kept["listed"], kept["bin"]


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
