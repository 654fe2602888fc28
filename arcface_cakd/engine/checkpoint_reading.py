"""Reads the last checkpoint that all ranks can go on from, whichever ranks and loop wrote it."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from arcface_cakd.distributed import failing_together, gather_objects, rank, world_size
from arcface_cakd.engine.checkpoint_sets import (
    checkpoint_path,
    files_of_ranks,
    former_folder,
    former_steps,
)
from arcface_cakd.engine.checkpoint_state import read_checkpoint
from arcface_cakd.engine.errors import UnreadableCheckpointError
from arcface_cakd.engine.resharding import joined_gradients, mean_of, resharded

logger = logging.getLogger("arcface_cakd")

_THEIRS = (
    *("epoch", "state_dict_backbone", "state_dict_softmax_fc"),
    *("state_optimizer", "state_lr_scheduler"),
)


def newest_whole(output: Path, sharded: Iterable[str] = ()) -> tuple[dict[str, Any], Path]:
    """This rank's share of the last set that every rank can read, and its path; a collective.

    Of another number of ranks, it is divided anew (see ``resharded``); then every rank must see
    the files of all. One of arcface_torch gets the keys that it lacks, with None for what nobody
    knows: ``config``, ``rng``, ``sampling``, ``gradients``, ``meter``.

    Args:
        output: of the run.
        sharded: see ``resharded``.

    Raises:
        UnreadableCheckpointError: there is none; the message is about the newest.
        CheckpointError: a later version of this package wrote it.
    """
    steps = {step for listed in gather_objects(former_steps(output)) for step in listed}
    formers = [former_folder(output, step) for step in sorted(steps, reverse=True)]
    first: UnreadableCheckpointError | None = None
    for folder in [output, *formers]:
        problem, content = None, {}
        with failing_together():
            try:
                content = _share(folder, sharded)
            except UnreadableCheckpointError as error:
                problem = error.problem
        reports = gather_objects((problem, content.get("global_step")))
        problem = next((problem for problem, _ in reports if problem is not None), None)
        if problem is None:
            problem = torn([step for _, step in reports], folder)
        if problem is None:
            if first is not None:
                logger.warning(
                    "%s; going on from step %d, the former checkpoint in %s",
                    first.problem,
                    content["global_step"],
                    folder,
                )
            return content, checkpoint_path(folder, rank())
        first = first or UnreadableCheckpointError(problem)
    assert first is not None  # the output itself is always looked at
    raise first


def read_own(path: Path) -> dict[str, Any]:
    """A checkpoint that the built-in loop wrote, as it stands there."""
    return read_checkpoint(path, "config", "was not written by this loop")


def torn(steps: list[int], folder: Path) -> str | None:
    """What is wrong where a set's files, by rank, are not of one step."""
    if len(set(steps)) == 1:
        return None
    return (
        f"the checkpoints in {folder} are of different steps (by rank: "
        f"{', '.join(map(str, steps))}): they are not of one moment of one run"
    )


def _share(folder: Path, sharded: Iterable[str]) -> dict[str, Any]:
    own, first = checkpoint_path(folder, rank()), checkpoint_path(folder, 0)
    # Rank 0's says how many ranks there were; on a machine of its own, a rank sees its own alone.
    head_path = first if first.is_file() else own
    head = _read(head_path, mapped=True)
    theirs = "config" not in head
    missing = [key for key in _THEIRS if key not in head]
    if theirs and missing:
        raise UnreadableCheckpointError(
            f"{head_path} is neither this loop's checkpoint nor arcface_torch's: it lacks "
            f"{missing[0]}"
        )
    ranks = _their_ranks(head, folder) if theirs else head["config"]["ranks"]
    if ranks == world_size():
        content = _read(own)
    else:
        paths = [checkpoint_path(folder, number) for number in range(ranks)]
        for path in paths:
            if not path.is_file():
                raise UnreadableCheckpointError(
                    f"there is no checkpoint {path}: the run had {ranks} rank(s), now "
                    f"{world_size()}, and every rank must see the files of all"
                )
        contents = [_read(path) for path in paths]
        problem = torn([content["global_step"] for content in contents], folder)
        if problem is not None:
            raise UnreadableCheckpointError(problem)
        content = _divided(contents, theirs, sharded)
    return _taken_over(content) if theirs else content


def _divided(
    contents: list[dict[str, Any]], theirs: bool, sharded: Iterable[str]
) -> dict[str, Any]:
    """This rank's checkpoint out of those of other ranks; ``config`` says still which."""
    first = contents[0]
    if theirs:
        classes = sum(len(each["state_dict_softmax_fc"]["weight"]) for each in contents)
        return resharded(contents, rank(), world_size(), sharded, classes)
    classes = first["config"]["num_classes"]
    content = resharded(contents, rank(), world_size(), sharded, classes)
    content["gradients"] = joined_gradients(
        [each["gradients"] for each in contents],
        rank(),
        world_size(),
        has_centers=bool(first["state_dict_softmax_fc"]),
    )
    meter = first["meter"]
    sums = [each["meter"]["sum"] for each in contents]
    content["meter"] = {**meter, "sum": mean_of(sums)}
    if rank() >= len(contents):
        content["rng"] = content["sampling"] = None
    return content


def _taken_over(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of arcface_torch, patched or not, with the keys of the built-in loop."""
    kept = content.get("cakd") or {}
    unknown = dict.fromkeys(("config", "rng", "sampling", "gradients", "meter"))
    return {**content, **unknown, "batch": 0, "state_scaler": kept.get("scaler") or None}


def _their_ranks(head: dict[str, Any], folder: Path) -> int:
    """How many ranks wrote a set of arcface_torch: as it says, or where it does not, by its
    files."""
    return (head.get("cakd") or {}).get("ranks") or len(files_of_ranks(folder))


def _read(path: Path, mapped: bool = False) -> dict[str, Any]:
    return read_checkpoint(path, "global_step", "is not a checkpoint", mapped)
