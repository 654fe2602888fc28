"""``arcface-cakd bench``: what things cost on this machine, as ratios."""

import argparse
import json
import shlex
import sys

from arcface_cakd.cli.evaluate import positive
from arcface_cakd.files import write_text

HELP = "measure speed and memory: against the parts, arcface_torch and others, as ratios in one run"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example: arcface-cakd bench classes --num-classes 100000 --json classes.json"
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    classes = _action(
        actions,
        "classes",
        "the margin softmax over many classes, beside arcface_torch's PartialFC_V2",
        "arcface-cakd bench classes --num-classes 1000000 --rounds 1",
    )
    classes.add_argument(
        "--num-classes", type=positive, default=100_000, metavar="C", help="[100000]"
    )
    classes.add_argument("--batch-size", type=positive, default=128, metavar="B", help="[128]")
    _add_arcface_torch(classes)


def run(args: argparse.Namespace) -> None:
    import torch

    from arcface_cakd.bench import Report

    torch.set_num_threads(args.threads)
    left_out = ("command", "action", "run", "modules", "more_modules", "json")
    settings = {name: value for name, value in vars(args).items() if name not in left_out}
    report = Report(shlex.join(["arcface-cakd", *sys.argv[1:]]), settings)
    _ACTIONS[args.action](args, report)
    print(report)
    if args.json:
        write_text(args.json, json.dumps(report.to_dict(), indent=2) + "\n")


def _classes(args: argparse.Namespace, report) -> None:
    from arcface_cakd.bench.classes import measure_classes

    measure_classes(
        report,
        args.num_classes,
        batch_size=args.batch_size,
        rounds=args.rounds,
        arcface_torch=_arcface_torch(args, report),
    )


def _arcface_torch(args: argparse.Namespace, report):
    """The checkout to compare with; where there is none, the report says so."""
    from arcface_cakd.bench.checkouts import find_checkout

    folder = find_checkout(args.arcface_torch, "ARCFACE_TORCH", "partial_fc_v2.py")
    if folder is None:
        report.notes.append(
            "not compared with arcface_torch: give --arcface-torch, or set ARCFACE_TORCH"
        )
    return folder


_ACTIONS = {"classes": _classes}


def _action(actions, name: str, text: str, example: str) -> argparse.ArgumentParser:
    action = actions.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    action.add_argument(
        "--rounds", type=positive, default=7, metavar="R", help="turns of each side [7]"
    )
    action.add_argument(
        "--threads",
        type=positive,
        default=1,
        metavar="T",
        help="of torch [1]",
    )
    action.add_argument("--json", metavar="FILE", help="write every figure to a file")
    return action


def _add_arcface_torch(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--arcface-torch",
        metavar="DIR",
        help="recognition/arcface_torch of a checkout to compare with [$ARCFACE_TORCH]",
    )
