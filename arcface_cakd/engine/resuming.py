"""Whether a run goes on or begins, where that is left to what there is."""

import logging
from dataclasses import replace
from pathlib import Path

from arcface_cakd.config import TrainConfig
from arcface_cakd.distributed import gather_objects, is_main
from arcface_cakd.engine.checkpoint_sets import holds_checkpoint

logger = logging.getLogger("arcface_cakd")


def goes_on(output: str | Path) -> bool:
    """What ``resume="auto"`` comes to: whether any rank finds a checkpoint; a collective.

    A run that was killed between its first ``model.pt`` and its first checkpoint begins again,
    and would be refused as one in another's output: rank 0 renames that file to end in ``.old``.
    """
    if any(gather_objects(holds_checkpoint(output))):
        return True
    model = Path(output) / "model.pt"
    if is_main() and model.is_file():
        aside = model.with_name(f"{model.name}.old")
        model.replace(aside)
        logger.warning("%s has no checkpoint to go on from: its model.pt is now %s", output, aside)
    return False


def with_resume_decided(config: TrainConfig) -> TrainConfig:
    """``config`` with ``resume`` True or False; a collective where it is "auto"."""
    if config.resume != "auto":
        return config
    return replace(config, resume=goes_on(config.folder))
