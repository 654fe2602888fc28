"""What may befall a run that is no mistake of its config, said in one line."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from arcface_cakd.config import TrainConfig
from arcface_cakd.distributed import is_main, rank
from arcface_cakd.engine.errors import EngineError
from arcface_cakd.files import DISK_IS_FULL

logger = logging.getLogger("arcface_cakd")

_WORKER = "DataLoader worker"  # how torch's errors begin; they have no class of their own
_CPU_MEMORY = "DefaultCPUAllocator"


@contextlib.contextmanager
def said_in_one_line(config: TrainConfig) -> Iterator[None]:
    """Turns memory that runs out, a lost loader worker and an output that cannot be written into
    an ``EngineError`` that says what to do; a rank that does not speak else logs it.

    Raises:
        EngineError: see above; whatever else the block raises goes through.
    """
    try:
        yield
    except (RuntimeError, OSError, MemoryError) as error:
        text = _line(error, config)
        if text is None:
            raise
        if not is_main():
            logger.error("rank %d: %s", rank(), text)
        raise EngineError(text) from error


def _line(error: Exception, config: TrainConfig) -> str | None:
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU_MEMORY in str(error):
        return f"out of memory: {_less_memory(config)}"
    if isinstance(error, RuntimeError):
        if not str(error).startswith(_WORKER):
            return None
        lost = " ".join(str(error).split("\n")[0].split()).rstrip(".")
        return (
            f"a process that reads images was lost ({lost}), as where memory runs out: lower "
            f"num_workers (now {config.num_workers}), then go on with resume=True"
        )
    assert isinstance(error, OSError)
    output = config.folder.resolve()
    named = None if error.filename is None else Path(str(error.filename)).resolve()
    # Without a name it may be of anything, a pipe or a file that is read; but for a full disk.
    written = error.errno in DISK_IS_FULL if named is None else named.is_relative_to(output)
    if not written:
        return None
    reason = error.strerror or str(error)
    if not output.is_dir():
        return (
            f"output {config.output} is gone ({reason}), and what was saved in it: name a place "
            "that stays, and start again"
        )
    way = "free space" if error.errno in DISK_IS_FULL else "make it writable"
    what: str | Path | None = config.output if named is None else named
    return f"{what} cannot be written ({reason}): {way}, then go on with resume=True"


def _less_memory(config: TrainConfig) -> str:
    ways = [f"lower batch_size (now {config.batch_size}) and raise gradient_acc as much"]
    if not (config.fp16 or config.bf16):
        ways.append("set bf16=True")
    if config.sample_rate == 1 and config.has_class_centers:
        ways.append("set sample_rate below 1 where classes are many")
    prompts = None if config.cakd is None else config.cakd.prompts
    if prompts is not None and not prompts.get("checkpointing"):
        ways.append("set cakd.prompts.checkpointing=True")
    return "; or ".join(ways)
