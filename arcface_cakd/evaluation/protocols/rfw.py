"""RFW: one protocol on four groups of people, and how far apart a model is on them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from arcface_cakd.data.errors import DataError
from arcface_cakd.data.face_files import FaceFiles, image_sizes
from arcface_cakd.data.image_files import files_directly_in
from arcface_cakd.data.images import CROP
from arcface_cakd.data.text_lines import read_lines
from arcface_cakd.evaluation.embedder import Embedder
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.interval import Interval
from arcface_cakd.evaluation.protocols.base import Protocol, digest_of, judging, one_folder
from arcface_cakd.evaluation.protocols.bins import without_interval
from arcface_cakd.evaluation.resampling import People, accuracy
from arcface_cakd.evaluation.table import (
    INTERVALS,
    absent_notes,
    drawn_note,
    format_table,
    percent,
    verification_table,
)
from arcface_cakd.evaluation.uncertainty import DRAWS, figure_intervals, interval, pair_draws
from arcface_cakd.evaluation.verification import (
    VerificationResult,
    check_pairs,
    pair_distances,
    verification_metrics,
)
from arcface_cakd.registry import PROTOCOLS

logger = logging.getLogger("arcface_cakd")

_ALL = "all groups"


@dataclass(frozen=True)
class GroupGap:
    """How far apart a model is on groups of people.

    Attributes:
        mean: of the groups' accuracies, in [0, 1].
        std: their standard deviation, over the number of groups less one: the published "STD".
        skewed_error_ratio: the highest error over the lowest, "SER"; 1 is as good on every group.
            None where a group has no error. Source of both: Wang & Deng, "Mitigating bias in face
            recognition using skewness-aware reinforcement learning", CVPR 2020.
        intervals: by the name of the figure, people of every group drawn again.
        absent: why an interval that was asked for is not given, by ``intervals.<figure>``.
    """

    mean: float
    std: float
    skewed_error_ratio: float | None
    intervals: dict[str, Interval | None]
    absent: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Every figure, in types that JSON has."""
        return asdict(self)


@PROTOCOLS.register("rfw")
class Rfw(Protocol):
    """RFW, or groups of people in its layout: 10-fold accuracy by group, spread, skewed error.

    The layout is that of its ``test`` folder: ``data/<group>/<person>/<person>_0001.jpg``,
    ``txts/<group>/<group>_pairs.txt`` (``person i j``, or ``person i person j``, parted by tabs)
    and, for images that are no crops of 112 x 112, ``<group>_lmk.txt`` (image, label, five
    landmarks), by which they are aligned. Source: Wang et al., "Racial Faces in the Wild",
    ICCV 2019.
    """

    takes_targets = True
    has_roc = True

    def __init__(self, paths: Sequence[Path], targets: Sequence[str] | None = None):
        folder = one_folder(paths, "data/ and txts/ of RFW's test folder")
        inner = folder / "test"
        self.folder = inner if inner.is_dir() else folder
        there = _groups_in(self.folder / "txts")
        if not there:
            raise DataError(
                f"{self.folder}: no txts/<group>/<group>_pairs.txt in it, as RFW's test folder has"
            )
        for name in targets or []:
            if name not in there:
                raise DataError(
                    f"{self.folder}: no group {name!r} in it; there: {', '.join(there)}"
                )
        if _ALL in there:
            raise DataError(f"{self.folder}: a group cannot be called {_ALL!r}: rename its folders")
        self.groups = {name: _Group(self.folder, name) for name in targets or there}

    def judge(self, embedder: Embedder, draws: int = DRAWS) -> dict[str, Any]:
        results: dict[str, Any] = {}
        drawn = {}
        for number, (name, group) in enumerate(self.groups.items()):
            with judging(self.folder / "data" / name):
                embeddings = embedder(group.faces, name)[group.places.ravel()]
                result = verification_metrics(embeddings, group.people.issame)
            cosines = 1 - pair_distances(embeddings) / 2
            try:
                drawn[name] = pair_draws(cosines, group.people, accuracy, draws, number)
            except EvaluationError as error:
                results[name], drawn[name] = without_interval(result, error), None
                continue
            values = drawn[name]
            spread = None if values is None else interval(values, group.people.drawn)
            results[name] = replace(result, accuracy_interval=spread)
        if len(results) > 1:
            accuracies = [result.accuracy for result in results.values()]
            results[_ALL] = group_gap(accuracies, list(drawn.values()))
            lacking = [name for name in drawn if "accuracy_interval" in results[name].absent]
            if lacking:
                reason = f"without those of {', '.join(lacking)} there are none of all groups"
                absent = {INTERVALS + name: reason for name in results[_ALL].intervals}
                results[_ALL] = replace(results[_ALL], absent=absent)
        return results

    def data_digests(self) -> dict[str, str]:
        return {n: digest_of(g.faces, g.places, g.people.issame) for n, g in self.groups.items()}

    def table(self, results: Mapping[str, Any]) -> str:
        groups = {n: r for n, r in results.items() if isinstance(r, VerificationResult)}
        lines = [verification_table(groups, "group")]
        for name, gap in results.items():
            if isinstance(gap, GroupGap):
                ratio = gap.skewed_error_ratio
                rows = [
                    ["mean %", f"{100 * gap.mean:.2f}", percent(gap.intervals["mean"])],
                    ["STD %", f"{100 * gap.std:.2f}", percent(gap.intervals["std"])],
                    ["SER", "-" if ratio is None else f"{ratio:.2f}", _plain(gap.intervals)],
                ]
                lines += ["", format_table([name, "", "interval"], rows)]
                lines += [*drawn_note(gap.intervals.values()), *absent_notes({name: gap})]
        return "\n".join(lines)


def group_gap(accuracies: Sequence[float], drawn: Sequence[np.ndarray | None] = ()) -> GroupGap:
    """How far apart a model is on groups.

    Args:
        accuracies: of the groups, in [0, 1], two or more.
        drawn: their values (B,) on draws of people, independent of each other; None where there
            are none.
    """

    def figures(rows: np.ndarray) -> dict[str, np.ndarray]:
        errors = 1 - rows
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = errors.max(axis=1) / errors.min(axis=1)
        ratio[~np.isfinite(ratio)] = np.nan
        return {
            "mean": rows.mean(axis=1),
            "std": rows.std(axis=1, ddof=1),
            "skewed_error_ratio": ratio,
        }

    plain = {name: float(row[0]) for name, row in figures(np.array([accuracies])).items()}
    ratio = plain["skewed_error_ratio"]
    known = None if np.isnan(ratio) else ratio
    intervals: dict[str, Interval | None] = dict.fromkeys(plain)
    lacking: dict[str, str] = {}
    given = [values for values in drawn if values is not None]
    if drawn and len(given) == len(drawn):
        values = np.stack(list(figures(np.stack(given, axis=1)).values()), axis=1)
        intervals, lacking = figure_intervals({**plain, "skewed_error_ratio": known}, values)
    return GroupGap(
        mean=plain["mean"],
        std=plain["std"],
        skewed_error_ratio=known,
        intervals=intervals,
        absent={INTERVALS + name: reason for name, reason in lacking.items()},
    )


def _groups_in(folder: Path) -> list[str]:
    """The groups of which ``txts`` has pairs, in order of name."""
    # Not by glob, which passes over folders that cannot be read.
    groups = files_directly_in(folder)[1] if folder.is_dir() else []
    return [
        group.name
        for group in groups
        if any(path.name.endswith("_pairs.txt") for path in files_directly_in(group)[0].others)
    ]


class _Group:
    """The pairs of one group.

    Attributes:
        faces: its images, each once.
        places: (P, 2) int, where the two of each pair are among them.
        people: who is on the pairs.
    """

    def __init__(self, folder: Path, name: str):
        path = folder / "txts" / name / f"{name}_pairs.txt"
        images: dict[tuple[str, int], int] = {}
        places, persons = [], []
        for number, line in enumerate(read_lines(path), start=1):
            words = line.split()
            counts = number == 1 and len(words) < 3 and all(word.isdecimal() for word in words)
            if not words or counts:
                continue  # how many pairs there are, as LFW's list says first
            if len(words) == 3:  # one person twice
                words.insert(2, words[0])
            if len(words) != 4:
                raise DataError(f"{path}: line {number} has {len(words)} words, not 3 or 4")
            if not (words[1].isdecimal() and words[3].isdecimal()):
                raise DataError(f"{path}: line {number} does not number its images: {line!r}")
            pair = [(words[0], int(words[1])), (words[2], int(words[3]))]
            places.append([images.setdefault(face, len(images)) for face in pair])
            persons.append([person for person, _ in pair])
        if not places:
            raise DataError(f"{path}: there are no pairs in it")
        self.places = np.array(places)
        numbers = np.unique(np.array(persons), return_inverse=True)[1].reshape(-1, 2)
        self.people = People(numbers[:, 0] == numbers[:, 1], numbers)
        with judging(path):
            check_pairs(self.people.issame)
        crops = folder / "data" / name
        files = [crops / person / f"{person}_{image:04d}.jpg" for person, image in images]
        self.faces = FaceFiles(files)
        loose = [
            file for file, size in zip(files, image_sizes(files), strict=True) if size != CROP[:2]
        ]
        points = path.with_name(f"{name}_lmk.txt")
        if 0 < len(loose) < len(files):
            # The landmarks are of photographs, and would warp the crops once more.
            raise DataError(
                f"{crops}: {len(files) - len(loose)} of its {len(files)} images are crops of 112 x "
                f"112 and the others are not, the first of them {loose[0]}: align all of them, or "
                "none"
            )
        if loose:
            self.faces = FaceFiles(files, _landmarks(points, files, loose[0]))
        elif points.is_file():
            logger.info("%s: not used: all %d images are crops of 112 x 112", points, len(files))


def _landmarks(path: Path, files: Sequence[Path], loose: Path) -> np.ndarray:
    """Five landmarks (N, 5, 2) of the files, by their names; ``loose`` is the first of them."""
    if not path.is_file():
        raise DataError(
            f"{path}: no such file, and {loose} is no crop of 112 x 112: landmarks are needed "
            "to align it"
        )
    known = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split()
        if len(words) < 11:
            raise DataError(
                f"{path}: line {number} has {len(words)} words, not an image and points"
            )
        known[Path(words[0]).name] = words[-10:]
    for file in files:
        if file.name not in known:
            raise DataError(f"{path}: no landmarks of {file.name}: make the list anew")
    try:
        return np.array([known[file.name] for file in files], dtype=np.float64).reshape(-1, 5, 2)
    except ValueError as error:
        raise DataError(f"{path}: a landmark is no number: {error}") from error


def _plain(intervals: Mapping[str, Interval | None]) -> str:
    ratio = intervals["skewed_error_ratio"]
    return "-" if ratio is None else f"[{ratio.low:.2f}, {ratio.high:.2f}]"
