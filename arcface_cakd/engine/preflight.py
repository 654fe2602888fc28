"""What is looked at before a run begins, in our loop and in arcface_torch's: data and output."""

import atexit
import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from arcface_cakd.config import ConfigError
from arcface_cakd.distributed import failing_together, is_main
from arcface_cakd.locks import FolderLock

logger = logging.getLogger("arcface_cakd")


def check_output(folder: str | Path, *, resume: bool, force: bool) -> None:
    """Keep a run from writing over another one's model and checkpoints.

    Args:
        folder: the run's output.
        resume: whether it goes on with what is there.
        force: whether its user says that what is there may go.

    Raises:
        ConfigError: the folder holds a ``model.pt`` or a checkpoint, and neither is so.
    """
    if resume or force:
        return
    checkpoints = sorted(Path(folder).glob("checkpoint_gpu_*.pt"))
    held = [Path(folder) / "model.pt", *checkpoints]
    found = next((path for path in held if path.is_file()), None)
    if found is None:
        return
    # Without a checkpoint there is nothing to go on from.
    goes_on = "set resume=True to go on with it, " if checkpoints else ""
    raise ConfigError(
        f"output {folder} holds another run ({found.name}): name another output, {goes_on}"
        "or set force=True to write over it"
    )


@contextlib.contextmanager
def held_output(folder: str | Path) -> Iterator[None]:
    """A run's output as this run's own, held by rank 0; a collective.

    Raises:
        FolderInUseError: another run writes to it.
    """
    lock = None
    with failing_together():
        if is_main():
            lock = FolderLock(folder)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def hold_output(folder: str | Path) -> None:
    """Hold a run's output until this process ends, which may have it already.

    Raises:
        FolderInUseError: another run writes to it.
    """
    place = Path(folder).resolve()
    if place not in _HELD:
        _HELD[place] = lock = FolderLock(folder)
        atexit.register(lock.release)


_HELD: dict[Path, FolderLock] = {}


def check_apart(
    rec: str | Path, places: Mapping[str, str | Path | None], *, dots_hide: bool = True
) -> None:
    """Keep what a run writes out of a folder whose subfolders are people.

    There it would be taken for a person at the next start, so that the run could not go on.

    Args:
        rec: the data set, a folder of one folder per identity.
        places: what the run writes to, by the names of the settings.
        dots_hide: whether a folder whose name begins with a dot is taken for nobody.

    Raises:
        ConfigError: one lies in ``rec`` and is not hidden.
    """
    root = Path(rec).resolve()
    for name, place in places.items():
        if place is None or not Path(place).resolve().is_relative_to(root):
            continue
        parts = Path(place).resolve().relative_to(root).parts
        if not (dots_hide and any(part[0] == "." for part in parts)):
            raise ConfigError(
                f"{name} {place} lies in {rec}, whose folders are taken for people: name a folder "
                "elsewhere"
            )


def check_num_classes(given: int | None, found: int, rec: str) -> None:
    """Hold ``num_classes`` against the identities of a data set whose labels are needed.

    Args:
        given: the config's; None: as many as there are.
        found: those of the data set, at least 1.
        rec: the data set, for messages.

    Raises:
        ConfigError: fewer classes than identities, or a single identity. More are a warning.
    """
    if found == 1:
        raise ConfigError(
            f"{rec} has one identity, and to tell it from others there is nothing to learn: "
            "take a set of several, or distil without labels (cakd.margin_weight=0, and no loss "
            "that needs labels)"
        )
    if given is None or given == found:
        return
    if given < found:
        raise ConfigError(
            f"num_classes is {given}, but {rec} has {found} identities: raise it, or leave it out "
            "where that is possible"
        )
    logger.warning(
        "num_classes is %d, but %s has %d identities: %d class centres stand for nobody, and only "
        "push; set it to %d",
        given,
        rec,
        found,
        given - found,
        found,
    )


def check_num_image(given: int | None, found: int, global_batch: int, rec: str) -> None:
    """Warn where ``num_image``, by which the schedule counts, makes other epochs than the data.

    Args:
        given: the config's; None: as many as there are.
        found: images of the data set.
        global_batch: images a step, of all ranks.
        rec: the data set, for the message.
    """
    if given is None or given // global_batch == found // global_batch:
        return
    logger.warning(
        "num_image %d: the schedule ends after %d steps an epoch, but %s has %d images, which are "
        "%d steps; set it to %d",
        given,
        given // global_batch,
        rec,
        found,
        found // global_batch,
        found,
    )


def check_gradient_acc(gradient_acc: int, steps: int) -> None:
    """Hold the micro-steps of an optimiser step against those of the run.

    Args:
        gradient_acc: the config's.
        steps: micro-steps of the whole run.

    Raises:
        ConfigError: no optimiser step would be made. Micro-steps at the end that make none are
            a warning.
    """
    if steps == 0:
        return
    if gradient_acc > steps:
        raise ConfigError(
            f"gradient_acc {gradient_acc}: the run has {steps} micro-steps, so that no optimiser "
            "step would be made: lower it, or raise num_epoch"
        )
    left = steps % gradient_acc
    if left:
        logger.warning(
            "gradient_acc %d: the last %d of %d micro-steps make no optimiser step, and nothing "
            "learns from them",
            gradient_acc,
            left,
            steps,
        )


def check_warmup(warmup_epoch: float, num_epoch: int) -> None:
    """Warn where a run ends before its warm-up does.

    Args:
        warmup_epoch: the config's, as ``num_epoch`` is.
    """
    if warmup_epoch > num_epoch:
        logger.warning(
            "warmup_epoch %g: the run ends after num_epoch %d, before it has its full learning "
            "rate",
            warmup_epoch,
            num_epoch,
        )


def missing_sets(rec: str | Path, names: Iterable[str]) -> list[str]:
    """The ``<name>.bin`` of ``val_targets`` that are not in ``rec``; one warning names them."""
    missing = [f"{name}.bin" for name in names if not (Path(rec) / f"{name}.bin").is_file()]
    if missing:
        logger.warning("no validation on %s: not in %s", ", ".join(missing), rec)
    return missing
