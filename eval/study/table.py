"""Tables of the study, in markdown, from the JSONs of its cells alone.

    python eval/study/table.py --data real
    python eval/study/table.py --data real --set test --seeds 11 12 13 14 15 --figure accuracy

Figures are means over seeds, with the standard deviation over them. Differences are to --baseline,
paired: the same people and the same seeds drawn in each of --draws (arcface_cakd.evaluation). Below
zero is better for 1 - AUC. "gap" is the share of the way from plain student to teacher. A method
that lacks a seed is compared by the seeds that it has.

Cells whose sources differ are refused, unless a sentinel that uses the part in question gave equal
figures with both (run.py --sentinel).
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from grid import SIZES, Cell, StudyError
from methods import REFERENCES
from records import FIGURES, RUNS, read_people, records, unpacked_scores
from run import expanded

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.evaluation import (
    Bootstrap,
    Estimate,
    Resampled,
    difference,
    gap_closed,
    holm,
    smallest_detectable,
)
from arcface_cakd.files import write_text

Record = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="real")
    parser.add_argument("--set", nargs="+", help="default: the sets to choose by")
    parser.add_argument("--methods", nargs="+", help="default: all that were run")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: all that were run")
    parser.add_argument("--baseline", default="embedding_64")
    parser.add_argument("--figure", choices=FIGURES, default="1-auc", help="of the differences")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--out", type=Path, help="write the table there too")
    parser.add_argument(
        "--hypothesis",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "METHOD", "RIVAL"),
        help="test METHOD against RIVAL, with Holm's correction over all that are given",
    )
    args = parser.parse_args(arguments)
    try:
        text = table(args)
    except ArcfaceCakdError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(text)
    if args.out:
        write_text(args.out, text + "\n")
    return 0


class Study:
    """The cells of some data, compared on some sets.

    Args:
        runs: folder of the JSONs.
        data: which.
        sets: names of .bin sets; a figure is the mean over them.
        seeds: to look at; None: all.
        draws: of people and seeds.

    Raises:
        StudyError: no such cells, sources that differ, or sets that were judged by other pairs.
    """

    def __init__(
        self, runs: Path, data: str, sets: Sequence[str], seeds: Sequence[int] | None, draws: int
    ):
        self.sets = list(sets)
        found = {
            cell: record
            for cell, record in records(runs, data).items()
            if seeds is None or cell.seed in seeds or cell.method in REFERENCES
        }
        self.failed = {cell: r["failure"] for cell, r in found.items() if r["failure"]}
        self.cells = {
            cell: record
            for cell, record in found.items()
            if not record["failure"] and all(name in record["sets"] for name in sets)
        }
        if not self.cells:
            raise StudyError(
                f"no cell of {data} in {runs} has figures on {', '.join(sets)}: run.py makes them"
            )
        check_sources(self.cells, read_sentinels(runs))
        check_settings_agree(self.cells)
        people = []
        for name in sets:
            persons, digest = read_people(runs, data, name)
            for cell, record in self.cells.items():
                if record["sets"][name]["bin"] != digest:
                    raise StudyError(
                        f"{cell} was judged by another {name}.bin than the pairs that are kept: "
                        "remove its JSON and run it again"
                    )
            people.append(persons)
        self._bootstrap = Bootstrap(people, draws)
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
        scores = [
            np.stack([unpacked_scores(self.record(method, s)["sets"][n]["scores"]) for s in seeds])
            for n in self.sets
        ]
        return self._bootstrap.resample(scores, FIGURES[figure])

    def record(self, method: str, seed: int) -> Record:
        for cell, record in self.cells.items():
            if (cell.method, cell.seed) == (method, seed):
                return record
        raise StudyError(f"{method} of seed {seed} has no figures here: run it first")

    def values(self, method: str, figure: str) -> list[float]:
        """The figure by seed: the mean over the sets."""
        return [
            float(np.mean([record["sets"][name]["figures"][figure] for name in self.sets]))
            for cell, record in self.cells.items()
            if cell.method == method
        ]

    def difference(self, method: str, other: str, figure: str) -> Estimate | None:
        """``method`` less ``other`` by the seeds that both have; None where they share none."""
        seeds = self.seeds(method, other)
        if not seeds:
            return None
        ours, theirs = (self.resampled(name, figure, seeds) for name in (method, other))
        if ours.draws.shape != theirs.draws.shape:  # a reference, with one seed for all
            ours, theirs = (as_wide(r, len(seeds)) for r in (ours, theirs))
        return difference(ours, theirs)

    def gap(self, method: str, figure: str) -> Estimate | None:
        """``gap_closed``; None without plain student or teacher."""
        if not {"plain", "teacher"} <= set(self.methods):
            return None
        seeds = self.seeds(method, "plain")
        if not seeds:
            return None
        found = (self.resampled(name, figure, seeds) for name in (method, "plain", "teacher"))
        return gap_closed(*found)


def as_wide(found: Resampled, seeds: int) -> Resampled:
    """A reference's one column for each seed of what it is compared with."""
    if found.draws.shape[1] != 1:
        return found
    ones = np.full((len(found.draws), seeds), 1 / seeds)
    return Resampled(np.repeat(found.values, seeds), np.repeat(found.draws, seeds, axis=1), ones)


def table(args: argparse.Namespace) -> str:
    """The whole text."""
    data = SIZES[args.size].get(args.data)
    sets = args.set or (list(data.choose) if data is not None else [])
    study = Study(args.runs, args.data, sets, args.seeds, args.draws)
    methods = [m for m in expanded(args.methods or study.methods) if m in study.methods]
    if args.baseline not in study.methods:
        raise StudyError(
            f"the baseline {args.baseline!r} has no figures: run it, or choose with --baseline"
        )
    # Plain student, colours and teacher stand in every table.
    always = [m for m in ("colour_histogram", "plain", "teacher") if m in study.methods]
    methods = list(dict.fromkeys([*always, *methods]))
    means = {m: float(np.mean(study.values(m, args.figure))) for m in methods}
    methods.sort(key=means.__getitem__, reverse=args.figure == "1-auc")
    header = ["method", "seeds", *FIGURES, "gap closed", f"less {args.baseline}", "p", "CPU s"]
    lines = [f"**{args.data}**, {' + '.join(sets)}; {args.draws} draws of people and seeds.", ""]
    lines += [row(header), row(["---"] * len(header))]
    lines += [row(cells_of(study, method, args)) for method in methods]
    lines += failures(study)
    lines += hypotheses(study, args)
    return "\n".join(lines)


def cells_of(study: Study, method: str, args: argparse.Namespace) -> list[str]:
    """One row of the table."""
    seeds = [cell.seed for cell in study.cells if cell.method == method]
    cells = [method, "-" if method in REFERENCES else " ".join(map(str, seeds))]
    for figure in FIGURES:
        values = study.values(method, figure)
        spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.4f}{spread}")
    closed = study.gap(method, args.figure)
    if closed is None:
        cells.append("")
    else:
        shares = (round(100 * share) for share in (closed.value, closed.low, closed.high))
        cells.append("{} % [{}, {}]".format(*shares))
    found = None
    if method != args.baseline:
        found = study.difference(method, args.baseline, args.figure)
    cells += ["", ""] if found is None else [interval(found), f"{found.p:.3f}"]
    costs = [
        record["cpu_seconds"]
        for cell, record in study.cells.items()
        if cell.method == method and "cpu_seconds" in record
    ]
    return [*cells, f"{np.median(costs):.0f}" if costs else "-"]


def hypotheses(study: Study, args: argparse.Namespace) -> list[str]:
    """Lines on what was asked by --hypothesis."""
    found: dict[str, tuple[str, str, Estimate]] = {}
    for name, method, rival in args.hypothesis:
        tested = study.difference(method, rival, args.figure)
        if tested is None:
            raise StudyError(f"{name}: {method} and {rival} have no seed in common here")
        found[name] = (method, rival, tested)
    adjusted = holm({name: tested.p for name, (_, _, tested) in found.items()})
    lines = [""] if found else []
    for name, (method, rival, tested) in found.items():
        seen = smallest_detectable(tested.std, alpha=0.05 / len(found))
        lines.append(
            f"- **{name}**: {method} less {rival}, {args.figure}: {interval(tested)}; p "
            f"{tested.p:.4f}, by Holm {adjusted[name]:.4f}; a true difference of {seen:.4f} would "
            "have been seen in 80 of 100 such studies"
        )
    return lines


def failures(study: Study) -> list[str]:
    return [f"\nFailed: {cell}: {why}" for cell, why in study.failed.items()]


def interval(found: Estimate) -> str:
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


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

    Raises:
        StudyError: they did; the message names the setting.
    """
    first: tuple[Cell, Mapping[str, Any]] | None = None
    for cell, record in cells.items():
        if "settings" not in record:
            continue
        if first is None:
            first = cell, record["settings"]
            continue
        by, known = first
        for key in sorted(known.keys() | record["settings"].keys()):
            here, there = record["settings"].get(key), known.get(key)
            if key not in ("cakd", "seed") and here != there:
                raise StudyError(
                    f"{by} and {cell} were trained with different {key} ({there!r}, {here!r}): "
                    "they do not compare; run one again"
                )


if __name__ == "__main__":
    sys.exit(main())
