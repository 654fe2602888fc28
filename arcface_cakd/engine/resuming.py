"""Whether a run goes on or begins, where that is left to what there is."""

import logging
from dataclasses import replace
from pathlib import Path

from arcface_cakd.config import TrainConfig
from arcface_cakd.distributed import gather_objects
from arcface_cakd.engine.checkpoint_sets import holds_checkpoint

logger = logging.getLogger("arcface_cakd")


def goes_on(output: str | Path) -> bool:
    """What ``resume="auto"`` comes to: whether any rank finds a checkpoint; a collective."""
    return any(gather_objects(holds_checkpoint(output)))


def with_resume_decided(config: TrainConfig) -> TrainConfig:
    """``config`` with ``resume`` True or False; a collective where it is "auto".

    A run that keeps checkpoints and was killed between its first ``model.pt`` and its first
    checkpoint begins again, in what is its own output: ``force`` is on then. That of a run that
    keeps none is not touched: it may have ended.
    """
    if config.resume != "auto":
        return config
    resume = goes_on(config.folder)
    begins = not resume and config.keeps_checkpoints
    if not resume and not begins:
        logger.warning(
            'resume="auto" has nothing to go on from after a kill: of this run a signal alone '
            "leaves a checkpoint; set save_all_states=True, or checkpoint_every"
        )
    return replace(config, resume=resume, force=config.force or begins)


def set_aside_model(output: str | Path) -> None:
    """Rename the ``model.pt`` of a former run to end in ``.old``, in an output that is held."""
    model = Path(output) / "model.pt"
    if model.is_file():
        aside = model.with_name(f"{model.name}.old")
        model.replace(aside)
        logger.warning("%s has no checkpoint to go on from: its model.pt is now %s", output, aside)
