"""What of arcface_torch breaks on the packages installed here; whether `current-stack` mends it.

    python eval/host_breakages.py insightface/recognition/arcface_torch \
        --json eval/results/host_breakages.json

Copies the host twice, applies the patch set `current-stack` to one copy, and runs the probe of
each breakage (host_probes.py) in both, in a process of its own, on the CPU. Prints a markdown
table and exits 1 if a breakage that the set mends is still there.
"""

import argparse
import importlib.metadata
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import host_probes
import numpy as np
from host_probes import FACES, LANDMARKS

import arcface_cakd
from arcface_cakd import patching
from arcface_cakd.data import write_bin
from arcface_cakd.files import write_text
from arcface_cakd.recordio import IRHeader, MXIndexedRecordIO, pack

PACKAGES = "torch torchvision numpy scipy scikit-learn scikit-image pandas timm onnx onnxruntime"


def make_data(folder: Path) -> None:
    """Records with labels of both kinds, lfw.bin and the files of a small IJB-C, with scores."""
    from PIL import Image

    coarse = np.random.default_rng(0).integers(0, 256, (FACES, 7, 7, 3), dtype=np.uint8)
    faces = []
    for pixels in coarse:
        file = io.BytesIO()
        Image.fromarray(pixels).resize((112, 112)).save(file, "JPEG")
        faces.append(file.getvalue())
    for name in ("scalar", "array"):
        (folder / name).mkdir(parents=True)
        with MXIndexedRecordIO(
            folder / name / "train.idx", folder / name / "train.rec", "w"
        ) as writer:
            for key, face in enumerate(faces, 1):
                label = [key % 4, 1.0] if name == "array" else float(key % 4)
                writer.write_idx(key, pack(IRHeader(0, label, key, 0), face))
            extent = IRHeader(0, [FACES + 1, FACES + 1], 0, 0)
            writer.write_idx(0, pack(extent, b""))
    write_bin(folder / "lfw.bin", faces, [True, False] * (FACES // 4))

    for name in ("meta", "loose_crop"):
        (folder / name).mkdir()
    for index, face in enumerate(faces):
        (folder / f"loose_crop/{index}.jpg").write_bytes(face)
    pairs = [(a, b, (a + b) % 2) for a in range(1, 4) for b in range(a + 1, 5)]
    for name, rows in {
        "face_tid_mid": [f"{i}.jpg {i // 3 + 1} {i // 2}" for i in range(FACES)],
        "name_5pts_score": [f"{i}.jpg {LANDMARKS} 0.9" for i in range(FACES)],
        "template_pair_label": ["{} {} {}".format(*pair) for pair in pairs],
    }.items():
        (folder / f"meta/ijbc_{name}.txt").write_text("\n".join(rows) + "\n")
    np.save(folder / "scores.npy", np.linspace(0, 1, len(pairs)))


def raised(probe: host_probes.Probe, host: Path, data: Path) -> str | None:
    """What a probe raises in a copy of the host, in one line; None where nothing."""
    paths = [str(Path(arcface_cakd.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, host_probes.__file__, probe.run.__name__, str(data)],
        cwd=host,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "CUDA_VISIBLE_DEVICES": "",
            "MPLBACKEND": "Agg",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode == 0:
        return None
    return done.stderr.strip().splitlines()[-1]


def examine(directory: Path) -> list[dict]:
    """The rows of the table: each breakage before and with the set."""
    with tempfile.TemporaryDirectory() as scratch:
        hosts, data = [], []
        for name in ("before", "with"):
            host = Path(scratch, name, "arcface_torch")
            unneeded = shutil.ignore_patterns("work_dirs", "__pycache__", "*.rec", "*.pt")
            shutil.copytree(directory, host, ignore=unneeded)
            patching.revert(host)  # the checkout may be patched
            hosts.append(host)
            data.append(Path(scratch, name, "data"))
            make_data(data[-1])
        patching.patch(hosts[1], only="current-stack")
        with ThreadPoolExecutor(2) as pool:
            # A column is one process after another: its probes share the data's folder.
            before, after = pool.map(
                lambda host, data: [raised(probe, host, data) for probe in host_probes.PROBES],
                hosts,
                data,
            )
    return [
        {"where": p.where, "what": p.what, "before": b, "with_current_stack": a, "left": p.left}
        for p, b, a in zip(host_probes.PROBES, before, after, strict=True)
    ]


def markdown(rows: list[dict]) -> str:
    lines = ["| where | what happens | before | with `current-stack` |", "|---|---|---|---|"]
    for row in rows:
        before, after = map(_cell, (row["before"], row["with_current_stack"]))
        after = f"not mended: {row['left']}" if row["left"] else after
        lines.append(f"| {row['where']} | {row['what']} | {before} | {after} |")
    return "\n".join(lines)


def _cell(error: str | None) -> str:
    if error is None:
        return "works"
    error = error.replace("`", "").replace("|", "/")
    return f"`{error[:77] + '...' if len(error) > 80 else error}`"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("host", type=Path, help="a checkout's recognition/arcface_torch")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()

    rows = examine(args.host.resolve())
    versions = {name: importlib.metadata.version(name) for name in PACKAGES.split()}
    versions["python"] = platform.python_version()
    commit = subprocess.run(
        ["git", "-C", args.host, "rev-parse", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    print(markdown(rows))
    print(f"\nhost {commit or 'of no git checkout'};", ", ".join(map(" ".join, versions.items())))
    if args.json:
        command = "python eval/host_breakages.py insightface/recognition/arcface_torch"
        result = {"command": command, "host": commit, "versions": versions, "rows": rows}
        write_text(args.json, json.dumps(result, indent=2) + "\n")
    sys.exit(any(row["with_current_stack"] and not row["left"] for row in rows))


if __name__ == "__main__":
    main()
