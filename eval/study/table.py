"""Tables of the study, in markdown, from the JSONs of its cells alone.

    python eval/study/table.py --data real
    python eval/study/table.py --data real --set test --seeds 11 12 13 14 15 --figure accuracy

Figures are means over seeds, with the standard deviation over them. Differences are to --baseline,
paired by people, pairs and seeds. Those of 1 - AUC, where below zero is better, have an interval in
closed form (arcface_cakd.evaluation.auc_difference); all else, and with --drawn those too, by
drawing people and seeds again, --draws times. "gap" is the share of the way from plain student to
teacher, from the plain student of as many epochs. A method that lacks a seed is compared by the
seeds that it has. Of several data, as folds of the people, a figure is the mean over all, of the
methods and seeds that each of them has.

Cells whose sources differ are refused, unless a sentinel that uses the part in question gave equal
figures with both (run.py --sentinel).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from comparing import Study
from grid import SIZES, StudyError
from methods import REFERENCES, plain_of
from records import FIGURES, RUNS
from run import expanded

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.evaluation import (
    Estimate,
    holm,
    smallest_detectable,
)
from arcface_cakd.files import write_text
from arcface_cakd.registry import did_you_mean


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", nargs="+", default=["real"], help="several: what all say together"
    )
    parser.add_argument("--set", nargs="+", help="default: the sets to choose by")
    parser.add_argument("--methods", nargs="+", help="default: all that were run")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: all that were run")
    parser.add_argument("--baseline", default="embedding_64")
    parser.add_argument("--figure", choices=FIGURES, default="1-auc", help="of the differences")
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument(
        "--drawn", action="store_true", help="differences of 1-auc by drawing, as all else"
    )
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


def table(args: argparse.Namespace) -> str:
    """The whole text."""
    sets = args.set or sets_to_choose_by(args)
    study = Study(args.runs, args.data, sets, args.seeds, args.draws)
    methods = [m for m in expanded(args.methods or study.methods) if m in study.methods]
    if args.baseline not in study.methods:
        raise StudyError(
            f"the baseline {args.baseline!r} has no figures: run it, or choose with --baseline"
        )
    # Plain student, colours and teacher stand in every table.
    always = ["colour_histogram", "plain", *map(plain_of, methods), "teacher"]
    methods = list(dict.fromkeys([*(m for m in always if m in study.methods), *methods]))
    means = {m: float(np.mean(study.values(m, args.figure))) for m in methods}
    methods.sort(key=means.__getitem__, reverse=args.figure == "1-auc")
    header = ["method", "seeds", *FIGURES, "gap closed", f"less {args.baseline}", "p", "CPU s"]
    which = f"**{' + '.join(args.data)}**, {' + '.join(sets)}"
    lines = [f"{which}; {how_intervals_are_taken(args)}.", ""]
    lines += [row(header), row(["---"] * len(header))]
    lines += [row(cells_of(study, method, args)) for method in methods]
    lines += without_plain(study, methods)
    lines += processors(study, methods)
    lines += failures(study)
    lines += hypotheses(study, args)
    return "\n".join(lines)


def sets_to_choose_by(args: argparse.Namespace) -> list[str]:
    """Those of the first of the data.

    Raises:
        StudyError: they have none, or are not known.
    """
    name = args.data[0]
    data = SIZES[args.size].get(name)
    if data is None:
        raise StudyError(
            f"no data {name!r} of size {args.size!r}; {did_you_mean(name, SIZES[args.size])}"
        )
    if not data.choose:
        raise StudyError(f"{name} has no set to choose by: give --set {' '.join(data.report)}")
    return list(data.choose)


def how_intervals_are_taken(args: argparse.Namespace) -> str:
    drawn = f"{args.draws} draws of people and seeds"
    if args.figure != "1-auc" or args.drawn:
        return drawn
    return f"differences of 1-auc in closed form, gap closed by {drawn}"


def cells_of(study: Study, method: str, args: argparse.Namespace) -> list[str]:
    """One row of the table."""
    seeds = study.seeds(method)
    cells = [method, "-" if method in REFERENCES else " ".join(map(str, seeds))]
    for figure in FIGURES:
        values = study.values(method, figure)
        spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
        cells.append(f"{np.mean(values):.4f}{spread}")
    closed = None if method == "colour_histogram" else study.gap(method, args.figure)
    if closed is None:
        cells.append("")
    else:
        shares = (round(100 * share) for share in (closed.value, closed.low, closed.high))
        cells.append("{} % [{}, {}]".format(*shares))
    found = None
    if method != args.baseline:
        found = study.difference(method, args.baseline, args.figure, drawn=args.drawn)
    cells += (
        ["", ""]
        if found is None
        else [interval(found), "<0.001" if found.p < 0.001 else f"{found.p:.3f}"]
    )
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
        tested = study.difference(method, rival, args.figure, drawn=args.drawn)
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


def without_plain(study: Study, methods: Sequence[str]) -> list[str]:
    """A line where a way to the teacher has no start."""
    missing = {plain_of(m) for m in methods if m not in REFERENCES} - set(study.methods)
    if not missing:
        return []
    return [f"\nNo gap closed where it starts at {', '.join(sorted(missing))}, which was not run."]


def processors(study: Study, methods: Sequence[str]) -> list[str]:
    """A line where the cells of a table are of several processors, which pairing takes for one."""
    trained = {cell: record for cell, record in study.cells.items() if cell.method in methods}
    known: dict[str, list[str]] = {}
    for cell, record in trained.items():
        if cell.method not in REFERENCES:
            name = record.get("processor", "not recorded")
            known.setdefault(name, []).append(f"{cell.method}/{cell.seed}")
    if len(known) < 2:
        return []
    most = max(known, key=lambda name: len(known[name]))
    others = "; ".join(f"{name}: {', '.join(known[name])}" for name in known if name != most)
    said = f"Of another processor than the rest ({most}), where one seed gives other figures"
    return [f"\n{said}: {others}"]


def failures(study: Study) -> list[str]:
    """Lines on what could not stand in the table."""
    lines = [f"\nFailed: {cell}: {why}" for cell, why in study.failed.items()]
    if study.not_in_all:
        lines.append(f"\nLeft out, as not all data have it: {', '.join(study.not_in_all)}")
    return lines


def interval(found: Estimate) -> str:
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
