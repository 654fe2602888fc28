"""Runs cells of the study: each trains by the package's own loop and leaves one JSON.

    python eval/study/run.py --data real --methods references baselines --seeds 1 2 3
    python eval/study/run.py --data real --methods plain --seeds 11 12 --open test
    python eval/study/run.py --sentinel real/plain/1

A finished cell is skipped and a killed one is run again; several runners share a grid, for a cell
that one has taken the others leave alone. --methods takes names of methods.py and its groups.
--open also judges the cells on a set that is for reporting, and writes that into LOG.md. --sentinel
runs a finished cell again and says whether the sources of today give its figures.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from cells import check_weights, judged, run_cell, taken
from grid import SIZES, TRAINED, Cell, StudyError, teacher_config
from methods import GROUPS, METHODS, REFERENCES
from records import RUNS, read_record, write_record

from arcface_cakd.engine import train
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.files import write_text

LOG = Path(__file__).parent / "LOG.md"
FACES = Path("study_faces")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=f"groups: {', '.join(GROUPS)}; methods: {', '.join([*REFERENCES, *METHODS])}",
    )
    parser.add_argument("--data", nargs="+", default=["real"], help="default: real")
    parser.add_argument("--methods", nargs="*", default=[], metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], metavar="N")
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--open", metavar="SET", help="also judge on this set for reporting")
    parser.add_argument("--sentinel", metavar="CELL", help="run this cell again and compare")
    parser.add_argument("--teacher", action="store_true", help="train the data's teacher first")
    parser.add_argument("--list", action="store_true", help="say which cells are done, run none")
    parser.add_argument("--faces", type=Path, default=FACES, help="default: study_faces")
    parser.add_argument("--runs", type=Path, default=RUNS, help="default: eval/study/runs")
    parser.add_argument("--threads", type=int, default=1, help="of each cell; default: 1")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    try:
        if args.sentinel:
            return 0 if sentinel(Cell.read(args.sentinel, args.size), args) else 1
        cells = [
            Cell(data, method, seed, args.size).checked()
            for data in args.data
            for method in expanded(args.methods)
            for seed in ([0] if method in REFERENCES else args.seeds)
        ]
        if args.teacher:
            for data in args.data:
                train_teacher(Cell(data, "teacher", 0, args.size).checked(), args.faces)
        if args.open and not args.list:
            log_opening(cells, args.open, args.runs)
        for cell in cells:
            if args.list:
                print(f"{cell}: {state(cell, args.runs)}")
            else:
                visit(cell, args)
    except ArcfaceCakdError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def expanded(names: Sequence[str]) -> list[str]:
    """Names of methods, with groups' names replaced by their methods, each once."""
    return list(dict.fromkeys(n for name in names for n in GROUPS.get(name, (name,))))


def state(cell: Cell, runs: Path) -> str:
    record = read_record(runs, cell)
    if record is None:
        return "to be run"
    return f"failed: {record['failure']}" if record.get("failure") else "done"


def visit(cell: Cell, args: argparse.Namespace) -> None:
    """Run a cell that has not been run, and open the set that was asked for."""
    work = args.faces / "work" / str(cell)
    with taken(work / "lock") as ours:
        if not ours:
            print(f"{cell}: another runner has it", flush=True)
            return
        record = read_record(args.runs, cell)
        if record is None:
            record = run_cell(cell, args.faces, work, args.runs)
            write_record(args.runs, cell, record)
            report(cell, record, cell.of.choose)
        if args.open and args.open not in record["sets"] and not record["failure"]:
            check_weights(cell, record, work)
            record["sets"] |= judged(cell, args.faces, work, (args.open,), args.runs)
            write_record(args.runs, cell, record)
            report(cell, record, (args.open,))


def report(cell: Cell, record: dict[str, Any], names: Sequence[str]) -> None:
    """A line on a terminal or in a log."""
    if record["failure"]:
        print(f"{cell}: FAILED: {record['failure']}", flush=True)
        return
    for name in names:
        figures = record["sets"][name]["figures"]
        text = ", ".join(f"{figure} {value:.4f}" for figure, value in figures.items())
        seconds = f"; {record['cpu_seconds']:.0f} CPU s" if "cpu_seconds" in record else ""
        print(f"{cell}: {name}: {text}{seconds}", flush=True)


def log_opening(cells: Sequence[Cell], name: str, runs: Path) -> None:
    """Write down, before it happens, that a set for reporting is looked at.

    Raises:
        StudyError: the data have no such set.
    """
    for data in {cell.data: cell.of for cell in cells}.values():
        if name not in data.report:
            raise StudyError(f"{data.folder} has no set {name!r} for reporting, but {data.report}")
    fresh = [c for c in cells if name not in (read_record(runs, c) or {"sets": ()})["sets"]]
    if not fresh:
        return
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    by_method: dict[str, list[int]] = {}
    for cell in fresh:
        by_method.setdefault(f"{cell.data}/{cell.method}", []).append(cell.seed)
    which = "; ".join(f"{k} seeds {' '.join(map(str, v))}" for k, v in by_method.items())
    text = LOG.read_text(encoding="utf-8").rstrip("\n")
    write_text(LOG, f"{text}\n- {today}, `{name}`: {which}\n")


def train_teacher(cell: Cell, faces: Path) -> None:
    """Train the teacher of the data, unless its weights are there."""
    config = teacher_config(cell.of, faces)
    with taken(config.folder / "lock") as ours:
        if not ours:
            raise StudyError(f"{config.folder}: another process trains this teacher: wait for it")
        if not (config.folder / TRAINED).is_file():
            train(config)
            write_text(config.folder / TRAINED, "")


def sentinel(cell: Cell, args: argparse.Namespace) -> bool:
    """Whether the sources of today give a finished cell's scores; kept in sentinels.json.

    Raises:
        StudyError: the cell is not there to compare with.
    """
    before = read_record(args.runs, cell)
    if before is None or before["failure"]:
        raise StudyError(f"{cell} has no figures to compare with: run it first")
    work = args.faces / "work" / "sentinel" / str(cell)
    with taken(work / "lock") as ours:
        if not ours:
            raise StudyError(f"{work}: another process runs this sentinel: wait for it")
        after = run_cell(cell, args.faces, work, args.runs)
    if after["failure"]:
        raise StudyError(f"{cell} fails with the sources of today: {after['failure']}")
    sets = {name: before["sets"][name] for name in after["sets"]}
    equal = sets == after["sets"]
    path = args.runs / "sentinels.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    entry = {
        "cell": str(cell),
        "date": after["date"],
        "before": before["sources"],
        "after": after["sources"],
        "processors": [before.get("processor"), after["processor"]],
        "equal": equal,
    }
    write_text(path, json.dumps([*kept, entry], indent=1) + "\n")
    print(f"{cell}: {'equal' if equal else 'NOT equal'} to what is kept")
    report(cell, after, cell.of.choose)
    return equal


if __name__ == "__main__":
    sys.exit(main())
