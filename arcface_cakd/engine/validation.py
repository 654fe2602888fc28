"""Verification accuracy during training."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.backbones.teacher import RANDOM
from arcface_cakd.config import ConfigError
from arcface_cakd.data import VerificationSet, read_bin
from arcface_cakd.distiller import Distiller
from arcface_cakd.distributed import failing_together, is_main
from arcface_cakd.engine.errors import TeacherError
from arcface_cakd.engine.fingerprint import check_same_teacher
from arcface_cakd.engine.preflight import missing_sets
from arcface_cakd.evaluation import EvaluationError, check_pairs, embed, verification_metrics

logger = logging.getLogger("arcface_cakd")


def validation_sets(rec: str, names: Iterable[str]) -> dict[str, VerificationSet]:
    """The ``<name>.bin`` sets that are in the folder ``rec``, by name.

    Those that are missing are named in one warning, as a folder rarely holds every set.

    Raises:
        DataError: a set is there and cannot be read.
        EvaluationError: a set is there and its pairs cannot be judged. Said before the run, for
            the first validation may come after hours.
    """
    sets, names = {}, list(names)
    missing = missing_sets(rec, names)
    for name in names:
        path = Path(rec) / f"{name}.bin"
        if path.name in missing:
            continue
        sets[name] = read_bin(path)
        try:
            check_pairs(sets[name].issame)
        except EvaluationError as error:
            raise EvaluationError(
                f"{path}: {error}; leave {name} out of val_targets, or make the set anew"
            ) from error
    return sets


def validate(
    backbone: FaceBackbone,
    sets: Mapping[str, VerificationSet],
    *,
    batch_size: int = 64,
) -> dict[str, float]:
    """10-fold verification accuracy, in [0, 1], on each set.

    As arcface_torch computes it: the embeddings of a face and of its mirror image are added.
    The backbone is in eval mode meanwhile, and in its former modes afterwards.
    """
    return {
        name: verification_metrics(
            embed(backbone, pairs.images, batch_size, description=f"validating on {name}"),
            pairs.issame,
        ).accuracy
        for name, pairs in sets.items()
    }


def check_teacher(
    distiller: Distiller, rec: str, names: Iterable[str], sets: Mapping[str, VerificationSet] = {}
) -> float | None:
    """Log the unprompted teacher's accuracy on the first validation set that is there.

    First the ranks make sure that they have one teacher. Rank 0 computes the accuracy, in the
    precision and on the device of the run; where it stops, all ranks do. No random number
    is drawn and nothing of the teacher changes.

    Args:
        distiller: before its first step.
        rec: folder of the ``<name>.bin`` sets.
        names: of the sets.
        sets: those that have been read already, as ``validation_sets`` gives them.

    Returns:
        the accuracy in [0, 1]; None where there is no set, and on ranks other than 0.

    Raises:
        TeacherError: it is lower than ``cakd.teacher.min_accuracy``, an embedding is not finite,
            or the ranks' teachers differ.
        ConfigError: ``min_accuracy`` is set, and there is no set to hold it against.
        DataError: the set cannot be read.
    """
    check_same_teacher(distiller)
    with failing_together():
        return _teacher_accuracy(distiller, rec, names, sets) if is_main() else None


def _teacher_accuracy(
    distiller: Distiller, rec: str, names: Iterable[str], sets: Mapping[str, VerificationSet]
) -> float | None:
    settings = distiller.config.teacher
    required = settings["min_accuracy"]
    names = list(names)
    name = next((n for n in names if n in sets or (Path(rec) / f"{n}.bin").is_file()), None)
    if name is None:
        if required is not None:
            wanted = ", ".join(f"{n}.bin" for n in names) or "any, as val_targets is empty"
            raise ConfigError(
                f"cakd.teacher.min_accuracy is {required:g}, but there is no validation set to "
                f"hold it against ({rec} lacks {wanted}): put one there, or drop the setting"
            )
        return None
    pairs = sets[name] if name in sets else validation_sets(rec, [name])[name]
    device = next(distiller.student.parameters()).device
    description = f"checking the teacher on {name}"
    try:
        embeddings = embed(distiller.teacher, pairs.images, device=device, description=description)
        accuracy = verification_metrics(embeddings, pairs.issame).accuracy
    except EvaluationError as error:
        raise TeacherError(f"the teacher {settings['network']!r} on {name}: {error}") from error
    random = settings["weights"] == RANDOM
    note = ", of random weights: it has learned nothing" if random else ""
    logger.info("teacher: %s %.2f %%%s", name, 100 * accuracy, note)
    if required is not None and accuracy < required:
        weights = "" if settings["weights"] is None else f" with weights {settings['weights']}"
        raise TeacherError(
            f"the teacher {settings['network']!r}{weights} has an accuracy of {accuracy:.4f} on "
            f"{name}, below cakd.teacher.min_accuracy {required:g}: take a better one, or lower "
            "the setting"
        )
    return accuracy
