"""``arcface-cakd report``: one page that shows runs side by side."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from arcface_cakd.cli.without_effect import refuse

if TYPE_CHECKING:
    from arcface_cakd.evaluation import Embedder
    from arcface_cakd.report import ReportedRun

HELP = "Show runs side by side on one HTML page: settings, curves, scores, cost."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "What `evaluate --json` wrote into a run's folder is shown too. Beside the page go its "
        "figures (.csv, .json) and charts (.png).\n\n"
        "examples:\n"
        "  arcface-cakd report work_dirs/plain work_dirs/distilled\n"
        "  arcface-cakd report work_dirs/* --data faces/ --output compared.html"
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output folders of runs")
    parser.add_argument(
        "--output", default="report.html", metavar="FILE.html", help="default: %(default)s"
    )
    parser.add_argument(
        "--data", nargs="+", metavar="PATH", help=".bin sets, or their folders, to judge runs on"
    )
    parser.add_argument("--targets", nargs="+", metavar="SET", help="sets to take from folders")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: cuda where there is one")


def run(args: argparse.Namespace) -> None:
    from arcface_cakd.evaluation.protocols import BinPairs
    from arcface_cakd.files import sha256_of
    from arcface_cakd.report import (
        ReportError,
        check_installed,
        check_place,
        open_runs,
        write_report,
    )

    if Path(args.output).suffix.lower() not in (".html", ".htm"):
        raise ReportError(f"--output {args.output} must end in .html: it is a page")
    if args.targets and not args.data:
        raise ReportError("--targets chooses among sets of --data, and there is none: say --data")
    if not args.data:
        refuse(args, ("device",), "is where runs are judged on --data: say --data, or drop it")
    check_installed()
    check_place(args.output)
    runs = open_runs(args.runs)
    if args.data:
        pairs = BinPairs([Path(path) for path in args.data], args.targets)
        digests = {name: sha256_of(path) for name, path in pairs.sets.items()}
        judged = [pairs.judge(_embedder(run, args.device)) for run in runs]
        runs = [
            replace(run, judged=results, digests=digests)
            for run, results in zip(runs, judged, strict=True)
        ]
    page, *beside = write_report(runs, args.output)
    print(f"{page}, and beside it {len(beside)} files: {beside[0].name}, {beside[1].name}, charts")


def _embedder(run: "ReportedRun", device: str | None) -> "Embedder":
    """The run's student, as the protocols see it."""
    from arcface_cakd.backbones import get_model, load_weights
    from arcface_cakd.cli.evaluate import device_named
    from arcface_cakd.evaluation import Embedder
    from arcface_cakd.report import ReportError

    if not run.record:
        raise ReportError(
            f"{run.folder} {run.without_record}, so that nobody knows which network model.pt is "
            "of: drop --data, and judge it by `arcface-cakd evaluate --json FILE` with FILE in "
            "that folder"
        )
    config = run.record["config"]
    student = get_model(config["network"], num_features=config["embedding_size"])
    load_weights(student, run.folder / "model.pt")
    return Embedder(student, device=device_named(device))
