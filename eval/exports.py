"""What is left of a student after export: a table of files, by format and precision.

    python eval/exports.py model.pt --network r10_mini --calibrate faces/dev.bin \\
        --data faces/test.bin --json eval/results/exports.json

Each file is written as `arcface-cakd export` writes it, and run by the runtime that it is for:

- MB: all of its files.
- CPU ms: of one face, batch 1, one thread: the time that this process had of the CPU, not of the
  clock, so that what else the machine does counts little. Median of the rounds, in which the files
  take turns, and quartiles.
- cosine: to torch's embeddings in float32, on faces of --calibrate that no range was found with.
- accuracy: 10 folds on --data, percent, mirror images added; beside it what is lost against torch.

int8 .onnx finds its ranges, and chooses what stays in float, on --calibrate alone. --networks have
random weights, their BatchNorms having seen faces: those rows say nothing of accuracy.
Where a converter or runtime is not installed (extra `mobile`), the row says so.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from arcface_cakd.backbones import get_model, load_weights
from arcface_cakd.bench.faces import learn_statistics
from arcface_cakd.bench.machine import machine
from arcface_cakd.bench.timing import Ratio, take_turns
from arcface_cakd.data import as_batch
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.evaluation import VerificationResult
from arcface_cakd.export import export_model
from arcface_cakd.export.calibration import calibration_faces
from arcface_cakd.export.judging import Judge
from arcface_cakd.files import write_text
from arcface_cakd.runtimes import open_exported

FILES = {
    "ONNX fp32": ("student.onnx", "fp32"),
    "ONNX fp16": ("student.fp16.onnx", "fp16"),
    "ONNX int8": ("student.int8.onnx", "int8"),
    "ncnn fp32": ("student.ncnn.param", "fp32"),
    "ncnn fp16": ("student.fp16.ncnn.param", "fp16"),
    "LiteRT fp32": ("student.tflite", "fp32"),
    "LiteRT int8 weights": ("student.int8.tflite", "int8"),
    "OpenVINO fp32": ("student.xml", "fp32"),
    "OpenVINO fp16": ("student.fp16.xml", "fp16"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL.pt")
    parser.add_argument("--network", required=True)
    parser.add_argument("--embedding-size", type=int, default=512)
    parser.add_argument("--calibrate", required=True, metavar="FACES")
    parser.add_argument("--data", required=True, metavar="SET.bin")
    parser.add_argument("--networks", nargs="*", default=["mbf", "r18"], help="mbf r18")
    parser.add_argument("--rounds", type=int, default=100, help="of the timing (100)")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(1)

    faces = calibration_faces(args.calibrate)
    student = get_model(args.network, num_features=args.embedding_size)
    load_weights(student, args.model)
    judge = Judge(student, [Path(args.data)])
    rows: dict[str, dict[str, Any]] = {}

    def keep(prefix: str, found: dict[str, dict[str, Any]]) -> None:
        rows.update({f"{prefix}{label}": row for label, row in found.items()})
        if args.json:
            figures = {
                "date": date.today().isoformat(),
                "machine": machine(),
                "network": args.network,
                "calibrated_on": Path(args.calibrate).name,
                "judged_on": Path(args.data).name,
                "rows": rows,
            }
            write_text(args.json, json.dumps(figures, indent=1) + "\n")

    keep("", exported(student.eval(), faces, judge, args.rounds))
    for name in args.networks:
        few = exported(random_network(name, faces), faces[:32], None, max(3, args.rounds // 10))
        keep(f"{name}, random weights: ", few)
    print(table(rows))


def exported(
    model: nn.Module, faces: np.ndarray, judge: Judge | None, rounds: int
) -> dict[str, dict[str, Any]]:
    """A row for torch and for each file, by label."""
    rows: dict[str, dict[str, Any]] = {"torch fp32": {}}
    face = as_batch(faces[:1])

    def by_torch(images: Tensor) -> Tensor:
        with torch.no_grad():
            return model(images)

    running: dict[str, Callable[[Tensor], Tensor]] = {"torch fp32": by_torch}
    with tempfile.TemporaryDirectory() as folder:
        for label, (name, precision) in FILES.items():
            path = Path(folder) / name
            try:
                report = export_model(model, path, precision, faces=faces, judge=judge)
            except ArcfaceCakdError as error:
                rows[label] = {"failure": str(error).replace(folder, "")}
                print(f"{label}: {rows[label]['failure']}", flush=True)
                continue
            rows[label] = asdict(report) | {"path": name}
            if judge is not None:
                ((name, loss),) = judge.losses().items()
                rows["torch fp32"] |= of_result(judge.original[name])
                rows[label] |= of_result(judge.exported[name]) | {"loss": loss}
            running[label] = open_exported(path, threads=1)
            print(f"{label}: {rows[label]}", flush=True)
        times = take_turns(
            {label: lambda run=run: run(face) for label, run in running.items()},
            rounds,
            warm_up=5,
        )
    for label, seconds in times.seconds.items():
        spread = Ratio.of([1000 * one for one in seconds])
        rows[label] |= {"cpu_ms": spread.median, "cpu_ms_quartiles": [spread.low, spread.high]}
    rows["torch fp32"]["size"] = sum(
        tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()
    )
    return rows


def of_result(result: VerificationResult) -> dict[str, Any]:
    """In percent."""
    found: dict[str, Any] = {"accuracy": 100 * result.accuracy}
    if result.accuracy_interval is not None:
        ends = result.accuracy_interval
        found["accuracy_interval"] = [100 * ends.low, 100 * ends.high]
    return found


def random_network(name: str, faces: np.ndarray) -> nn.Module:
    """Random weights whose BatchNorms know the statistics of faces."""
    torch.manual_seed(0)
    model = get_model(name, num_features=512)
    learn_statistics(model, (as_batch(faces[start : start + 16]) for start in range(0, 48, 16)))
    return model


def accuracy_of(row: dict[str, Any]) -> str:
    if "accuracy_interval" not in row:
        return f"{row['accuracy']:.2f}" if "accuracy" in row else "-"
    low, high = row["accuracy_interval"]
    return f"{row['accuracy']:.2f} [{low:.2f}, {high:.2f}]"


def milliseconds_of(row: dict[str, Any]) -> str:
    if "cpu_ms" not in row:  # the run was stopped before
        return "-"
    low, high = row["cpu_ms_quartiles"]
    return f"{row['cpu_ms']:.2f} [{low:.2f}, {high:.2f}]"


def table(rows: dict[str, dict[str, Any]]) -> str:
    """In markdown."""
    lines = [
        "| file | MB | CPU ms [quartiles] | cosine, lowest | mean | accuracy | lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, row in rows.items():
        if "failure" in row:
            lines.append(f"| {label} | {row['failure']} | | | | | |")
            continue
        cells = [
            label,
            f"{row['size'] / 1e6:.2f}",
            milliseconds_of(row),
            f"{row['cosine']:.6f}" if "cosine" in row else "-",
            f"{row['mean_cosine']:.6f}" if "cosine" in row else "-",
            accuracy_of(row),
            f"{row['loss']:+.2f}" if "loss" in row else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
