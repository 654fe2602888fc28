"""Class centres out of the checkpoints of all ranks."""

import glob
import re
from collections import Counter

import torch
from torch import Tensor

from arcface_cakd.partial_fc.errors import PartialFCError
from arcface_cakd.partial_fc.margin_head import MarginHead
from arcface_cakd.partial_fc.sharded import shard_of
from arcface_cakd.tensor_files import DamagedFile, load_tensors

FROM_DATA = "from_data"  # in place of a file: means of the teacher's embeddings, see the engine


def load_centers(pattern: str) -> Tensor:
    """Join the shards of class centres that a run's ranks saved.

    Args:
        pattern: a glob over the checkpoints of one run, one per rank, the rank being the last
            number of the file name: ``work_dirs/teacher/checkpoint_gpu_*.pt``. Each holds
            ``state_dict_softmax_fc`` with ``weight``, as arcface_torch's do.

    Returns:
        (num_classes, E) on the CPU, in the order of classes.

    Raises:
        PartialFCError: no file, a rank missing or twice, a file that is no such checkpoint,
            shards that are not of one run, or centres that are not finite.
    """
    files = _by_rank(pattern)
    shards, steps = [], []
    for path in files:
        checkpoint = _read(path)
        shards.append(checkpoint["state_dict_softmax_fc"]["weight"])
        steps.append(checkpoint.get("global_step"))
    for path, shard, step in zip(files, shards, steps, strict=True):
        if shard.shape[1] != shards[0].shape[1] or step != steps[0]:
            raise PartialFCError(
                f"class centres {path}: width {shard.shape[1]} at step {step}, but {files[0]} "
                f"has width {shards[0].shape[1]} at step {steps[0]}: give the files of one run"
            )
    sizes = [len(shard) for shard in shards]
    expected = [shard_of(sum(sizes), rank, len(sizes))[1] for rank in range(len(sizes))]
    if sizes != expected:
        raise PartialFCError(
            f"class centres {pattern}: shards of {', '.join(map(str, sizes))} classes are not "
            "those of one run, which differ by at most one, larger ones first"
        )
    return torch.cat(shards)


@torch.no_grad()
def start_centers(head: MarginHead, num_classes: int, pattern: str) -> None:
    """Start the class centres of ``head``, this rank's, from those that ``load_centers`` finds,
    however many ranks left them.

    Args:
        head: ours or arcface_torch's.
        num_classes: of all ranks together.
        pattern: see ``load_centers``.

    Raises:
        PartialFCError: see there; or they are of another number of classes or another width.
    """
    centers, width = load_centers(pattern), head.weight.shape[1]
    if tuple(centers.shape) != (num_classes, width):
        raise PartialFCError(
            f"init_centers {pattern}: {len(centers)} class centres of width {centers.shape[1]}, "
            f"but this run has {num_classes} of width {width}: give those of a run on the same "
            "training set, with the same embedding_size"
        )
    head.weight.copy_(centers[head.class_start : head.class_start + head.num_local])


def _by_rank(pattern: str) -> list[str]:
    """The files of a glob in the order of their ranks, every rank there once."""
    paths = glob.glob(pattern)
    if not paths:
        raise PartialFCError(
            f"class centres {pattern}: no such file; they are in the checkpoint_gpu_<rank>.pt "
            "that save_all_states = True writes"
        )
    ranks = {}
    for path in paths:
        number = re.search(r"(\d+)\D*$", path.replace("\\", "/").rsplit("/", 1)[-1])
        if number is None:
            raise PartialFCError(f"class centres {path}: no rank in the file's name")
        ranks[path] = int(number[1])
    rank, count = Counter(ranks.values()).most_common(1)[0]
    if count > 1:
        raise PartialFCError(
            f"class centres {pattern}: {count} files for rank {rank}: give the files of one run"
        )
    missing = sorted(set(range(max(ranks.values()) + 1)) - set(ranks.values()))
    if missing:
        raise PartialFCError(
            f"class centres {pattern}: the file of rank {missing[0]} is missing; its classes are "
            "needed too"
        )
    return sorted(paths, key=ranks.__getitem__)


def _read(path: str) -> dict:
    try:
        # Mapped, because the backbone and the optimiser's state beside it are not wanted.
        checkpoint = load_tensors(path, mapped=True)
    except DamagedFile as error:
        raise PartialFCError(f"class centres {path}: damaged: {error}; copy it again") from error
    except Exception as error:  # what is no checkpoint raises nearly anything
        reason = str(error).strip().split("\n")[0]
        raise PartialFCError(f"class centres {path}: not a checkpoint ({reason})") from error
    softmax = checkpoint.get("state_dict_softmax_fc") if isinstance(checkpoint, dict) else None
    if not isinstance(softmax, dict) or "weight" not in softmax:
        raise PartialFCError(
            f"class centres {path}: holds no state_dict_softmax_fc with a weight; give the "
            "checkpoint_gpu_<rank>.pt of a run"
        )
    weight = softmax["weight"]
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise PartialFCError(f"class centres {path}: weight is not a matrix (classes, width)")
    if not weight.is_floating_point():
        raise PartialFCError(
            f"class centres {path}: of {weight.dtype}, and centres are floating-point numbers: "
            "give the checkpoint_gpu_<rank>.pt of a run"
        )
    if not weight.isfinite().all():
        raise PartialFCError(
            f"class centres {path} are not finite: they come from a run that diverged: use an "
            "earlier checkpoint"
        )
    return checkpoint
