"""Files of another number of ranks, or damaged ones, mended before the host loads its own."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from arcface_cakd.distributed import (
    failing_together,
    gather_objects,
    is_main,
    rank,
    world_size,
)
from arcface_cakd.engine.checkpoint_sets import (
    checkpoint_path,
    former_folder,
    former_steps,
    link_or_copy,
    replace_newest,
)
from arcface_cakd.engine.checkpoint_state import read_checkpoint
from arcface_cakd.engine.errors import CheckpointError
from arcface_cakd.engine.resharding import joined_gradients, resharded
from arcface_cakd.tensor_files import write_tensors

logger = logging.getLogger("arcface_cakd")


def divide_anew(output: str | Path, num_classes: int) -> None:
    """Let the checkpoints in ``output`` be a whole set of the ranks that there are.

    Every rank must see the files of all. They are told to be a set where they are of one step and
    hold ``num_classes`` class centres together; what is none is left alone, for whoever loads it
    to say so. The former set stays in ``checkpoints/step_<n>``, and is looked for there where a
    file is damaged, or a kill left files of two steps or two numbers of ranks. A collective.

    Args:
        output: of the run.
        num_classes: class centres of all ranks.
    """
    own = _own(output)
    states = gather_objects(own)
    if all(state == states[0] for state in states) and own is not None:
        weights = _count_classes([_read(checkpoint_path(output, rank()))])
        if sum(gather_objects(weights)) == num_classes:
            return  # of these ranks
    steps = {step for listed in gather_objects(former_steps(output)) for step in listed}
    formers = [former_folder(output, step) for step in sorted(steps, reverse=True)]
    for folder in [Path(output), *formers]:
        contents = _whole_set(folder, num_classes)
        if not all(gather_objects(contents is not None)):
            continue
        assert contents is not None
        step, same = contents[0]["global_step"], len(contents) == world_size()
        share = contents[rank()] if same else _share(contents)
        with failing_together():
            for number in range(len(contents) if is_main() else 0):
                source = checkpoint_path(folder, number)
                link_or_copy(source, checkpoint_path(former_folder(output, step), number))
        replace_newest(output, partial(_write, share), step)
        if is_main() and same:
            logger.warning(
                "%s: a checkpoint there is damaged, missing or of another step than the others: "
                "going on from that of step %d",
                output,
                step,
            )
        elif is_main():
            logger.warning(
                "%s: the checkpoint of step %d is of %d rank(s), now %d: class centres are divided "
                "anew; BatchNorm and random numbers make it another run from here",
                folder,
                step,
                len(contents),
                world_size(),
            )
        return


def _own(output: str | Path) -> int | None:
    """The step of this rank's file; None where it cannot be read."""
    try:
        return _read(checkpoint_path(output, rank()))["global_step"]
    except CheckpointError:
        return None


def _whole_set(folder: Path, num_classes: int) -> list[dict[str, Any]] | None:
    """The checkpoints in a folder, if they are a set of a run with so many classes."""
    contents: list[dict[str, Any]] = []
    while _count_classes(contents) < num_classes:  # files of further ranks are of another set
        try:
            contents.append(_read(checkpoint_path(folder, len(contents))))
        except CheckpointError:
            return None
    of_one_step = len({content["global_step"] for content in contents}) == 1
    return contents if of_one_step and _count_classes(contents) == num_classes else None


def _count_classes(contents: list[dict[str, Any]]) -> int:
    return sum(len(content["state_dict_softmax_fc"].get("weight", ())) for content in contents)


def _share(contents: list[dict[str, Any]]) -> dict[str, Any]:
    """This rank's checkpoint of a set of other ranks."""
    share = resharded(contents, rank(), world_size())
    if "cakd" not in share:
        return share
    kept = [content["cakd"] for content in contents]
    entry = dict(share["cakd"])
    if rank() >= len(contents):
        entry["rng"] = None
    if all(each["gradients"] is not None for each in kept):
        gradients = [each["gradients"] for each in kept]
        entry["gradients"] = joined_gradients(gradients, rank(), world_size(), has_centers=True)
    return {**share, "cakd": entry}


def _write(content: dict[str, Any], path: Path) -> None:
    write_tensors(path, content)


def _read(path: Path) -> dict[str, Any]:
    return read_checkpoint(path, "state_dict_softmax_fc", "is not a checkpoint", mapped=True)
