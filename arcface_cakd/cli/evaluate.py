"""``arcface-cakd evaluate``: how well a model tells people apart, by a protocol."""

import argparse
from pathlib import Path

from arcface_cakd.cli.figures import add_json, write_json
from arcface_cakd.cli.numbers import draws, positive
from arcface_cakd.cli.saved_model import load_model
from arcface_cakd.cli.without_effect import refuse

HELP = "Judge a model by a protocol: .bin pairs by default; `arcface-cakd list protocols`."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "examples:\n"
        "  arcface-cakd evaluate work_dirs/mbf/model.pt --data faces/\n"
        "  arcface-cakd evaluate student.onnx --data faces/lfw.bin --json lfw.json"
    )
    parser.add_argument("model", metavar="MODEL", help="a model.pt, or an exported file")
    parser.add_argument(
        "--network", metavar="NAME", help="network of a model.pt that has no model.json beside it"
    )
    parser.add_argument(
        "--embedding-size", type=positive, metavar="E", help="its width; default: as it is saved"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="PATH",
        help="what the protocol reads: a data set's folder; for .bin pairs folders, or files with "
        "their suffix or without",
    )
    parser.add_argument(
        "--protocol", default="bin", metavar="NAME", help="one of `list protocols` [%(default)s]"
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        metavar="SET",
        help="sets to take from folders; default: lfw, cfp_fp, agedb_30, calfw, cplfw, xqlfw, "
        "those that are there; where none is, all",
    )
    parser.add_argument(
        "--batch-size", type=positive, default=128, metavar="B", help="default: %(default)s"
    )
    parser.add_argument(
        "--pixels",
        choices=("raw", "normalised"),
        help="what an .onnx file takes: 0..255, or [-1, 1]; default: told by names of its nodes",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: cuda where there is one")
    parser.add_argument(
        "--draws",
        type=draws,
        default=1000,
        metavar="N",
        help="how often people are drawn again for the intervals; 0: no intervals [%(default)s]",
    )
    add_json(parser, "write every figure to a file")
    parser.add_argument("--roc", metavar="FILE.png", help="draw the ROC curves")


def run(args: argparse.Namespace) -> None:
    from arcface_cakd.evaluation import Embedder, EvaluationError, check_picture, plot_roc
    from arcface_cakd.registry import PROTOCOLS

    chosen = PROTOCOLS.get(args.protocol)
    lacking = sorted(getattr(chosen, "__abstractmethods__", ()))
    if lacking:  # a protocol of the user's own
        raise EvaluationError(
            f"--protocol {args.protocol}: its class {chosen.__name__} lacks {', '.join(lacking)}, "
            "which arcface_cakd.evaluation.protocols.Protocol says what to do"
        )
    if args.targets and not chosen.takes_targets:
        raise EvaluationError(
            f"--targets: the protocol {args.protocol} has no sets to choose from: drop it"
        )
    if args.roc and not chosen.has_roc:
        raise EvaluationError(f"--roc: the protocol {args.protocol} has no ROC curve: drop it")
    if args.roc:
        check_picture(args.roc)
    protocol = chosen([Path(path) for path in args.data], args.targets)
    backbone, network, device = open_model(args)
    weights = digest_of_weights(args.model) if args.json else None
    try:
        results = protocol.judge(Embedder(backbone, args.batch_size, device), args.draws)
    except EvaluationError as error:
        raise EvaluationError(f"{args.model} on {error}") from error
    print(protocol.table(results))
    if args.json:
        sets = {name: result.to_dict() for name, result in results.items()}
        for name, digest in protocol.data_digests().items():
            if name in sets:  # a protocol of the user's own may have looked at more
                sets[name]["data"] = {"sha256": digest}
        figures = {
            "model": args.model,
            "model_sha256": weights,
            "network": network,
            "protocol": args.protocol,
            "sets": sets,
        }
        write_json(args.json, figures)
    if args.roc:
        curves = {name: result for name, result in results.items() if hasattr(result, "roc")}
        plot_roc(curves, args.roc, title=args.model)


def open_model(args: argparse.Namespace):
    """The model, its network (None of an ONNX file), and the device to run it on."""
    from arcface_cakd.evaluation import EvaluationError, OnnxBackbone
    from arcface_cakd.runtimes import ending_of, open_exported

    ending = ending_of(args.model)
    if ending is not None:
        is_none = f"is for model.pt files, and {args.model} is none: drop it"
        refuse(args, ("network", "embedding_size"), is_none)
    if ending not in (None, ".onnx"):
        is_none = f"is for model.pt and .onnx files, and {args.model} is none: drop it"
        refuse(args, ("device",), is_none)
    device = device_named(args.device)
    if ending == ".onnx":
        return OnnxBackbone(args.model, args.device and str(device), args.pixels), None, None
    if args.pixels:
        raise EvaluationError(f"--pixels is for .onnx files, and {args.model} is none: drop it")
    if ending is not None:
        return open_exported(args.model), None, None
    return *load_model(args), device


def digest_of_weights(model: str) -> str | None:
    """The SHA-256 of a model's file, of two that with the weights; None of one that is no file.

    That is what ``hf:<owner>/<name>`` is, which the name tells.
    """
    from arcface_cakd.files import sha256_of
    from arcface_cakd.runtimes import ending_of, files_of

    file = Path(model) if ending_of(model) is None else files_of(model)[-1]
    return sha256_of(file) if file.is_file() else None


def device_named(name: str | None):
    """The torch.device of ``--device``; where none is named, a GPU if there is one.

    Raises:
        EvaluationError: it cannot be used here.
    """
    import torch

    from arcface_cakd.evaluation import EvaluationError

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # which "meta" has not
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = str(error).splitlines()[0]
        raise EvaluationError(f"--device {name} cannot be used here: {reason}") from error
    return device
