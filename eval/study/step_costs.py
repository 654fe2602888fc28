"""What a training step of each method costs, against the plain student's, taking turns.

    python eval/study/step_costs.py --json eval/study/step_costs.json

Steps are of one batch of 64, what the teacher says read from its cache, in CPU time of one thread.
A cell's own CPU seconds hold its evaluation too, and what else the machine did beside it; so costs
are compared here and not there.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from grid import SIZES, Cell, cell_config
from methods import METHODS
from run import FACES

from arcface_cakd.bench import Report, take_turns
from arcface_cakd.bench.step import Steps
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.files import write_text

PLAIN = "plain"
# Those of the README's table; the number of epochs changes no step.
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
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--faces", type=Path, default=FACES, help="default: study_faces")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    command = " ".join(["python", "eval/study/step_costs.py", *sys.argv[1:]])
    report = Report(command, {"data": args.data, "rounds": args.rounds})
    try:
        with tempfile.TemporaryDirectory() as work:
            sides = {}
            for method in dict.fromkeys([PLAIN, *args.methods]):
                cell = Cell(args.data, method, 1).checked()
                config = cell_config(cell, args.faces, Path(work) / method)
                steps = Steps(config, torch.device("cpu"))
                sides[method] = steps.without if config.cakd is None else steps.with_cache
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


if __name__ == "__main__":
    sys.exit(main())
