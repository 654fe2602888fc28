"""What a training step of each method costs, against the plain student's, taking turns.

    python eval/study/step_costs.py --json eval/study/step_costs.json

A turn is a few steps of one batch of 64, as a step after another method's finds nothing of its own
in the caches; what the teacher says is read from its cache. CPU time of one thread. A cell's own
CPU seconds hang on what ran beside it, another for each: here all have the same, best nothing.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from cells import give_class_means
from grid import SIZES, Cell, cell_config, check_teacher_is_trained
from methods import METHODS
from run import FACES

from arcface_cakd.bench import Report, take_turns
from arcface_cakd.bench.step import Steps
from arcface_cakd.cli.numbers import positive
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.files import write_text

PLAIN = "plain"
# One of each kind in the README's table: weights and epochs change no step.
SHOWN = (
    "embedding_64",
    "embedding_64_fitnet_140",
    "embedding_64_cakd_liu_0.57",
    "embedding_64_reviewkd_120",
    "embedding_64_urfm_100_1_falling",
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=SIZES["cpu"], default="real")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=SHOWN, metavar="NAME")
    parser.add_argument("--rounds", type=positive, default=10)
    parser.add_argument("--steps", type=positive, default=5, help="of a turn; default: 5")
    parser.add_argument("--faces", type=Path, default=FACES, help="default: study_faces")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    words = sys.argv[1:] if arguments is None else arguments
    command = " ".join(["python", "eval/study/step_costs.py", *words])
    report = Report(command, {k: getattr(args, k) for k in ("data", "rounds", "steps")})
    try:
        with tempfile.TemporaryDirectory() as work:
            sides = {}
            for method in dict.fromkeys([PLAIN, *args.methods]):
                cell = Cell(args.data, method, 1).checked()
                config = cell_config(cell, args.faces, Path(work) / method)
                if config.cakd is not None:
                    check_teacher_is_trained(cell.of, args.faces)
                give_class_means(cell, config, args.faces)
                steps = Steps(config, torch.device("cpu"))
                step = steps.without if config.cakd is None else steps.with_cache
                sides[method] = turn_of(step, args.steps)
            times = take_turns(sides, args.rounds)
    except ArcfaceCakdError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report.add_times(times)
    for method in sides:
        if method != PLAIN:
            report.ratios[f"{method} / {PLAIN}"] = times.ratio(method, PLAIN)
    print(report)
    if args.json:
        write_text(args.json, json.dumps(report.to_dict(), indent=1) + "\n")
    return 0


def turn_of(step: Callable[[], None], steps: int) -> Callable[[], None]:
    """So many steps."""

    def turn() -> None:
        for _ in range(steps):
            step()

    return turn


if __name__ == "__main__":
    sys.exit(main())
