"""The whole way on data that it makes: faces, teacher, students, evaluation, export, pictures."""

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from arcface_cakd.backbones import FaceBackbone, get_model, load_weights
from arcface_cakd.config import TrainConfig, load_config
from arcface_cakd.data import VerificationSet, as_batch, read_bin
from arcface_cakd.engine import load_distiller, read_history, read_run_record, train
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.evaluation import VerificationResult, evaluate_set, format_table, plot_roc
from arcface_cakd.export import export_model
from arcface_cakd.extras import extra
from arcface_cakd.files import json_text, write_text
from arcface_cakd.plots import plot_local_centers, plot_loss_curves
from arcface_cakd.resources import find_recipe
from arcface_cakd.synthesis import PROTOCOLS, histogram_baseline, synthesize

logger = logging.getLogger("arcface_cakd")

# Sized for 2 CPU cores, as the epochs in recipes/demo/ are.
MADE = {
    "identities": 300,
    "images_per_identity": 12,
    "seed": 1,
    "difficulty": 1.0,
    "pairs": 300,
}
TARGETS = tuple(PROTOCOLS)
RESULTS = "results.json"
CHANCE_FLOOR = 0.60


class DemoError(ArcfaceCakdError):
    """A folder that the demo will not write to."""


@dataclass(frozen=True)
class Run:
    """One training run of the demo: its folder, and what the table calls it."""

    name: str
    label: str


RUNS = (
    Run("teacher", "teacher (Swin, plain)"),
    Run("student", "student, plain"),
    Run("embedding", "student, embedding only"),
    Run("cakd", "student, embedding + URFM"),
)


@dataclass(frozen=True)
class Outcome:
    """A trained network and how it did."""

    results: dict[str, VerificationResult]
    parameters: int
    images_per_second: float
    seconds: float


def run_demo(
    out: str | Path,
    made: Mapping[str, Any] = MADE,
    overrides: Sequence[str] = (),
) -> int:
    """Make data, train, evaluate, export and draw, in ``out``; go on where it stopped.

    The figures are in ``out/results.json`` afterwards.

    Args:
        out: folder for everything.
        made: the arguments of ``synthesize``.
        overrides: ``"key=value"`` changes to all four recipes.

    Returns:
        0, or 1 if a model does not beat 60 % on ``lfw``.

    Raises:
        DemoError: ``out`` holds something that is not a demo's.
        MissingPackageError: matplotlib is not installed.
    """
    start = time.monotonic()
    extra("matplotlib", "demo", "the demo, for its pictures,")
    out = Path(out)
    _claim(out, made)
    sets = _make_data(out / "data", made)
    outcomes: dict[str, Outcome] = {}
    for run in RUNS:
        config = _config(run, out, overrides)
        outcomes[run.name] = _train_and_evaluate(run, config, sets)
    onnx_file = out / "student_cakd.onnx"
    student = _trained(config)  # the last run's
    export_model(student, onnx_file)
    cosine = _insightface_cosine(onnx_file, student, sets["lfw"].images[:8])

    metrics = {run.label: read_history(out / run.name) for run in RUNS}
    plot_loss_curves(metrics, out / "loss_curves.png")
    for target in TARGETS:
        curves = {run.label: outcomes[run.name].results[target] for run in RUNS}
        plot_roc(curves, out / f"roc_{target}.png", title=target)
    plot_local_centers(load_distiller(config), sets["cfp_fp"].images[:4], out / "local_centers.png")

    histogram = {name: histogram_baseline(pairs) for name, pairs in sets.items()}
    figures = {"data": dict(made), **_figures(outcomes, histogram)}
    write_text(out / RESULTS, json_text(figures, indent=2))
    print(_table(outcomes, histogram))
    print(_verdict(outcomes))
    print(
        f"\nONNX: {onnx_file}; loaded by insightface, cosine to torch at least {cosine:.6f}\n"
        f"pictures: {out}/loss_curves.png, roc_*.png, local_centers.png\n"
        f"made faces: {out}/data/contact_sheet.png; all figures: {out / RESULTS}\n"
        f"{(time.monotonic() - start) / 60:.1f} minutes; made faces, one seed: these figures say "
        "that everything works, not which method is better on real faces"
    )
    weak = [run.label for run in RUNS if outcomes[run.name].results["lfw"].accuracy <= CHANCE_FLOOR]
    if weak:
        print(f"FAILED: not above {CHANCE_FLOOR:.0%} on lfw: {', '.join(weak)}")
    return 1 if weak else 0


def _claim(out: Path, made: Mapping[str, Any]) -> None:
    """Make ``out`` the demo's own folder, so that it never removes what is not its own.

    Raises:
        DemoError: the folder holds something else.
    """
    marker = out / "demo.json"
    wanted = json.dumps(dict(made), sort_keys=True)
    if marker.is_file() and not _is_a_demos(marker):
        raise DemoError(f"--out {out}: its demo.json is not of a demo: name a new folder")
    if marker.is_file() and marker.read_text() != wanted:  # of other faces: start anew
        for folder in ("data", *(run.name for run in RUNS)):
            shutil.rmtree(out / folder, ignore_errors=True)
    elif not marker.is_file() and out.is_dir() and any(out.iterdir()):
        raise DemoError(f"--out {out} is not empty and no demo's: name a new folder")
    write_text(marker, wanted)


def _is_a_demos(marker: Path) -> bool:
    """Whether a file says of which faces a demo is, in any version."""
    try:
        said = json.loads(marker.read_bytes())
    except ValueError:
        return False
    return isinstance(said, dict) and {"identities", "seed"} <= said.keys() <= MADE.keys()


def _make_data(folder: Path, made: Mapping[str, Any]) -> dict[str, VerificationSet]:
    sheet = folder / "contact_sheet.png"  # the last that is written
    if not sheet.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        synthesize(folder, **made, contact_sheet=sheet)
    return {target: read_bin(folder / f"{target}.bin") for target in TARGETS}


def _config(run: Run, out: Path, overrides: Sequence[str]) -> TrainConfig:
    # The demo evaluates each network itself, once; see _train_and_evaluate.
    own = [f"rec={out / 'data'}", f"output={out / run.name}", "val_targets=()"]
    if run.name in ("embedding", "cakd"):
        own.append(f"cakd.teacher.weights={out / 'teacher' / 'model.pt'}")
    config = load_config(find_recipe(f"demo_{run.name}"), [*own, *overrides])
    config.resume = (config.folder / "checkpoint_gpu_0.pt").is_file()
    if config.resume and not _distilled_alike(config):
        shutil.rmtree(config.folder)
        config.resume = False
    config.force = True  # the folder is the demo's own
    return config


def _distilled_alike(config: TrainConfig) -> bool:
    """Whether the run in the folder, of any version, learned from its teacher as this one does."""

    def said(entry: dict[str, Any] | None) -> dict[str, Any] | None:
        """The entry as JSON has it; the path to the teacher hangs on where the demo is called."""
        return entry and {**json.loads(json.dumps(entry)), "teacher": None}

    record = read_run_record(config.folder)
    return record is not None and said(record["config"]["cakd"]) == said(asdict(config)["cakd"])


def _trained(config: TrainConfig) -> FaceBackbone:
    model = get_model(config.network, num_features=config.embedding_size)
    load_weights(model, config.folder / "model.pt")
    return model.eval()


def _train_and_evaluate(run: Run, config: TrainConfig, sets) -> Outcome:
    logger.info("%s: training %s", run.label, "goes on" if config.resume else "starts")
    train(config)
    model = _trained(config)
    results = {name: evaluate_set(model, pairs) for name, pairs in sets.items()}
    lines = read_history(config.folder)
    speeds = [line["images_per_second"] for line in lines if "images_per_second" in line]
    return Outcome(
        results=results,
        parameters=sum(p.numel() for p in model.parameters()),
        images_per_second=float(np.median(speeds)),
        seconds=sum(line.get("seconds", 0.0) for line in lines),
    )


def _insightface_cosine(onnx_file: Path, model: FaceBackbone, images: np.ndarray) -> float:
    """The smallest cosine between insightface's embedding of a face and ours."""
    from insightface.model_zoo import get_model as load_onnx

    client = load_onnx(str(onnx_file), providers=["CPUExecutionProvider"])
    theirs = client.get_feat([image[..., ::-1] for image in images])  # it takes BGR
    with torch.no_grad():
        ours = model(as_batch(images))
    return float(torch.cosine_similarity(ours, torch.from_numpy(theirs)).min())


def _figures(outcomes: dict[str, Outcome], histogram: dict[str, float]) -> dict:
    return {
        "runs": {
            name: {
                "parameters": outcome.parameters,
                "images_per_second": outcome.images_per_second,
                "results": {target: r.to_dict() for target, r in outcome.results.items()},
            }
            for name, outcome in outcomes.items()
        },
        "histogram_accuracy": histogram,
    }


def _table(outcomes: dict[str, Outcome], histogram: dict[str, float]) -> str:
    """Accuracy and TAR on each set, size, and the cost of a training step."""
    fars = sorted(outcomes["teacher"].results["lfw"].tar)[:1]  # none on a tiny set
    tars = [f"TAR@{far:g} {target}" for far in fars for target in TARGETS]
    header = ["", *TARGETS, *tars, "parameters", "ms/image"]
    rows = []
    for run in RUNS:
        outcome = outcomes[run.name]
        results = [outcome.results[target] for target in TARGETS]
        rows.append(
            [
                run.label,
                *(f"{100 * result.accuracy:.1f}" for result in results),
                *(f"{100 * result.tar[far]:.1f}" for far in fars for result in results),
                f"{outcome.parameters:,}",
                f"{1000 / outcome.images_per_second:.1f}",
            ]
        )
    baseline = [f"{100 * histogram[target]:.1f}" for target in TARGETS]
    rows.append(["colour histogram", *baseline, *["-"] * (len(tars) + 2)])
    return format_table(header, rows)


def _verdict(outcomes: dict[str, Outcome]) -> str:
    """The order of the students, and whether the teacher beats the plain one."""

    def mean(name: str) -> float:
        return float(np.mean([r.accuracy for r in outcomes[name].results.values()]))

    labels = {run.name: run.label for run in RUNS}
    students = sorted((run.name for run in RUNS[1:]), key=mean, reverse=True)
    order = " > ".join(f"{labels[name]} {100 * mean(name):.2f}" for name in students)
    lines = [f"students by mean accuracy: {order}"]
    teacher, plain = mean("teacher"), mean("student")
    verb = "beats" if teacher > plain else "does NOT beat"
    lines.append(f"the teacher ({100 * teacher:.2f}) {verb} the plain student ({100 * plain:.2f})")
    return "\n" + "\n".join(lines)
