"""``arcface-cakd export``: a model as a file for a runtime."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from arcface_cakd import __version__
from arcface_cakd.cli.evaluate import positive
from arcface_cakd.cli.saved_model import SavedModel, load_model
from arcface_cakd.files import write_text

if TYPE_CHECKING:
    from arcface_cakd.export import ExportReport
    from arcface_cakd.export.judging import Accuracies

HELP = "Write a model for ONNX, LiteRT, ncnn or OpenVINO, after comparing it with torch."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "examples: arcface-cakd export model.pt --output mbf.onnx\n"
        "          arcface-cakd export model.pt --output mbf.ncnn.param\n"
        "          arcface-cakd export model.pt --output mbf.int8.onnx \\\n"
        "              --precision int8 --calibrate faces/train.rec --data lfw.bin --max-loss 0.5"
    )
    parser.add_argument("model", metavar="MODEL.pt", help="weights, as training writes them")
    parser.add_argument(
        "--network", metavar="NAME", help="network of weights that have no model.json beside them"
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="where to; .onnx, .tflite, .ncnn.param or .xml says the format",
    )
    parser.add_argument(
        "--embedding-size", type=positive, metavar="E", help="their width; default: as saved"
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        metavar="P",
        help="fp32 (default), fp16 or int8; int8 of .onnx is of weights and activations, of "
        ".tflite of weights",
    )
    parser.add_argument(
        "--opset", type=positive, default=17, metavar="N", help="of .onnx; default: %(default)s"
    )
    parser.add_argument(
        "--calibrate",
        metavar="FACES",
        help="a .bin set, a train.rec or a folder of faces, to compare on, and for int8 of .onnx "
        "to find ranges and choose layers by; never what you report on",
    )
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="SET.bin", help="judge accuracy on these sets"
    )
    parser.add_argument(
        "--max-loss",
        type=float,
        metavar="POINTS",
        help="write nothing where the file loses more than that on one of --data",
    )
    parser.add_argument(
        "--about",
        nargs="+",
        default=[],
        metavar="KEY=TEXT",
        help="what the file is to say of itself, as training_data=MS1MV3 license=MIT",
    )
    parser.add_argument("--json", metavar="FILE", help="write the comparison to a file")


def run(args: argparse.Namespace) -> None:
    from arcface_cakd.data import read_bin
    from arcface_cakd.export import ExportError, export_model
    from arcface_cakd.export.calibration import calibration_faces
    from arcface_cakd.export.judging import Judge

    if args.max_loss is not None and not args.data:
        raise ExportError("--max-loss is judged on --data: give a .bin set")
    if args.calibrate and any(_same(args.calibrate, path) for path in args.data):
        raise ExportError(
            f"{args.calibrate} is in --calibrate and in --data: what a file was chosen by says "
            "nothing of its accuracy"
        )
    model = load_model(args)
    judge = None
    if args.data:
        sets = {Path(path).stem: read_bin(path) for path in args.data}
        judge = Judge(model.backbone, sets, args.max_loss)
    report = export_model(
        model.backbone,
        args.output,
        args.precision,
        opset=args.opset,
        faces=calibration_faces(args.calibrate) if args.calibrate else None,
        about=_about(args, model),
        judge=judge,
    )
    accuracies = judge.accuracies if judge else {}
    print(_text(report, accuracies))
    if args.json:
        figures = {
            **asdict(report),
            "accuracy": {name: asdict(found) for name, found in accuracies.items()},
        }
        write_text(args.json, json.dumps(figures, indent=2) + "\n")


def _about(args: argparse.Namespace, model: SavedModel) -> dict[str, str]:
    """What the file says of itself."""
    from arcface_cakd.export import ExportError

    said = {
        "made_by": f"arcface_cakd {__version__}",
        "network": model.network,
        "embedding_size": str(model.backbone.embedding_size),
        "precision": args.precision,
        "input": "float32 (N, 3, 112, 112), RGB, aligned by the ArcFace template",
        "normalisation": "(pixel / 255 - 0.5) / 0.5, into [-1, 1]",
        "output": "float32 (N, E), not normalised: compare by cosine",
    }
    for text in args.about:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ExportError(f"--about {text}: write KEY=TEXT, as license=MIT")
        said[key] = value
    return said


def _text(report: "ExportReport", accuracies: "dict[str, Accuracies]") -> str:
    head = [f"{report.path}: {report.size / 1e6:.1f} MB", report.precision]
    if report.opset is not None:
        head += [f"opset {report.opset}", "any batch size"]
    if report.batch_norms_left:
        head.append(f"BatchNorm folded but for {report.batch_norms_left} before padding")
    if report.float_layers:
        head.append(f"in float: {', '.join(report.float_layers)}")
    lines = [
        ", ".join(head),
        f"against torch, in {report.runtime}, on {sum(report.batches)} pictures: cosine at least "
        f"{report.cosine:.9f}, elements within {report.max_abs_diff:.1e}",
    ]
    for name, found in accuracies.items():
        lines.append(
            f"{name}: {found.exported:.2f} %, {found.original:.2f} % by torch: "
            f"{found.loss:+.2f} points lost"
        )
    return "\n".join(lines)


def _same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()
