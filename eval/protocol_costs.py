"""What protocols cost at full size, on made embeddings: seconds and the peak of memory.

    python eval/protocol_costs.py --json eval/results/protocol_costs.json [--part PART ...]

No network runs here: embeddings are random, of 512 numbers, and each part is a process of its own,
whose peak is the highest resident set that the system saw. Parts:

- ``ijbb``: tables of IJB-B's size (227,630 images, 12,115 templates, about 8 million pairs) read,
  templates pooled, pairs scored, and figures with 100 draws of people
- ``megaface``: 3,530 probes of 80 people against a million strangers
- ``all_pairs``: 100,000 images of 20,000 people, all 5 thousand million pairs

``--scale 0.01`` makes everything smaller, to try it.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from arcface_cakd.files import write_text

EMBEDDING = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, metavar="S")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        print(json.dumps(PARTS[args.part[0]](args.scale)))
        return
    path = Path(args.json) if args.json else None
    results = json.loads(path.read_text()) if path and path.is_file() else {}
    for part in args.part:
        command = [sys.executable, __file__, "--inside", "--part", part, "--scale", str(args.scale)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results[part] = {
            **json.loads(done.stdout),
            "scale": args.scale,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "threads": os.environ.get("OMP_NUM_THREADS", "unset"),
        }
        print(part, json.dumps(results[part], indent=2))
        if path:
            write_text(path, json.dumps(results, indent=2) + "\n")


class Clock:
    """CPU and wall seconds of steps, by their names, and the process's peak of memory."""

    def __init__(self):
        self.figures: dict[str, dict[str, float]] = {}

    def __call__(self, name: str, step: Callable):
        wall, cpu = time.perf_counter(), time.process_time()
        value = step()
        self.figures[name] = {
            "wall_s": round(time.perf_counter() - wall, 2),
            "cpu_s": round(time.process_time() - cpu, 2),
        }
        return value

    def result(self, **sizes) -> dict:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {**sizes, "peak_gb": round(peak / 1e9, 3), "steps": self.figures}


def units(random: np.random.Generator, count: int) -> np.ndarray:
    rows = random.standard_normal((count, EMBEDDING))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ijbb(scale: float) -> dict:
    from arcface_cakd.data.templates import read_template_images, read_template_pairs
    from arcface_cakd.evaluation.protocols.ijb import verify_templates
    from arcface_cakd.evaluation.templates import people_of_pairs, pool_templates

    random, clock = np.random.default_rng(0), Clock()
    people, probes = max(3, int(1845 * scale)), max(12, int(10270 * scale))
    images = max(30, int(227630 * scale))
    impostors = max(300, int(8_000_000 * scale))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own: its memory is none of the protocol's.
        sizes = (people, probes, images, impostors)
        writer = multiprocessing.Process(target=write_ijbb, args=(folder, random, *sizes))
        writer.start()
        writer.join()
        if writer.exitcode:
            raise SystemExit(f"the tables' writer ended with {writer.exitcode}")
        found = clock("read images' tables", lambda: read_template_images(folder))
        pairs, issame = clock("read pairs", lambda: read_template_pairs(found))
    embeddings = random.standard_normal((len(found.faces), EMBEDDING)) * found.scores[:, None]
    numbers, pooled = clock(
        "pool", lambda: pool_templates(embeddings, found.templates, found.medias)
    )
    rows = np.searchsorted(numbers, pairs)
    who = clock("people of pairs", lambda: people_of_pairs(rows, issame, len(numbers)))
    clock("scores and figures", lambda: verify_templates(pooled, rows, issame, who, draws=0))
    clock("with 100 draws", lambda: verify_templates(pooled, rows, issame, who, draws=100))
    return clock.result(images=images, templates=len(numbers), pairs=len(pairs))


def write_ijbb(folder: Path, random, people, probes, images, impostors) -> None:
    """Tables of that many rows, and an empty file for each image."""
    (folder / "meta").mkdir()
    (folder / "loose_crop").mkdir()
    templates = people + probes  # one for each person in a gallery
    of = np.concatenate([np.arange(templates), random.integers(0, templates, images - templates)])
    points = random.uniform(20, 100, (images, 10)).round(2)
    for k in range(images):
        (folder / f"loose_crop/{k + 1}.jpg").touch()
    lines = [f"{k + 1}.jpg {t} {m}" for k, (t, m) in enumerate(zip(of, of * 3, strict=True))]
    (folder / "meta/ijbb_face_tid_mid.txt").write_text("\n".join(lines) + "\n")
    lines = [f"{k + 1}.jpg {' '.join(map(str, row))} 0.9{k % 1000}" for k, row in enumerate(points)]
    (folder / "meta/ijbb_name_5pts_score.txt").write_text("\n".join(lines) + "\n")
    whose = np.append(np.arange(people), random.integers(0, people, probes))
    genuine = np.stack([whose[people:], people + np.arange(probes), np.ones(probes, int)], axis=1)
    first = random.integers(0, people, impostors)
    second = people + random.integers(0, probes, impostors)
    apart = first != whose[second]
    others = np.stack([first, second, np.zeros(impostors, int)], axis=1)[apart]
    table = np.concatenate([genuine, others]).astype(str)
    text = "\n".join(" ".join(row) for row in table.tolist())
    (folder / "meta/ijbb_template_pair_label.txt").write_text(text + "\n")


def megaface(scale: float) -> dict:
    from arcface_cakd.evaluation.protocols.megaface import _CHUNK, DistractorTest

    random, clock = np.random.default_rng(0), Clock()
    probes, strangers = max(160, int(3530 * scale)), int(1_000_000 * scale)
    test = DistractorTest(units(random, probes), np.arange(probes) % 80, strangers)

    def search():
        for start in range(0, strangers, _CHUNK):
            test.add(units(random, min(_CHUNK, strangers - start)))

    clock("strangers", search)
    clock("figures with 1000 draws", lambda: test.result(1000))
    return clock.result(probes=probes, strangers=strangers)


def all_pairs(scale: float) -> dict:
    from arcface_cakd.evaluation.protocols.all_pairs import verify_all_pairs

    random, clock = np.random.default_rng(0), Clock()
    images = int(100_000 * scale)
    rows = units(random, images)
    people = np.arange(images) % max(2, images // 5)
    result = clock("all pairs", lambda: verify_all_pairs(rows, people, draws=0))
    return clock.result(images=images, pairs=result.positives + result.negatives)


PARTS = {"ijbb": ijbb, "megaface": megaface, "all_pairs": all_pairs}

if __name__ == "__main__":
    main()
