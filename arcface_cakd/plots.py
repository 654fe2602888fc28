"""Pictures of what a run shows: loss curves, and where the local centres look."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from arcface_cakd.alignment import LocalFeatures
from arcface_cakd.data import as_batch
from arcface_cakd.distiller import Distiller
from arcface_cakd.evaluation.plots import label_text
from arcface_cakd.files import atomic_path
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, CROP_SIZE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LANDMARK_NAMES = ("left eye", "right eye", "nose", "left mouth", "right mouth")


def plot_loss_curves(runs: Mapping[str, Sequence[Mapping]], path: str | Path) -> None:
    """Draw the loss terms of several runs, one panel a run, the margin loss in black.

    Args:
        runs: by name, what ``engine.read_history`` gives.
        path: where the picture goes; its suffix chooses the format.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(runs), 3.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(runs)))
    for axis, (name, lines) in zip(axes, runs.items(), strict=True):
        margins = [(line["step"], line["margin"]) for line in lines if "margin" in line]
        if margins:  # none where cakd.margin_weight is 0
            axis.plot(*zip(*margins, strict=True), "k", label="margin")
        terms = sorted({term for line in lines for term in line.get("terms", {})})
        for term in terms:
            present = [line for line in lines if term in line.get("terms", {})]
            axis.plot(
                [line["step"] for line in present],
                [line["terms"][term] for line in present],
                label=label_text(term),
            )
        axis.set(title=label_text(name), xlabel="step", yscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="x-small")
    axes[0].set_ylabel("weighted loss")
    _save(figure, path)


def landmark_centers(places: np.ndarray) -> list[int]:
    """The local centres nearest to the five landmarks of the ArcFace template.

    Args:
        places: (L, 2) of the centres, in pixels of the crop: ``URFM.places["center"]``.
    """
    distances = np.linalg.norm(places[None] - np.asarray(ARCFACE_TEMPLATE)[:, None], axis=-1)
    return [int(i) for i in distances.argmin(axis=1)]


def attention_on_crop(local: LocalFeatures, grid: tuple[int, int], centers: Sequence[int]):
    """Where centres look, as maps over the crop.

    Args:
        local: the local features of one network.
        grid: (H, W) of the tokens that it was computed from.
        centers: indices of the centres.

    Returns:
        (B, len(centers), 112, 112) float32: the mean over heads of the centres' weights on the
        patches, prompts left out, upsampled, each map scaled to a largest value of 1.
    """
    height, width = grid
    weights = local.lookup.float().mean(dim=1)[:, list(centers), : height * width]
    maps = weights.unflatten(-1, (height, width))
    maps = torch.nn.functional.interpolate(
        maps, size=(CROP_SIZE, CROP_SIZE), mode="bicubic", align_corners=False
    ).clamp_min(0)
    peak = maps.amax(dim=(-2, -1), keepdim=True).clamp_min(1e-12)
    return (maps / peak).cpu().numpy()


def plot_local_centers(distiller: Distiller, images: np.ndarray, path: str | Path) -> None:
    """Draw ``local_centers_figure`` into a picture file, whose suffix chooses the format."""
    _save(local_centers_figure(distiller, images), path)


@torch.no_grad()
def local_centers_figure(distiller: Distiller, images: np.ndarray) -> "Figure":
    """Where the local centres look on faces, teacher beside student.

    A row is a face; for each of the five landmarks, the centre nearest to it, in the teacher
    and in the student. The mark is the centre's own place.

    Args:
        distiller: with URFM.
        images: (B, 112, 112, 3) uint8, RGB.

    Raises:
        ValueError: the distiller has no URFM.
    """
    from matplotlib.figure import Figure

    batch = as_batch(images, next(distiller.parameters()).device)
    student, teacher, alignment = distiller.features(batch)
    if distiller.urfm is None or alignment is None:
        raise ValueError("the distiller has no URFM, whose local centres are to be drawn")
    centers = landmark_centers(np.asarray(distiller.urfm.layout.places["center"]))
    seen = {
        "teacher": attention_on_crop(alignment.teacher, teacher.pixel_features[1], centers),
        "student": attention_on_crop(alignment.student, student.pixel_features[1], centers),
    }
    rows, columns = len(images), 1 + 2 * len(centers)
    figure = Figure(figsize=(1.25 * columns, 1.35 * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, face in enumerate(images):
        for axis in axes[row]:
            axis.set(xticks=[], yticks=[])
            axis.imshow(face)
        for place, name in enumerate(LANDMARK_NAMES):
            for side, (network, maps) in enumerate(seen.items()):
                axis = axes[row][1 + 2 * place + side]
                axis.imshow(maps[row, place], cmap="inferno", alpha=0.6, vmin=0, vmax=1)
                axis.plot(*ARCFACE_TEMPLATE[place], "c+", markersize=7)
                if row == 0:
                    axis.set_title(f"{name}\n{network}", fontsize="x-small")
    axes[0][0].set_title("face", fontsize="x-small")
    return figure


def _save(figure, path: str | Path) -> None:
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=120)
