"""Files of another number of ranks, or damaged ones, mended before the host loads its own."""

import logging
from collections.abc import Callable, Collection
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
    files_of_ranks,
    former_folder,
    former_steps,
    link_or_copy,
    replace_newest,
)
from arcface_cakd.engine.checkpoint_state import batch_size_of, read_checkpoint
from arcface_cakd.engine.errors import CheckpointError
from arcface_cakd.engine.resharding import check_global_batch, joined_gradients, resharded
from arcface_cakd.tensor_files import write_tensors

logger = logging.getLogger("arcface_cakd")


def divide_anew(
    output: str | Path,
    num_classes: int | None,
    *,
    check: Callable[[dict[str, Any], Path], None] | None = None,
    batch_size: int | None = None,
    sharded: Collection[str] = (),
    identities: int | None = None,
) -> None:
    """Let the checkpoints in ``output`` be a whole set of the ranks that there are.

    Every rank must see the files of all. They are told to be a set where they are of one step and
    of as many ranks as they say, or where they do not, as those of older versions and of an
    unpatched host, hold ``num_classes`` class centres together; what is none is left alone, for
    whoever loads it to say so. The former set stays in ``checkpoints/step_<n>``, and is looked for
    there where a file is damaged, or a kill left files of two steps or two numbers of ranks. A
    collective.

    Args:
        output: of the run.
        num_classes: class centres of all ranks; None: nothing learns those that there are.
        check: raises where this rank's share of a set does not fit, given with a path to name;
            nothing has been written then.
        batch_size: of this run, if a step must keep its number of images over all ranks.
        sharded: see ``resharded``.
        identities: classes of all ranks by which ``sharded`` is divided.

    Raises:
        CheckpointError: ``check`` did, or a step had another number of images.
    """
    own = _own(output)
    states = gather_objects(own)
    if all(state == states[0] for state in states) and own is not None:
        content = _read(checkpoint_path(output, rank()))
        count, of = _count_classes([content]), _ranks_of(content)
        there = len(files_of_ranks(output))
        if _are_whole(gather_objects((count, of, there)), num_classes):
            return
    steps = {step for listed in gather_objects(former_steps(output)) for step in listed}
    formers = [former_folder(output, step) for step in sorted(steps, reverse=True)]
    for folder in [Path(output), *formers]:
        contents = _whole_set(folder, num_classes)
        if not all(gather_objects(contents is not None)):
            continue
        assert contents is not None
        step, same = contents[0]["global_step"], len(contents) == world_size()
        share = _share(contents, num_classes, sharded, identities)
        source = checkpoint_path(folder, rank() if rank() < len(contents) else 0)
        with failing_together():
            if not same and batch_size is not None:
                _check_images(contents, batch_size, source)
            if check is not None:
                check(share, source)
        with failing_together():
            for number in range(len(contents) if is_main() else 0):
                former = checkpoint_path(folder, number)
                link_or_copy(former, checkpoint_path(former_folder(output, step), number))
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


def _are_whole(files: list[tuple[int, int | None, int]], num_classes: int | None) -> bool:
    """Whether files are the set of these ranks: of each, its class centres, the ranks that it
    says, and how many files its rank sees."""
    ranks = {of for _, of, _ in files}
    if ranks != {None}:
        return ranks == {world_size()}
    if num_classes is None:
        return {there for _, _, there in files} == {world_size()}
    return sum(count for count, _, _ in files) == num_classes


def _whole_set(folder: Path, num_classes: int | None) -> list[dict[str, Any]] | None:
    """The checkpoints in a folder, if they are a set of a run with so many classes."""
    contents: list[dict[str, Any]] = []
    while _goes_on(contents, num_classes, folder):  # files of further ranks are of another set
        try:
            contents.append(_read(checkpoint_path(folder, len(contents))))
        except CheckpointError:
            return None
    alike = {(content["global_step"], _ranks_of(content)) for content in contents}
    fits = num_classes is None or _count_classes(contents) == num_classes
    return contents if len(alike) == 1 and fits else None


def _goes_on(contents: list[dict[str, Any]], num_classes: int | None, folder: Path) -> bool:
    """Whether a set of which these are the first has more files."""
    ranks = _ranks_of(contents[0]) if contents else None
    if ranks is not None:
        return len(contents) < ranks
    if num_classes is not None:
        return _count_classes(contents) < num_classes
    return len(contents) < max(len(files_of_ranks(folder)), 1)


def _ranks_of(content: dict[str, Any]) -> int | None:
    """How many ranks wrote the set, the host's or the built-in loop's; None: it does not say."""
    written = content.get("cakd") or content.get("config") or {}
    return written.get("ranks")


def _count_classes(contents: list[dict[str, Any]]) -> int:
    return sum(len(content["state_dict_softmax_fc"].get("weight", ())) for content in contents)


def _check_images(contents: list[dict[str, Any]], batch_size: int, path: Path) -> None:
    """Where the files say nothing of the batch size, there is nothing to hold it against."""
    former = batch_size_of(contents[0])
    if former is not None:
        check_global_batch((len(contents), former), (world_size(), batch_size), path)


def _share(
    contents: list[dict[str, Any]],
    num_classes: int | None,
    sharded: Collection[str],
    identities: int | None,
) -> dict[str, Any]:
    """This rank's checkpoint of a set, which says that it is of these ranks."""
    if len(contents) == world_size():
        return _said_of_these_ranks(contents[rank()], len(contents))
    centers: dict[str, Any] = {}
    if num_classes is None:  # each rank's are its own, and stay as they are
        own = contents[rank() if rank() < len(contents) else 0]
        centers["state_dict_softmax_fc"] = own["state_dict_softmax_fc"]
        contents = [{**content, "state_dict_softmax_fc": {}} for content in contents]
    share = {**resharded(contents, rank(), world_size(), sharded, identities), **centers}
    share = _said_of_these_ranks(share, len(contents))
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


def _said_of_these_ranks(content: dict[str, Any], former: int) -> dict[str, Any]:
    """A checkpoint of ``former`` ranks with the number that there is now, and a rank's share of a
    step's images, which stay as many; where it says them."""
    ranks, batch_size = world_size(), batch_size_of(content)
    share = None if batch_size is None else batch_size * former // ranks
    if content.get("cakd"):
        said = {**content["cakd"], "ranks": ranks}
        if share is not None:
            said["settings"] = {**said["settings"], "batch_size": str(share)}
        content = {**content, "cakd": said}
    if content.get("config"):  # the built-in loop's
        content = {**content, "config": {**content["config"], "ranks": ranks, "batch_size": share}}
    return content


def _write(content: dict[str, Any], path: Path) -> None:
    write_tensors(path, content)


def _read(path: Path) -> dict[str, Any]:
    return read_checkpoint(path, "state_dict_softmax_fc", "is not a checkpoint", mapped=True)
