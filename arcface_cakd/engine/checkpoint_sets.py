"""Where a run's checkpoints are. A set is the files of all ranks at one step.

The newest set lies in the output itself, under the names that arcface_torch gives its own. Former
ones lie in ``checkpoints/step_<n>``, and in ``checkpoints/best`` the one that did best on the
first validation set, with its student as ``model.pt``. To go on from another than the newest, copy
its files over those.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from arcface_cakd.distributed import (
    barrier,
    failing_together,
    is_main,
    local_rank,
    rank,
    world_size,
)
from arcface_cakd.engine.checkpoint_state import step_of
from arcface_cakd.files import atomic_path

FOLDER = "checkpoints"
BEST = "best"
_STEP = "step_"


def checkpoint_path(output: str | Path, rank: int = 0) -> Path:
    """The checkpoint of that rank in a run's output folder, or in another folder of a set."""
    return Path(output) / f"checkpoint_gpu_{rank}.pt"


def files_of_ranks(folder: str | Path) -> list[Path]:
    """The checkpoints in a folder of a set, of rank 0 and on, up to the first that is missing."""
    found: list[Path] = []
    while (path := checkpoint_path(folder, len(found))).is_file():
        found.append(path)
    return found


def best_folder(output: str | Path) -> Path:
    """Where the set that did best is."""
    return Path(output) / FOLDER / BEST


def former_folder(output: str | Path, step: int) -> Path:
    """Where the former set of that step is."""
    return Path(output) / FOLDER / f"{_STEP}{step}"


def former_steps(output: str | Path) -> list[int]:
    """The steps of the former sets, in no order; whether they are whole is not looked at."""
    numbers = [path.name[len(_STEP) :] for path in (Path(output) / FOLDER).glob(f"{_STEP}*")]
    return [int(number) for number in numbers if number.isdecimal()]


def holds_checkpoint(output: str | Path) -> bool:
    """Whether there is anything that a run might go on from."""
    former = (_files(former_folder(output, step)) for step in former_steps(output))
    return any(True for files in (_files(Path(output)), *former) for _ in files)


def replace_newest(
    output: str | Path, write: Callable[[Path], None], step: int, keep: int = 2
) -> None:
    """Write the newest set, this rank's file of it, and let the one before be a former one.

    No rank's file appears before all are written and the set before is kept under its own name,
    so that a kill between two ranks' files, which leaves them at different steps, loses nothing.
    A collective.

    Args:
        output: of the run.
        write: writes this rank's file to the path that it is given.
        step: of the set.
        keep: how many sets stay, with this one. Sets of later steps are of a run that went
            another way from here: they go.
    """
    path = checkpoint_path(output, rank())
    with atomic_path(path) as partial, failing_together():
        write(partial)
        _keep_former(output, step)
        # Here all files are written.
    barrier()
    _drop_former(output, step, keep - 1)
    # A rank that is ahead may be making a folder in the one that another finds empty and removes.
    barrier()


def _keep_former(output: str | Path, step: int) -> None:
    """Rank 0 sees also to files of ranks that there are no more."""
    for number in {rank()} | (_stale_ranks(output) if is_main() else set()):
        path = checkpoint_path(output, number)
        former = step_of(path) if path.is_file() else None
        if former is not None and former < step:
            link_or_copy(path, checkpoint_path(former_folder(output, former), number))
        else:
            # Damaged, or of a way that was left: this run went on from a former set. Were it to
            # stay, a kill between two ranks' files might leave it beside a new one of its step.
            path.unlink(missing_ok=True)


def _drop_former(output: str | Path, step: int, keep: int) -> None:
    if is_main():
        for number in _stale_ranks(output):
            checkpoint_path(output, number).unlink(missing_ok=True)
    earlier = sorted(former for former in former_steps(output) if former <= step)
    stay = set(earlier[len(earlier) - keep :] if keep else ())
    for former in set(former_steps(output)) - stay:
        folder = former_folder(output, former)
        for path in _files(folder) if is_main() else [checkpoint_path(folder, rank())]:
            path.unlink(missing_ok=True)
        _remove_if_empty(folder)
    _remove_if_empty(Path(output) / FOLDER)


def set_aside_sets(output: str | Path) -> None:
    """Rename the checkpoints of a former run to end in ``.old``.

    A run that starts anew and is killed before its own first checkpoint would otherwise be
    resumed from the former run's. One process of each machine does it.
    """
    if local_rank() != 0:
        return
    with contextlib.suppress(FileNotFoundError):  # another machine came first
        for path in list(_files(Path(output))):
            path.replace(path.with_name(f"{path.name}.old"))
        folder = Path(output) / FOLDER
        if folder.is_dir():
            aside = folder.with_name(f"{FOLDER}.old")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)


def link_or_copy(source: Path, target: Path) -> None:
    """Let ``target`` be the file ``source`` under another name; a copy where there are no links.

    What stood there is there until then, however the process ends.
    """
    if target.exists() and target.samefile(source):
        return
    with atomic_path(target) as partial:
        partial.unlink()
        try:
            os.link(source, partial)
        except OSError:
            shutil.copy(source, partial)


def _files(folder: Path) -> Iterator[Path]:
    return folder.glob("checkpoint_gpu_*.pt")


def _stale_ranks(output: str | Path) -> set[int]:
    """Ranks beyond those of this run that have a file in the newest set."""
    numbers = [path.stem.rpartition("_")[2] for path in _files(Path(output))]
    return {int(number) for number in numbers if number.isdecimal() and int(number) >= world_size()}


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
