"""Verification accuracy during training."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from arcface_cakd.backbones import FaceBackbone
from arcface_cakd.data import VerificationSet, read_bin
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
    sets, missing = {}, []
    for name in names:
        path = Path(rec) / f"{name}.bin"
        if path.is_file():
            sets[name] = read_bin(path)
            try:
                check_pairs(sets[name].issame)
            except EvaluationError as error:
                raise EvaluationError(
                    f"{path}: {error}; leave {name} out of val_targets, or make the set anew"
                ) from error
        else:
            missing.append(path.name)
    if missing:
        logger.warning("no validation on %s: not in %s", ", ".join(missing), rec)
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
