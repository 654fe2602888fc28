"""Cells brought together: which may be compared, and how they compare."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from grid import SIZES, Cell, StudyError
from methods import REFERENCES, SETTINGS, plain_of
from records import FIGURES, ON_LISTED, read_people, records, unpacked_scores

from arcface_cakd.config import TrainConfig
from arcface_cakd.evaluation import (
    Bootstrap,
    Estimate,
    People,
    Resampled,
    auc_difference,
    difference,
    gap_closed,
)

Record = Mapping[str, Any]


class Study:
    """The cells of some data, compared on some sets.

    Of several data a method has a seed where it has it in all of them, and that seed is one: what
    its trainings on each say together. The interval of a difference takes the people of each for
    a draw of their own; that folds train on one another's judged people is in no interval.

    Args:
        runs: folder of the JSONs.
        data: which; several are of different people.
        sets: names of .bin sets, of different people; a figure is the mean over them, and over
            the data.
        seeds: to look at; None: all.
        draws: of people and seeds.

    Raises:
        StudyError: no such cells, the same people twice, sources that differ, or sets that were
            judged by other pairs.
    """

    def __init__(
        self,
        runs: Path,
        data: Sequence[str],
        sets: Sequence[str],
        seeds: Sequence[int] | None,
        draws: int,
    ):
        check_people_differ(data, sets)
        self._places = [(each, name) for each in data for name in sets]
        found = {
            cell: record
            for each in data
            for cell, record in records(runs, each).items()
            if seeds is None or cell.seed in seeds or cell.method in REFERENCES
        }
        self.failed = {cell: r["failure"] for cell, r in found.items() if r["failure"]}
        judged = {
            cell: record
            for cell, record in found.items()
            if not record["failure"] and all(name in record["sets"] for name in sets)
        }
        times = Counter((cell.method, cell.seed) for cell in judged)
        self.cells = {
            cell: record
            for cell, record in judged.items()
            if times[cell.method, cell.seed] == len(data)
        }
        self.not_in_all = sorted(
            {str(cell) for cell in judged} - {str(cell) for cell in self.cells}
        )
        if not self.cells:
            raise StudyError(
                f"no cell of {' and '.join(data)} in {runs} has figures on {', '.join(sets)}: "
                "run.py makes them"
            )
        check_sources(self.cells, read_sentinels(runs))
        check_settings_agree(self.cells)
        people: list[People] = []
        self._listed: list[int] = []
        for each, name in self._places:
            persons, listed, digest = read_people(runs, each, name)
            for cell, record in self.cells.items():
                if cell.data == each and record["sets"][name]["bin"] != digest:
                    raise StudyError(
                        f"{cell} was judged by another {name}.bin than the pairs that are kept: "
                        "remove its JSON and run it again"
                    )
            people.append(persons)
            self._listed.append(listed)
        own = [
            People(p.issame[:n], p.persons[:n]) for p, n in zip(people, self._listed, strict=True)
        ]
        self._people = people
        self._bootstrap, self._of_listed = Bootstrap(people, draws), Bootstrap(own, draws)
        self._resample = lru_cache(maxsize=None)(self._resampled)

    @property
    def methods(self) -> list[str]:
        """All that there are figures of, in order of name."""
        return sorted({cell.method for cell in self.cells})

    def seeds(self, *methods: str) -> list[int]:
        """The seeds that all of the methods have; the references, with one, do not count."""
        each = [
            {cell.seed for cell in self.cells if cell.method == method}
            for method in methods
            if method not in REFERENCES
        ]
        return sorted(set.intersection(*each)) if each else [0]

    def resampled(self, method: str, figure: str, seeds: Sequence[int]) -> Resampled:
        """A figure of a method by its seeds, a reference by its one."""
        return self._resample(method, figure, (0,) if method in REFERENCES else tuple(seeds))

    def _resampled(self, method: str, figure: str, seeds: tuple[int, ...]) -> Resampled:
        scores = self._scores(method, seeds)
        if figure in ON_LISTED:
            scores = [rows[:, :n] for rows, n in zip(scores, self._listed, strict=True)]
            return self._of_listed.resample(scores, FIGURES[figure])
        return self._bootstrap.resample(scores, FIGURES[figure])

    def _scores(self, method: str, seeds: Sequence[int]) -> list[np.ndarray]:
        """(S, P) cosines for each set."""
        return [
            np.stack([unpacked_scores(self.judged(each, method, s)[name]["scores"]) for s in seeds])
            for each, name in self._places
        ]

    def judged(self, data: str, method: str, seed: int) -> Mapping[str, Any]:
        """What a cell's record says of the sets."""
        cell = Cell(data, method, seed)
        if cell not in self.cells:
            raise StudyError(f"{cell} has no figures here: run it first")
        return self.cells[cell]["sets"]

    def values(self, method: str, figure: str) -> list[float]:
        """The figure by seed: the mean over the sets and the data."""
        return [
            float(
                np.mean(
                    [
                        self.judged(each, method, seed)[name]["figures"][figure]
                        for each, name in self._places
                    ]
                )
            )
            for seed in self.seeds(method)
        ]

    def difference(
        self, method: str, other: str, figure: str, *, drawn: bool = False
    ) -> Estimate | None:
        """``method`` less ``other`` by the seeds that both have; None where they share none.

        1 - AUC by ``auc_difference``; other figures, or all where ``drawn``, by drawing people
        and seeds again.
        """
        seeds = self.seeds(method, other)
        if not seeds:
            return None
        if figure == "1-auc" and not drawn:
            ours, theirs = (
                self._scores(name, (0,) * len(seeds) if name in REFERENCES else seeds)
                for name in (method, other)
            )
            return auc_difference(ours, theirs, self._people)
        one, another = (self.resampled(name, figure, seeds) for name in (method, other))
        if one.draws.shape != another.draws.shape:  # a reference, with one seed for all
            one, another = (as_wide(r, len(seeds)) for r in (one, another))
        return difference(one, another)

    def gap(self, method: str, figure: str) -> Estimate | None:
        """``gap_closed``, from the plain student with the method's settings (``plain_of``).

        None without that student or the teacher.
        """
        lowest = plain_of(method)
        if not {lowest, "teacher"} <= set(self.methods):
            return None
        seeds = self.seeds(method, lowest)
        if not seeds:
            return None
        ours, plain, teacher = (
            self.resampled(name, figure, seeds) for name in (method, lowest, "teacher")
        )
        return gap_closed(ours, plain, teacher)


def check_people_differ(data: Sequence[str], sets: Sequence[str]) -> None:
    """Refuse what would count the same people more than once.

    Raises:
        StudyError: data or sets of the same people.
    """
    known = {name: of for size in SIZES.values() for name, of in size.items()}
    folders: dict[str, str] = {}
    for name in data:
        folder = known[name].folder if name in known else name
        if folder in folders:
            raise StudyError(
                f"{folders[folder]} and {name} are judged on the same people, who would count "
                "twice: make a table of each"
            )
        folders[folder] = name
        shared = [each for each in sets if name in known and each in known[name].same_people]
        if len(shared) > 1 or len(set(sets)) < len(sets):
            raise StudyError(
                f"{' and '.join(shared or sets)} are of the same people, who would count twice: "
                "make a table of each"
            )


def as_wide(found: Resampled, seeds: int) -> Resampled:
    """A reference's one column for each seed of what it is compared with."""
    if found.draws.shape[1] != 1:
        return found
    ones = np.full((len(found.draws), seeds), 1 / seeds)
    return Resampled(np.repeat(found.values, seeds), np.repeat(found.draws, seeds, axis=1), ones)


def read_sentinels(runs: Path) -> list[dict[str, Any]]:
    path = runs / "sentinels.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def check_sources(cells: Mapping[Cell, Record], sentinels: Sequence[Mapping[str, Any]]) -> None:
    """Refuse cells that were run by sources which may give other figures.

    Raises:
        StudyError: a part has two digests that no sentinel with equal figures ties together.
    """
    first: dict[str, tuple[str, Cell]] = {}
    for cell, record in cells.items():
        for part, digest in record["sources"].items():
            known, by = first.setdefault(part, (digest, cell))
            if not tied(part, known, digest, sentinels):
                raise StudyError(
                    f"{by} and {cell} were run by different sources of {part!r} ({known}, "
                    f"{digest}): run one again, or show by run.py --sentinel CELL that a cell "
                    "which uses it comes out equal"
                )


def tied(part: str, one: str, other: str, sentinels: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two digests of a part are one, or joined by sentinels that came out equal."""
    reached, waiting = {one}, [one]
    links = [
        (s["before"][part], s["after"][part])
        for s in sentinels
        if s["equal"] and part in s["before"] and part in s["after"]
    ]
    while waiting:
        here = waiting.pop()
        for a, b in links:
            for near, far in ((a, b), (b, a)):
                if near == here and far not in reached:
                    reached.add(far)
                    waiting.append(far)
    return other in reached


def check_settings_agree(cells: Mapping[Cell, Record]) -> None:
    """Refuse cells whose students trained with different settings, but for method and seed.

    What a method itself sets (``SETTINGS`` of methods.py) is the method.

    A setting that a record does not name came later, and had the default that it has now.

    Raises:
        StudyError: they did; the message names the setting.
    """
    later = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    first: tuple[Cell, Mapping[str, Any], set[str]] | None = None
    for cell, record in cells.items():
        if "settings" not in record:
            continue
        own = {"cakd", "seed", *SETTINGS.get(cell.method, {})}
        if first is None:
            first = cell, record["settings"], own
            continue
        by, known, apart = first
        for key in sorted((known.keys() | record["settings"].keys()) - own - apart):
            here, there = (of.get(key, later.get(key)) for of in (record["settings"], known))
            if here != there:
                raise StudyError(
                    f"{by} and {cell} were trained with different {key} ({there!r}, {here!r}): "
                    "they do not compare; run one again"
                )
