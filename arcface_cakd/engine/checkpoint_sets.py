"""Where a run's checkpoints are. A set is the files of all ranks at one step.

The newest set lies in the output itself, under the names that arcface_torch gives its own. Former
ones lie in ``checkpoints/step_<n>``, and in ``checkpoints/best`` the one that did best on the
first validation set, with its student as ``model.pt``. To go on from another than the newest, copy
its files over those.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from arcface_cakd.distributed import is_main, local_rank, rank, world_size
from arcface_cakd.files import atomic_path

FOLDER = "checkpoints"
BEST = "best"
_STEP = "step_"


def checkpoint_path(output: str | Path, rank: int = 0) -> Path:
    """The checkpoint of that rank in a run's output folder, or in another folder of a set."""
    return Path(output) / f"checkpoint_gpu_{rank}.pt"


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


def keep_former(output: str | Path, step: int | None) -> None:
    """Let the newest set be a former one too, before it is replaced: this rank's share of it.

    Rank 0 sees also to files of ranks that there are no more.

    Args:
        output: of the run.
        step: of the newest set; None where it cannot be read: then it is not worth keeping.
    """
    if step is None:
        return
    numbers = {rank()} | (_stale_ranks(output) if is_main() else set())
    for number in numbers:
        path = checkpoint_path(output, number)
        if path.is_file():
            link_or_copy(path, checkpoint_path(former_folder(output, step), number))


def drop_former(output: str | Path, step: int, keep: int) -> None:
    """Remove this rank's files of former sets beyond the last ``keep``, and of ranks that are gone.

    Args:
        output: of the run.
        step: of the newest set. Sets of later steps are of a run that went another way from
            here: they go too.
        keep: how many former sets stay.
    """
    if is_main():
        for number in _stale_ranks(output):
            checkpoint_path(output, number).unlink(missing_ok=True)
    earlier = sorted(former for former in former_steps(output) if former < step)
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
    """Let ``target`` be the file ``source`` under another name; a copy where there are no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with atomic_path(target) as partial:
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
