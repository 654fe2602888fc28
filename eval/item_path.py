"""What `config.fast_items = True` gains in arcface_torch: items per second of one thread.

    python eval/item_path.py ARCFACE_TORCH_DIR --json eval/results/item_path.json

Makes a record set of procedural faces (in a temporary folder), opens it with the host's own
MXFaceDataset and with ours, checks that every item is equal to the bit, and times both in short
paired rounds of the same items, the order within a pair alternating, so that what else the
machine does meets both alike. The median of the pairs' ratios is the result.

mxnet does not import beside current numpy, so the host reads through our stand-in for it: what is
compared is a host patched with `current-stack`, without and with `fast_items`. Collating and
copying to the GPU, the same for both, are left out.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from arcface_cakd.arcface_torch import mxnet
from arcface_cakd.arcface_torch.fast_items import FaceItems
from arcface_cakd.files import write_text
from arcface_cakd.synthesis import synthesize

WARM_UP = 2  # pairs that are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arcface_torch", type=Path, metavar="ARCFACE_TORCH_DIR")
    parser.add_argument("--images", type=int, default=1000, help="pictures to make (1000)")
    parser.add_argument("--rounds", type=int, default=60, help="pairs of rounds (60)")
    parser.add_argument("--items", type=int, default=250, help="items of a round (250)")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        records = Path(folder) / "faces"
        synthesize(records, args.images // 20, 20, seed=1, pairs=20, workers=1)
        host = host_dataset(args.arcface_torch, records)
        fast = FaceItems(host.root_dir, host.imgidx)
        check_equal(host, fast)
        rounds = measure(host, fast, args.rounds, args.items)
        size = (records / "train.rec").stat().st_size / len(host)

    ratios = [of_fast / of_host for of_host, of_fast in rounds]
    quarters = statistics.quantiles(ratios, n=4)
    figures = {
        "items_per_second_host": statistics.median(of_host for of_host, _ in rounds),
        "items_per_second_fast": statistics.median(of_fast for _, of_fast in rounds),
        "ratio_median": statistics.median(ratios),
        "ratio_quartiles": [quarters[0], quarters[2]],
        "ratio_range": [min(ratios), max(ratios)],
    }
    for name, value in figures.items():
        print(f"{name}: {np.round(value, 3)}")
    if args.json:
        report = {
            "command": "python eval/item_path.py ARCFACE_TORCH_DIR",
            "date": date.today().isoformat(),
            "host_commit": commit(args.arcface_torch),
            "cpu": cpu_name(),
            "threads": 1,
            "conditions": "2 cores shared with other jobs; median of paired, alternating rounds",
            "versions": {
                "python": platform.python_version(),
                **{
                    name: version(name)
                    for name in ("torch", "torchvision", "numpy", "pillow", "simplejpeg")
                },
            },
            "images": len(host),
            "bytes_per_record": size,
            "rounds": args.rounds,
            "items_per_round": args.items,
            **figures,
            "items_per_second_of_rounds": {
                "host": [of_host for of_host, _ in rounds],
                "fast": [of_fast for _, of_fast in rounds],
            },
        }
        write_text(args.json, json.dumps(report, indent=2) + "\n")


def host_dataset(arcface_torch: Path, records: Path):
    """The host's own data set over ``records``; our stand-in plays mxnet."""
    sys.modules["mxnet"] = mxnet
    sys.path.insert(0, str(arcface_torch))
    from dataset import MXFaceDataset

    return MXFaceDataset(root_dir=str(records), local_rank=0)


def check_equal(host, fast) -> None:
    for index in range(len(host)):
        torch.manual_seed(index)
        image, label = host[index]
        torch.manual_seed(index)
        fast_image, fast_label = fast[index]
        if not (torch.equal(image, fast_image) and torch.equal(label, fast_label)):
            sys.exit(f"item {index} differs between the host and fast_items")


def measure(host, fast, rounds: int, items: int) -> list[tuple[float, float]]:
    """(host's, ours) items per second of each pair of rounds."""
    rng = np.random.default_rng(0)
    speeds = []
    for number in range(WARM_UP + rounds):
        order = rng.integers(0, len(host), items).tolist()
        pair = {}
        for dataset in (host, fast) if number % 2 else (fast, host):
            begin = time.perf_counter()
            for index in order:
                dataset[index]
            pair[dataset] = items / (time.perf_counter() - begin)
        speeds.append((pair[host], pair[fast]))
    return speeds[WARM_UP:]


def commit(folder: Path) -> str | None:
    asked = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    done = subprocess.run(asked, capture_output=True, text=True)
    return done.stdout.strip() or None


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
