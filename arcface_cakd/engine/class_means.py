"""Class centres for a teacher that has none for the training set: ``centers="from_data"``."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from arcface_cakd.backbones import weights_digest
from arcface_cakd.data.loader import FaceImages, open_images
from arcface_cakd.data.one_pass import OnePass
from arcface_cakd.data.reading import Views
from arcface_cakd.data.tensors import normalised
from arcface_cakd.distiller import Distiller
from arcface_cakd.distributed import (
    all_reduce_mean,
    failing_together,
    gather_objects,
    is_main,
    rank,
    world_size,
)
from arcface_cakd.engine.errors import START_ANEW, CheckpointError, TeacherError
from arcface_cakd.files import atomic_path
from arcface_cakd.partial_fc import FROM_DATA
from arcface_cakd.progress import track
from arcface_cakd.tensor_files import load_tensors, write_tensors

logger = logging.getLogger("arcface_cakd")

CENTERS_FILE = "teacher_centers.pt"
_BATCH = 128  # images of one forward pass
_NAMED = 5  # classes without images that a message names


def give_centers(
    distiller: Distiller, rec: str | Path, output: str | Path, *, resume: bool, num_workers: int = 0
) -> None:
    """Give a distiller the class centres that it waits for, see ``class_means``; a collective.

    Rank 0 keeps them in ``output``, as ``teacher_centers.pt``: a run that goes on has those that
    it started with. Nothing happens where the distiller waits for none.

    Args:
        distiller: before its first step, where it computes.
        rec: folder of the training set.
        output: folder of the run.
        resume: whether the run goes on from a checkpoint in ``output``.
        num_workers: processes of each rank that read and decode.

    Raises:
        TeacherError: an embedding is not finite.
        CheckpointError: what was kept cannot be read, or is of another teacher or training set; the
            file cannot be written.
        DataError, RecordIOError: the training set cannot be read.
    """
    if not distiller.awaits_centers:
        if distiller.config.teacher["centers"] == FROM_DATA and distiller.teacher_fc is None:
            logger.info("cakd.teacher.centers: nothing needs class centres, so none are computed")
        return
    path = Path(output) / CENTERS_FILE
    with failing_together():
        images = open_images(rec, distiller.num_classes)
        about = {
            "teacher": weights_digest(distiller.teacher),
            "num_image": len(images),
            "num_classes": distiller.num_classes,
        }
        kept = kept_centers(path, about) if resume else None
    if all(gather_objects(kept is not None)):
        assert kept is not None
        distiller.take_centers(kept)
        logger.info("teacher: class centres of %s, as the run started with them", path)
        return
    if resume:
        logger.warning("%s is not there: the teacher's class means are computed again", path)
    centers = class_means(distiller, images, num_workers)
    distiller.take_centers(centers)
    with failing_together():
        if is_main():
            _keep(path, {**about, "centers": centers.cpu()})


def class_means(distiller: Distiller, images: FaceImages, num_workers: int = 0) -> Tensor:
    """Normalised means of the teacher's normalised embeddings over each class; a collective.

    Each rank embeds its share of the images, none of them flipped, by the unprompted teacher in the
    precision of the run. No random number is drawn. A class without images has a centre of zeros,
    to which every embedding has a cosine of 0; a line of the log says how many there are.

    Args:
        distiller: whose teacher it is, where it computes.
        images: the training set; labels are below ``distiller.num_classes``.
        num_workers: processes of each rank that read and decode.

    Returns:
        (num_classes, E) float32, where the distiller computes, the same on every rank.

    Raises:
        TeacherError: an embedding is not finite.
        DataError, RecordIOError: an image cannot be read.
    """
    device = next(distiller.student.parameters()).device
    classes = distiller.num_classes
    assert classes is not None  # or the distiller waits for none
    sums = torch.zeros(classes, distiller.teacher.embedding_size, device=device)
    counts = torch.zeros(classes, dtype=torch.float64, device=device)
    with failing_together(), torch.no_grad():
        share = np.arange(rank(), len(images), world_size())
        starts = range(0, len(share), _BATCH)
        plain = [(0, share[start : start + _BATCH]) for start in starts]
        batches = OnePass(Views(images, seed=0), plain, num_workers)
        for planes, labels in track(batches, "class means of the teacher", unit="batches"):
            embeddings = F.normalize(distiller.teacher(normalised(planes.to(device))))
            where = labels.to(device)
            sums.index_add_(0, where, embeddings)
            counts.index_add_(0, where, torch.ones_like(where, dtype=counts.dtype))
        if not torch.isfinite(sums).all():
            raise TeacherError(
                f"the teacher {distiller.config.teacher['network']!r} gives embeddings of the "
                "training set that are not finite: take other weights, or another precision"
            )
    centers = F.normalize(all_reduce_mean(sums))  # a mean over ranks has their sum's direction
    empty = (all_reduce_mean(counts) == 0).nonzero().flatten().tolist()
    if empty:
        named = ", ".join(map(str, empty[:_NAMED])) + ", ..." * (len(empty) > _NAMED)
        logger.warning(
            "teacher: %d of %d classes have no image (%s): their centres are zero, at cosine 0 "
            "to every face",
            len(empty),
            classes,
            named,
        )
    logger.info(
        "teacher: class centres are the means of its embeddings, of %d images of %d classes",
        len(images),
        classes - len(empty),
    )
    return centers


def kept_centers(path: Path, about: dict[str, Any]) -> Tensor | None:
    """The centres that a run kept, (num_classes, E) on the CPU; None where there is no file.

    Args:
        path: of the file.
        about: what must be the same as when it was written.

    Raises:
        CheckpointError: it cannot be read, or something is not the same.
    """
    if not path.is_file():
        return None
    try:
        content = load_tensors(path)
        centers = content["centers"]
        then = {name: content[name] for name in about}
    except Exception as error:  # a damaged file raises nearly anything
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}): remove it, and the teacher's class "
            "means are computed again"
        ) from error
    for name, value in about.items():
        if then[name] != value:
            raise CheckpointError(
                f"{path} is of a run with {name} {then[name]}, and now it is {value}: set teacher "
                f"and rec back, or {START_ANEW}"
            )
    return centers


def _keep(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        try:
            write_tensors(partial, content)
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be written ({error.strerror}): free space on its disk"
            ) from error
