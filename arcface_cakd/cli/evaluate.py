"""``arcface-cakd evaluate``: verification accuracy of a model."""

import argparse
import json
import logging
from pathlib import Path

from arcface_cakd.config.training import VAL_TARGETS
from arcface_cakd.files import write_text
from arcface_cakd.registry import did_you_mean

logger = logging.getLogger("arcface_cakd")

HELP = "Verify faces with a model: 10-fold accuracy, AUC, EER and TAR at FAR on .bin sets."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "example: arcface-cakd evaluate work_dirs/mbf/model.pt --network mbf --data faces/\n"
        "         arcface-cakd evaluate student.onnx --data faces/lfw.bin --json lfw.json"
    )
    parser.add_argument("model", metavar="MODEL", help="a model.pt, or an .onnx file")
    parser.add_argument("--network", metavar="NAME", help="network of a model.pt")
    parser.add_argument(
        "--embedding-size", type=positive, default=512, metavar="E", help="default: %(default)s"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="PATH",
        help="folders of .bin sets, or .bin files, with their suffix or without",
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        metavar="SET",
        help=f"sets to take from folders; default: {', '.join(VAL_TARGETS)}, those that are "
        "there; where none is, all",
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
    parser.add_argument("--json", metavar="FILE", help="write every figure to a file")
    parser.add_argument("--roc", metavar="FILE.png", help="draw the ROC curves")


def run(args: argparse.Namespace) -> None:
    from arcface_cakd.data import read_bin
    from arcface_cakd.evaluation import (
        EvaluationError,
        check_picture,
        evaluate_set,
        plot_roc,
        verification_table,
    )

    if args.roc:
        check_picture(args.roc)
    sets = _find_sets([Path(path) for path in args.data], args.targets)
    backbone, device = _load(args)
    results = {}
    for name, path in sets.items():
        pairs = read_bin(path)
        try:
            results[name] = evaluate_set(backbone, pairs, args.batch_size, device, name)
        except EvaluationError as error:
            raise EvaluationError(f"{args.model} on {path}: {error}") from error
    print(verification_table(results))
    if args.json:
        figures = {
            "model": args.model,
            "network": args.network,
            "sets": {name: result.to_dict() for name, result in results.items()},
        }
        write_text(args.json, json.dumps(figures, indent=2) + "\n")
    if args.roc:
        plot_roc(results, args.roc, title=args.model)


def positive(text: str) -> int:
    """A whole number of 1 or more, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, got {number}")
    return number


def _find_sets(paths: list[Path], targets: list[str] | None) -> dict[str, Path]:
    """Paths of the .bin sets, by the name to print."""
    from arcface_cakd.evaluation import EvaluationError

    folders: dict[Path, dict[str, Path]] = {}
    files: dict[Path, Path] = {}
    for path in paths:
        named = path.with_name(f"{path.name}.bin")
        if path.is_dir():
            folders[path] = {file.stem: file for file in sorted(path.glob("*.bin"))}
            if not folders[path]:
                raise EvaluationError(f"no .bin set is in {path}")
        elif path.is_file() or named.is_file():
            files[path] = path if path.is_file() else named
        else:
            raise EvaluationError(f"--data {path}: no such file or folder")
    targets = [name.removesuffix(".bin") for name in targets or []]
    everywhere = {name for there in folders.values() for name in there}
    for name in targets:
        if name not in everywhere:
            hint = did_you_mean(name, sorted(everywhere))
            where = ", ".join(map(str, folders or paths))
            raise EvaluationError(f"no {name}.bin in {where}; {hint}")
    found = []
    for path in paths:
        if path in files:
            found.append(files[path])
            continue
        there = folders[path]
        names = targets or [name for name in VAL_TARGETS if name in there] or list(there)
        found += [there[name] for name in names if name in there]
        left = [name for name in there if name not in names]
        if left and not targets:
            logger.info("%s: also there: %s; --targets names them", path, ", ".join(left))
    stems = [path.stem for path in found]
    return {path.stem if stems.count(path.stem) == 1 else str(path): path for path in found}


def _load(args: argparse.Namespace):
    """The model, and the device to run it on."""
    from arcface_cakd.backbones import get_model, load_weights
    from arcface_cakd.evaluation import EvaluationError, OnnxBackbone

    device = _device(args.device)
    if Path(args.model).suffix == ".onnx":
        return OnnxBackbone(args.model, args.device and str(device), args.pixels), None
    if args.pixels:
        raise EvaluationError(f"--pixels is for .onnx files, and {args.model} is none: drop it")
    if not args.network:
        raise EvaluationError(f"--network is needed for {args.model}: say which network it is of")
    backbone = get_model(args.network, num_features=args.embedding_size)
    load_weights(backbone, args.model)
    return backbone, device


def _device(name: str | None):
    import torch

    from arcface_cakd.evaluation import EvaluationError

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = str(error).splitlines()[0]
        raise EvaluationError(f"--device {name} cannot be used here: {reason}") from error
    return device
