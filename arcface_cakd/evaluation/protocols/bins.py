"""``.bin`` verification sets: LFW and its kin, as arcface_torch judges them."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from arcface_cakd.data import read_bin
from arcface_cakd.data.bins import load_bin, people_file
from arcface_cakd.data.text_lines import read_lines
from arcface_cakd.evaluation.embedder import Embedder
from arcface_cakd.evaluation.errors import EvaluationError
from arcface_cakd.evaluation.protocols.base import Protocol, judging
from arcface_cakd.evaluation.resampling import Pairs, People, accuracy
from arcface_cakd.evaluation.table import verification_table
from arcface_cakd.evaluation.uncertainty import DRAWS, pair_interval
from arcface_cakd.evaluation.verification import (
    VerificationResult,
    check_pairs,
    pair_distances,
    verification_metrics,
)
from arcface_cakd.files import sha256_of
from arcface_cakd.registry import PROTOCOLS, did_you_mean

logger = logging.getLogger("arcface_cakd")

USUAL = ("lfw", "cfp_fp", "agedb_30", "calfw", "cplfw", "xqlfw")
"""The sets that are taken from a folder where none are named."""


@PROTOCOLS.register("bin")
class BinPairs(Protocol):
    """`.bin` sets of pairs (LFW, CFP-FP, AgeDB, ...): 10-fold accuracy, AUC, EER, TAR at FAR.

    The figures are arcface_torch's on the same bytes. A ``.bin`` does not say who is on its pairs:
    where no ``<name>_people.tsv`` beside it does, intervals are of pairs drawn again.
    """

    takes_targets = True
    has_roc = True

    def __init__(self, paths: Sequence[Path], targets: Sequence[str] | None = None):
        self.sets = find_sets(paths, targets)
        for path in self.sets.values():  # what is wrong with the last one is told before any work
            _, issame = load_bin(path)
            with judging(path):
                check_pairs(issame)
                people_of(path, issame)

    def judge(self, embedder: Embedder, draws: int = DRAWS) -> dict[str, VerificationResult]:
        results = {}
        for name, path in self.sets.items():
            pairs = read_bin(path)
            with judging(path):
                who = people_of(path, pairs.issame)
                embeddings = embedder(pairs.images, name)
                results[name] = judged(embeddings, pairs.issame, draws, who)
        return results

    def data_digests(self) -> dict[str, str]:
        return {name: sha256_of(path) for name, path in self.sets.items()}

    def table(self, results: Mapping[str, VerificationResult]) -> str:
        return verification_table(results)


def judged(
    embeddings: np.ndarray, issame: np.ndarray, draws: int, who: People | Pairs | None = None
) -> VerificationResult:
    """``verification_metrics``, with an interval of the accuracy.

    Args:
        embeddings: (2P, E), as ``verification_metrics`` takes them.
        issame: (P,) bool.
        draws: for the interval; 0: none.
        who: is on the pairs; None: nobody says so.
    """
    result = verification_metrics(embeddings, issame)
    cosines = 1 - pair_distances(embeddings) / 2
    try:
        interval = pair_interval(cosines, who or Pairs(issame), accuracy, draws)
    except EvaluationError as error:
        return without_interval(result, error)
    return dataclasses.replace(result, accuracy_interval=interval)


def without_interval(result: VerificationResult, error: EvaluationError) -> VerificationResult:
    """A result that says why it has no interval."""
    absent = {**result.absent, "accuracy_interval": str(error)}
    return dataclasses.replace(result, absent=absent)


def people_of(path: Path, issame: np.ndarray) -> People | Pairs:
    """Who is on the pairs of ``<name>.bin``, by ``<name>_people.tsv`` where that is beside it.

    The file has a line for each pair: the two people's names with a tab between. People are
    numbered in the order of their names.

    Raises:
        EvaluationError: it does not fit the pairs.
        DataError: it is no text.
    """
    beside = people_file(path)
    if not beside.is_file():
        return Pairs(issame)
    couples = [line.split("\t") for line in read_lines(beside)]
    if len(couples) != len(issame) or any(len(couple) != 2 for couple in couples):
        raise EvaluationError(
            f"{beside.name} must have a line for each of {len(issame)} pairs, two names with a tab "
            "between: mend it, or remove it"
        )
    _, persons = np.unique(np.array(couples), return_inverse=True)
    try:
        return People(np.asarray(issame, dtype=bool), persons.reshape(-1, 2))
    except EvaluationError as error:
        raise EvaluationError(
            f"{beside.name} is of another set ({error}): make the two anew, or remove it"
        ) from error


def find_sets(paths: Sequence[Path], targets: Sequence[str] | None = None) -> dict[str, Path]:
    """Paths of ``.bin`` sets, by the name to print.

    Args:
        paths: folders of sets, and sets, with their suffix or without.
        targets: the sets to take from folders, by name. None: the usual ones; where none of them
            is in a folder, all of its sets.

    Raises:
        EvaluationError: a path or a set that is not there.
    """
    folders: dict[Path, dict[str, Path]] = {}
    files: dict[Path, Path] = {}
    for path in paths:
        named = Path(f"{path}.bin")
        if path.is_dir():
            folders[path] = {file.stem: file for file in sorted(path.glob("*.bin"))}
            if not folders[path]:
                raise EvaluationError(f"no .bin set is in {path}")
        elif path.is_file() or named.is_file():
            files[path] = path if path.is_file() else named
        else:
            raise EvaluationError(f"--data {path}: no such file or folder")
    targets = [name.removesuffix(".bin") for name in targets or []]
    everywhere = {name for there in folders.values() for name in there}
    for name in targets:
        if name not in everywhere:
            hint = did_you_mean(name, sorted(everywhere))
            where = ", ".join(map(str, folders or paths))
            raise EvaluationError(f"no {name}.bin in {where}; {hint}")
    found = []
    for path in paths:
        if path in files:
            found.append(files[path])
            continue
        there = folders[path]
        names = targets or [name for name in USUAL if name in there] or list(there)
        found += [there[name] for name in names if name in there]
        left = [name for name in there if name not in names]
        if left and not targets:
            logger.info("%s: also there: %s; --targets names them", path, ", ".join(left))
    stems = [path.stem for path in found]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in found}
