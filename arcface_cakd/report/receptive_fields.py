"""Where URFM's local centres of a run look, teacher beside student."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from arcface_cakd.data.loader import open_images
from arcface_cakd.data.reading import Views
from arcface_cakd.engine import load_distiller, recorded_config
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.plots import local_centers_figure
from arcface_cakd.report.runs import ReportedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FACES = 3


@dataclass(frozen=True)
class Receptive:
    """What there is to show of a run with URFM.

    Attributes:
        run: its name.
        variation: ``lookup_variation`` of the last log line, where one has it.
        picture: a matplotlib figure, or None.
        reason: why there is no picture; empty where there is one.
    """

    run: str
    variation: float | None
    picture: Figure | None
    reason: str


def receptive_fields(run: ReportedRun) -> Receptive | None:
    """What a run shows of its receptive fields, on the first images of its training set.

    None for a run without URFM. What ``model.pt`` leaves out is read from the run's checkpoint, and
    the teacher from where the config says; without either there is no picture.
    """
    variation = run.last("diagnostics").get("lookup_variation")
    cakd = run.record.get("config", {}).get("cakd") or {}
    if variation is None and not cakd.get("urfm"):
        return None
    try:
        picture = _picture(run)
    except (ArcfaceCakdError, OSError) as error:
        return Receptive(run.name, variation, None, " ".join(str(error).split()))
    return Receptive(run.name, variation, picture, "")


def _picture(run: ReportedRun) -> Figure:
    if not run.record:
        raise ArcfaceCakdError(f"it {run.without_record}, so that nobody knows what was built")
    config = recorded_config(dict(run.record), run.folder)
    distiller = load_distiller(config)
    images = open_images(config.rec, labelled=False)
    places = np.arange(min(FACES, len(images)))
    planes, _ = Views(images, seed=0).read(places, 0, np.zeros(len(places), dtype=bool))
    return local_centers_figure(distiller, planes.transpose(0, 2, 3, 1))
