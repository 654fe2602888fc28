"""What gives a checkpoint's tensors their meaning and does not show in their shapes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from arcface_cakd.backbones import FaceBackbone, OnnxTeacher, weights_digest
from arcface_cakd.distiller import Distiller
from arcface_cakd.distributed import failing_together, gather_objects
from arcface_cakd.engine.errors import START_ANEW, CheckpointError, TeacherError

_PLAIN = str | int | float | None  # what a checkpoint may hold as it is
# A teacher is frozen: once is enough.
_known: WeakKeyDictionary[FaceBackbone, str] = WeakKeyDictionary()


def fingerprint(distiller: Distiller) -> dict[str, Any]:
    """What of a distillation must be the same when a checkpoint is taken up, builtins only.

    The teacher's network, the SHA-256 of its weights, wherever they lie, the stage that its
    tokens are of (None: the final map), and the settings of URFM. Names are those of the
    ``cakd`` entry where it has them.
    """
    teacher, config = distiller.teacher, distiller.config
    if teacher not in _known:
        _known[teacher] = weights_digest(teacher)
    network = "onnx" if isinstance(teacher, OnnxTeacher) else config.teacher["network"]
    found = {
        "teacher.network": network,
        "teacher's weights": _known[teacher],
        "teacher.stage": teacher.token_stage,
        "urfm": config.urfm is not None,
    }
    for name, value in (config.urfm or {}).items():
        found[f"urfm.{name}"] = value if isinstance(value, _PLAIN) else repr(value)
    return found


def check_same_teacher(distiller: Distiller) -> None:
    """Stop where the ranks' teachers differ, as files on disks of their own may; a collective.

    From here on ``fingerprint`` knows the digest: a file that is gone later stops no checkpoint.

    Raises:
        TeacherError: they differ; the message names the first rank whose teacher is not rank 0's.
    """
    with failing_together():
        own = fingerprint(distiller)["teacher's weights"]
    first, *others = gather_objects(own)
    for number, digest in enumerate(others, 1):
        if digest != first:
            raise TeacherError(
                f"the teacher's weights on rank {number} are not rank 0's (SHA-256 "
                f"{digest[:12]}... and {first[:12]}...): put the same files on every machine"
            )


def check_fingerprint(then: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Hold what the checkpoint ``path`` says of its run against what is so ``now``.

    Raises:
        CheckpointError: they differ; the message names the first difference.
    """
    # Before there was that setting, the final map was what every teacher gave.
    then = {"teacher.stage": None, **then}
    for name, value in now.items():
        if name not in then:
            raise CheckpointError(
                f"checkpoint {path} does not say its {name}, as an older version of arcface_cakd "
                f"wrote it: {START_ANEW}"
            )
        if then[name] == value:
            continue
        if name == "teacher's weights":
            raise CheckpointError(
                f"checkpoint {path} is of a run whose teacher had other weights (SHA-256 "
                f"{then[name][:12]}..., now {value[:12]}...): give cakd.teacher the former ones, "
                f"or {START_ANEW}"
            )
        if name in ("num_classes", "num_image"):
            raise other_people(path, f"{name} {then[name]!r}", f"{value!r}")
        raise CheckpointError(
            f"checkpoint {path} has {name} {then[name]!r}, the config {value!r}: set it back, or "
            f"{START_ANEW}"
        )


def other_people(path: Path, then: str, now: str) -> CheckpointError:
    """The error of a run that is to go on with another data set than it began with."""
    return CheckpointError(
        f"checkpoint {path} has {then}, and this run {now}: it goes on with the same people, "
        "images and ranks alone; to train on from its weights with others, give "
        f'init_weights="{path.parent / "model.pt"}" (in a distillation cakd.student_weights), '
        "resume=False and another output"
    )
