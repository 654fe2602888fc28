"""One cell: trained by the package's own loop, judged, and what its record says."""

import contextlib
import fcntl
import functools
import hashlib
import platform
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grid import (
    Cell,
    StudyError,
    cell_config,
    check_teacher_is_trained,
    class_means_path,
    teacher_entry,
)
from methods import METHODS, REFERENCES, TEACHERS_CENTRES
from records import PairSet, record_path, rounded, scored, write_people
from sources import digests
from torch.nn import functional as F

from arcface_cakd.backbones import build_teacher, get_model, load_weights
from arcface_cakd.config import ConfigError, TrainConfig
from arcface_cakd.data.loader import open_images
from arcface_cakd.data.reading import Views
from arcface_cakd.engine import DivergenceError, train
from arcface_cakd.evaluation import embed
from arcface_cakd.files import atomic_path
from arcface_cakd.losses.base import LossError
from arcface_cakd.synthesis.histogram import colour_histogram

RANDOM_CENTRES_DEVIATION = 0.01  # of each entry, in partial_fc/sharded.py


def command_of(cell: Cell) -> str:
    """What runs this cell alone."""
    size = "" if cell.size == "cpu" else f" --size {cell.size}"
    seeds = "" if cell.method in REFERENCES else f" --seeds {cell.seed}"
    return f"python eval/study/run.py{size} --data {cell.data} --methods {cell.method}{seeds}"


def processor() -> str:
    """A GPU's name, or a CPU's kind, family, model and vector instructions.

    Other ones give other last digits.
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    found = dict(re.findall(r"^(vendor_id|cpu family|model)\s*: (.*)$", lines, re.MULTILINE))
    words = [found.get(key, "") for key in ("vendor_id", "cpu family", "model")]
    return " ".join([*words, torch.backends.cpu.get_cpu_capability()]).strip()


def _device() -> str:
    """Where networks are judged: where the loop trains."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def taken(path: Path) -> Iterator[bool]:
    """Whether this process has the lock; the system frees it when the process ends, however."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def run_cell(cell: Cell, faces: Path, work: Path, runs: Path) -> dict[str, Any]:
    """Train and judge a cell by the sets to choose by; what the record says of it.

    A run that diverges, or whose entry does not fit, is a result too: the record says why. What
    is wrong with data, weights or a cache is none, and stops the grid.

    Raises:
        StudyError: the teacher has not been trained.
        ArcfaceCakdError: see above.
    """
    if cell.method == "teacher" or METHODS.get(cell.method) is not None:
        check_teacher_is_trained(cell.of, faces)
    now = datetime.now(timezone.utc)
    record: dict[str, Any] = {
        "data": cell.data,
        "method": cell.method,
        "seed": cell.seed,
        "size": cell.size,
        "command": command_of(cell),
        "date": now.strftime("%Y-%m-%d %H:%M"),
        "failure": None,
        "sources": {},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "processor": processor(),
        "threads": torch.get_num_threads(),
    }
    teacher = cell.of.teacher["network"]
    if cell.method == "teacher":
        record["sources"] = digests(teacher, None)
    elif cell.method in METHODS:
        config = cell_config(cell, faces, work)
        give_class_means(cell, config, faces)
        settings = asdict(config)
        record["sources"] = digests(config.network, config.cakd)
        for place in ("rec", "output", "force"):  # where things lie on one machine says nothing
            del settings[place]
        if config.init_centers is not None:
            settings["init_centers"] = TEACHERS_CENTRES
        if config.cakd is not None:
            settings["cakd"]["teacher"] |= cell.of.teacher
            settings["cakd"]["teacher"]["cache"] = config.cakd.teacher["cache"] is not None
            if config.cakd.teacher["centers"] is not None:
                settings["cakd"]["teacher"]["centers"] = TEACHERS_CENTRES
        record["settings"] = settings
        cpu, wall = time.process_time(), time.monotonic()
        try:
            result = train(config)
        except (DivergenceError, ConfigError, LossError) as error:
            record["failure"] = str(error)
            return record | {"sets": {}}
        record["cpu_seconds"] = round(time.process_time() - cpu, 2)
        record["wall_seconds"] = round(time.monotonic() - wall, 2)
        kept = ("epoch", "step", "loss", "margin", "terms", "gradient_norms", "diagnostics")
        lines = [line for line in result.history if "loss" in line]
        record["history"] = [
            rounded({k: line[k] for k in kept if k in line}, digits=5) for line in lines
        ]
        record["model"] = digest_of(work / "model.pt")
    record["sets"] = judged(cell, faces, work, cell.of.choose, runs)
    return record


def judged(cell: Cell, faces: Path, work: Path, names: Sequence[str], runs: Path) -> dict[str, Any]:
    """The figures and scores of a cell's network on the sets of these names."""
    results = {}
    for name in names:
        pairs = _pairs(faces / cell.of.folder, name, cell.of.negatives_of(name))
        write_people(runs, cell.data, name, pairs)
        results[name] = scored(pairs, pairs.cosines(embeddings_of(cell, faces, work, pairs.images)))
    return results


# Decoding takes longer than a small network, and a runner judges many.
_pairs = functools.lru_cache(maxsize=3)(PairSet.read)


def embeddings_of(cell: Cell, faces: Path, work: Path, images: np.ndarray) -> np.ndarray:
    """(N, E) of the images: of the trained student, the teacher, or colours alone."""
    if cell.method == "colour_histogram":
        # The cosine of the square roots is the Bhattacharyya coefficient.
        return np.sqrt(np.stack([colour_histogram(image) for image in images]))
    settings = cell.of.student
    if cell.method == "teacher":
        network = build_teacher(settings["embedding_size"], **teacher_entry(cell.of, faces))
    else:
        network = get_model(settings["network"], num_features=settings["embedding_size"])
        load_weights(network, work / "model.pt")
    return embed(network, images, device=_device())


def give_class_means(cell: Cell, config: TrainConfig, faces: Path) -> None:
    """Make the teacher's class means, where a run of the cell asks for them."""
    compared = config.cakd is not None and config.cakd.teacher["centers"] is not None
    if compared or config.init_centers is not None:
        make_class_means(cell, faces)


def make_class_means(cell: Cell, faces: Path) -> None:
    """Keep the teacher's class means as class centres, unless they are there.

    To start from, they are as long as the random ones are that they replace, so that the margin
    softmax, which looks at directions alone, turns them as fast.
    """
    path = class_means_path(cell.of, faces)
    with taken(path.parent / "lock") as ours:
        if not ours:
            raise StudyError(f"{path}: another process computes the class means: wait for it")
        if path.is_file():
            return
        faces_seen = Views(open_images(faces / cell.of.folder), seed=0)
        places = np.arange(len(faces_seen.images))
        planes, labels = faces_seen.read(places, 0, np.zeros(len(places), dtype=bool))
        network = build_teacher(cell.of.student["embedding_size"], **teacher_entry(cell.of, faces))
        pixels = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        unit = F.normalize(torch.from_numpy(embed(network, pixels, device=_device())))
        sums = unit.new_zeros(int(labels.max()) + 1, unit.shape[1])
        sums.index_add_(0, torch.from_numpy(labels), unit)
        centres = F.normalize(sums).float() * (RANDOM_CENTRES_DEVIATION * unit.shape[1] ** 0.5)
        with atomic_path(path) as beside:
            torch.save({"state_dict_softmax_fc": {"weight": centres}}, beside)


def check_weights(cell: Cell, record: dict[str, Any], work: Path) -> None:
    """See that the model in ``work`` is the one that the record is of.

    Raises:
        StudyError: it is not, or is gone.
    """
    if cell.method in REFERENCES:
        return
    path = work / "model.pt"
    if not path.is_file() or digest_of(path) != record["model"]:
        raise StudyError(
            f"{path} is not the model that {cell}'s figures are of: remove "
            f"{record_path(Path('runs'), cell)} and run the cell again"
        )


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
