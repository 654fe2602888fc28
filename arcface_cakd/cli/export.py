"""``arcface-cakd export``: a model as an ONNX file."""

import argparse
import json
from dataclasses import asdict

from arcface_cakd.cli.evaluate import positive
from arcface_cakd.files import write_text

HELP = "Write a model as one ONNX file that insightface loads, after comparing it with torch."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "example: arcface-cakd export work_dirs/mbf/model.pt --network mbf --output mbf.onnx"
    )
    parser.add_argument("model", metavar="MODEL.pt", help="weights, as training writes them")
    parser.add_argument("--network", required=True, metavar="NAME", help="network of the weights")
    parser.add_argument("--output", required=True, metavar="FILE.onnx", help="where to")
    parser.add_argument(
        "--embedding-size", type=positive, default=512, metavar="E", help="default: %(default)s"
    )
    parser.add_argument("--json", metavar="FILE", help="write the comparison to a file")


def run(args: argparse.Namespace) -> None:
    from arcface_cakd.backbones import get_model, load_weights
    from arcface_cakd.export import export_onnx

    backbone = get_model(args.network, num_features=args.embedding_size)
    load_weights(backbone, args.model)
    report = export_onnx(backbone, args.output)
    batches = " and ".join(str(batch) for batch in report.batches)
    print(
        f"{report.path}: {report.size / 1e6:.1f} MB, opset {report.opset}, any batch size\n"
        f"against torch, at batches of {batches}: cosine at least {report.cosine:.9f}, "
        f"elements within {report.max_abs_diff:.1e}"
    )
    if args.json:
        write_text(args.json, json.dumps(asdict(report), indent=2) + "\n")
