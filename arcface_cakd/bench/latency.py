"""How long one face takes, in each runtime, beside the teacher and against the limits of FRUITS.

FRUITS (Zhu et al., "WebFace260M", CVPR 2021) sets limits of 100, 500 and 1000 ms for one face on
one core of a Xeon E5-2630 v4, detection and alignment included. What is timed here is the
embedding alone, on this machine: a file above a limit is out of it, one below may still be.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from arcface_cakd.backbones.cost import multiply_adds, parameters
from arcface_cakd.bench.errors import BenchError
from arcface_cakd.bench.report import Report
from arcface_cakd.bench.timing import Ratio, take_turns
from arcface_cakd.evaluation import format_table
from arcface_cakd.export import FORMATS, ExportError, export_model
from arcface_cakd.extras import MissingPackageError
from arcface_cakd.landmarks import CROP_SIZE
from arcface_cakd.runtimes import files_of, open_exported

FRUITS = (100, 500, 1000)
_WARM_UP = 5


@dataclass(frozen=True)
class Timed:
    """A model to be timed.

    Attributes:
        label: what to call it.
        open: makes it a function of images, for a number of threads.
        size: in bytes.
        network: where it is known.
    """

    label: str
    open: Callable[[int], Callable[[Tensor], Tensor]]
    size: int
    network: nn.Module | None = None


def labels(paths: Sequence[str]) -> list[str]:
    """Names of files: as much of the ends of their paths as tells them apart.

    Raises:
        BenchError: a file is given twice.
    """
    whole = [Path(os.path.abspath(path)).parts for path in paths]
    for path, parts in zip(paths, whole, strict=True):
        if whole.count(parts) > 1:
            raise BenchError(f"{path} is given twice: name each model once")
    return [_label(parts, whole) for parts in whole]


def _label(parts: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    alike = 1
    while sum(other[-alike:] == parts[-alike:] for other in others) > 1:
        alike += 1
    return "/".join(parts[-alike:])


def of_file(path: str, label: str) -> Timed:
    """An exported file, in its own runtime.

    Raises:
        MissingPackageError: the runtime is not installed.
        RuntimeProblem: no such file, or one that the runtime does not run.
    """
    name = f"{label} ({open_exported(path).RUNTIME})"
    size = sum(file.stat().st_size for file in files_of(path))
    return Timed(name, lambda threads: open_exported(path, threads), size)


def of_network(label: str, network: nn.Module) -> Timed:
    """A network by torch, in float32."""

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return network(images)

    def opened(threads: int) -> Callable[[Tensor], Tensor]:
        def limited(images: Tensor) -> Tensor:
            torch.set_num_threads(threads)
            return run(images)

        return limited

    network.eval()
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    return Timed(f"{label} (torch)", opened, size, network)


def exports_of(label: str, network: nn.Module, folder: Path, report: Report) -> list[Timed]:
    """The network in float32 for every runtime that is installed; what is not, is noted.

    Args:
        label: what the network itself is called.
        network: to export.
        folder: for the files.
        report: gets the notes.
    """
    found = []
    for form in [form for form in FORMATS if form.runs_here]:
        path = folder / f"model{form.ending}"
        name = f"{label}{form.ending}"
        try:
            export_model(network, path)
        except (ExportError, MissingPackageError) as error:
            report.notes.append(str(error).replace(str(path), name))
            continue
        timed = of_file(str(path), name)
        found.append(Timed(timed.label, timed.open, timed.size, network))
    return found


def measure_latency(
    report: Report,
    models: Sequence[Timed],
    *,
    teacher: Timed | None = None,
    threads: Sequence[int] = (1, 2),
    rounds: int = 50,
) -> None:
    """Time one face, all models in turn.

    Args:
        report: gets the milliseconds of each model and number of threads, the ratios to the
            teacher, and a table.
        models: at least one.
        teacher: what they are compared with.
        threads: numbers of them.
        rounds: faces that each model is given.
    """
    sides = [*models, *([] if teacher is None else [teacher])]
    labels = [side.label for side in sides]
    if len(set(labels)) < len(labels):
        raise BenchError(f"two of the models are called the same: {', '.join(labels)}")
    face = torch.rand(1, 3, CROP_SIZE, CROP_SIZE, generator=torch.Generator().manual_seed(0))
    face = face * 2 - 1
    rows = []
    for number in threads:
        runs = {side.label: side.open(number) for side in sides}
        times = take_turns(
            {label: _on(run, face) for label, run in runs.items()},
            rounds,
            warm_up=_WARM_UP,
            clock=time.perf_counter,
        )
        report.add_times(times, prefix=f"{number} thread(s): ")
        for side in sides:
            name = f"{side.label}, {number} thread(s)"
            spread = Ratio.of([1000 * seconds for seconds in times.seconds[side.label]])
            report.amounts[f"{name}, ms"] = spread.median
            beside = None
            if teacher is not None and side is not teacher:
                beside = times.ratio(side.label, teacher.label)
                report.ratios[f"{name} / teacher"] = beside
            rows.append(_row(side, number, spread, beside))
    report.notes += [
        format_table(
            [
                "model",
                "threads",
                "ms",
                "quartiles",
                "/ teacher",
                "MB",
                "parameters",
                "M multiply-adds",
                "FRUITS",
            ],
            rows,
        ),
        "ms: of the wall, one face, the embedding alone; FRUITS: the least of its limits that this "
        "is below, detection and alignment not counted and another processor",
    ]


def _on(run: Callable[[Tensor], Tensor], face: Tensor) -> Callable[[], Tensor]:
    return lambda: run(face)


def _row(side: Timed, threads: int, spread: Ratio, beside: Ratio | None) -> list[str]:
    known = side.network
    return [
        side.label,
        str(threads),
        f"{spread.median:.2f}",
        f"{spread.low:.2f} to {spread.high:.2f}",
        "-" if beside is None else f"{beside.median:.3f}",
        f"{side.size / 1e6:.1f}",
        "-" if known is None else f"{parameters(known):,}",
        "-" if known is None else f"{multiply_adds(known) / 1e6:,.0f}",
        next((str(limit) for limit in FRUITS if spread.median < limit), "-"),
    ]
