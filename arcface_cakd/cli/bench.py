"""``arcface-cakd bench``: what things cost on this machine, as ratios."""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from arcface_cakd.cli.evaluate import device_named
from arcface_cakd.cli.figures import add_json, write_json
from arcface_cakd.cli.imports import PLACES, add_import
from arcface_cakd.cli.numbers import at_least_2, positive
from arcface_cakd.cli.saved_model import load_model
from arcface_cakd.cli.without_effect import refuse

HELP = "measure speed and memory: against the parts, arcface_torch and others, as ratios in one run"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example: arcface-cakd bench classes --num-classes 100000 --json classes.json"
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    step = _action(
        actions,
        "step",
        "a distilling step of the built-in loop, against the parts that it is made of",
        "arcface-cakd bench step --student mbf --teacher swin_t",
    )
    _add_networks(step)
    step.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 [cpu]")
    step.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    step.add_argument(
        "--teacher-bf16", action="store_true", help="each method also with its teacher in bfloat16"
    )

    loops = _action(
        actions,
        "loops",
        "the whole built-in loop beside arcface_torch's own, and AdaDistill's",
        "arcface-cakd bench loops --network mbf --arcface-torch DIR",
    )
    loops.add_argument(
        "--network", default="mbf", metavar="NAME", help="trained beside arcface_torch [mbf]"
    )
    loops.add_argument("--batch-size", type=at_least_2, default=8, metavar="B", help="[8]")
    _add_arcface_torch(loops)
    loops.add_argument(
        "--adadistill", metavar="DIR", help="a checkout to compare with [$ADADISTILL]"
    )

    data = _action(
        actions,
        "data",
        "from a record to a training item: the built-in loader, fast_items, arcface_torch's own",
        "arcface-cakd bench data --arcface-torch DIR",
    )
    data.add_argument("--images", type=positive, default=500, metavar="N", help="to make [500]")
    _add_arcface_torch(data)

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

    memory = _action(
        actions,
        "memory",
        "the memory of a distilling step at most, against the parts that it is made of",
        "arcface-cakd bench memory --student mbf --teacher swin_t",
        rounds=1,
    )
    _add_networks(memory)

    scaling = _action(
        actions,
        "scaling",
        "a step on 1, 2 and 3 ranks and 2 nodes of this machine: bytes and time of what they "
        "exchange",
        "arcface-cakd bench scaling --network mbf",
        rounds=5,
    )
    scaling.add_argument("--network", default="mbf", metavar="NAME", help="[mbf]")
    scaling.add_argument(
        "--batch-size", type=at_least_2, default=4, metavar="B", help="of each rank [4]"
    )
    scaling.add_argument(
        "--num-classes", type=positive, default=1000, metavar="C", help="of all ranks [1000]"
    )

    latency = _action(
        actions,
        "latency",
        "one face through exported files, in their runtimes, and through model.pt, in all",
        "arcface-cakd bench latency model.pt mbf.int8.onnx --teacher teacher.pt",
        rounds=50,
        threads=(1, 2),
    )
    latency.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="exported files; a model.pt is exported for every runtime that is installed",
    )
    latency.add_argument(
        "--network", metavar="NAME", help="network of weights that have no model.json beside them"
    )
    latency.add_argument("--teacher", metavar="FILE", help="a model to compare with")
    latency.add_argument(
        "--teacher-network", metavar="NAME", help="its network, where no model.json says it"
    )


def run(args: argparse.Namespace) -> None:
    import torch

    from arcface_cakd.bench import Report

    torch.set_num_threads(args.threads if isinstance(args.threads, int) else args.threads[0])
    left_out = ("command", "action", "run", *PLACES, "json")
    settings = {name: value for name, value in vars(args).items() if name not in left_out}
    report = Report(shlex.join(["arcface-cakd", *sys.argv[1:]]), settings)
    _ACTIONS[args.action](args, report)
    print(report)
    write_json(args.json, report.to_dict())


def _classes(args: argparse.Namespace, report) -> None:
    from arcface_cakd.bench.classes import measure_classes

    measure_classes(
        report,
        args.num_classes,
        batch_size=args.batch_size,
        rounds=args.rounds,
        arcface_torch=_arcface_torch(args, report),
    )


def _latency(args: argparse.Namespace, report) -> None:
    from arcface_cakd.bench import BenchError
    from arcface_cakd.bench.latency import exports_of, labels, measure_latency, of_file, of_network
    from arcface_cakd.runtimes import ending_of

    if all(ending_of(path) for path in args.files):
        refuse(args, ("network",), "is for model.pt files, and none is given: drop it")
    if not args.teacher or ending_of(args.teacher):
        refuse(args, ("teacher_network",), "is for a model.pt as --teacher: give one, or drop it")
    if len(set(args.threads)) < len(args.threads):
        raise BenchError(f"--threads {shlex.join(map(str, args.threads))}: say each number once")

    def opened(path: str, label: str, network: str | None):
        if ending_of(path):
            return of_file(path, label)
        weights = argparse.Namespace(model=path, network=network, embedding_size=None)
        return of_network(label, load_model(weights).backbone)

    names = labels([*args.files, *([args.teacher] if args.teacher else [])])
    teacher = opened(args.teacher, names.pop(), args.teacher_network) if args.teacher else None
    given = [opened(path, name, args.network) for path, name in zip(args.files, names, strict=True)]
    models = []
    with tempfile.TemporaryDirectory() as folder:
        for timed, name in zip(given, names, strict=True):
            models.append(timed)
            if timed.network is not None:
                models += exports_of(name, timed.network, Path(folder) / str(len(models)), report)
        measure_latency(report, models, teacher=teacher, threads=args.threads, rounds=args.rounds)


def _step(args: argparse.Namespace, report) -> None:
    from arcface_cakd.bench.step import measure_step

    measure_step(
        report,
        args.student,
        args.teacher,
        batch_size=args.batch_size,
        rounds=args.rounds,
        device=device_named(args.device),
        precision=args.precision,
        teacher_bf16=args.teacher_bf16,
    )


def _memory(args: argparse.Namespace, report) -> None:
    from arcface_cakd.bench.step_memory import measure_memory

    sizes = {"batch_size": args.batch_size, "rounds": args.rounds}
    measure_memory(report, args.student, args.teacher, **sizes)


def _scaling(args: argparse.Namespace, report) -> None:
    from arcface_cakd.bench.scaling import measure_scaling

    measure_scaling(
        report,
        args.network,
        batch_size=args.batch_size,
        num_classes=args.num_classes,
        rounds=args.rounds,
    )


def _loops(args: argparse.Namespace, report) -> None:
    from arcface_cakd.bench.checkouts import find_checkout
    from arcface_cakd.bench.loops import compare_with_adadistill, compare_with_arcface_torch

    sizes = {"batch_size": args.batch_size, "rounds": args.rounds}
    arcface_torch = _arcface_torch(args, report)
    if arcface_torch is not None:
        compare_with_arcface_torch(report, arcface_torch, args.network, **sizes)
    adadistill = find_checkout(args.adadistill, "ADADISTILL", "train/train_AdaDistill.py")
    if adadistill is not None:
        compare_with_adadistill(report, adadistill, **sizes)
    else:
        report.notes.append("not compared with AdaDistill: give --adadistill, or set ADADISTILL")


def _data(args: argparse.Namespace, report) -> None:
    from arcface_cakd.bench.data import measure_data

    measure_data(
        report,
        images=args.images,
        batch_size=min(50, args.images),
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


_ACTIONS = {
    "step": _step,
    "loops": _loops,
    "data": _data,
    "classes": _classes,
    "memory": _memory,
    "scaling": _scaling,
    "latency": _latency,
}


def _action(
    actions,
    name: str,
    text: str,
    example: str,
    rounds: int = 7,
    threads: tuple[int, ...] | None = None,
) -> argparse.ArgumentParser:
    action = actions.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example: {example}",
    )
    add_import(action, "import_in_action")
    action.add_argument(
        "--rounds",
        type=positive,
        default=rounds,
        metavar="R",
        help=f"turns of each side [{rounds}]",
    )
    if threads is None:
        action.add_argument("--threads", type=positive, default=1, metavar="T", help="of torch [1]")
    else:
        action.add_argument(
            "--threads",
            type=positive,
            nargs="+",
            default=list(threads),
            metavar="T",
            help=f"numbers of threads to try {list(threads)}",
        )
    add_json(action, "write every figure to a file")
    return action


def _add_networks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--student", default="mbf", metavar="NAME", help="[mbf]")
    parser.add_argument(
        "--teacher", default="swin_t", metavar="NAME", help="one that prompts go into [swin_t]"
    )
    parser.add_argument("--batch-size", type=at_least_2, default=4, metavar="B", help="[4]")


def _add_arcface_torch(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--arcface-torch",
        metavar="DIR",
        help="recognition/arcface_torch of a checkout to compare with [$ARCFACE_TORCH]",
    )
