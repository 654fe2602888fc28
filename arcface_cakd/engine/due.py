"""What stands at the end of a micro-step, beside training itself."""

from dataclasses import dataclass

from arcface_cakd.config import TrainConfig
from arcface_cakd.engine.checkpoint import Position


@dataclass(frozen=True)
class Due:
    """What stands at the end of a micro-step.

    Attributes:
        log: a log line.
        validate: a validation.
        model: ``model.pt``, at the end of an epoch.
        checkpoint: a checkpoint.
    """

    log: bool
    validate: bool
    model: bool
    checkpoint: bool

    @property
    def anything(self) -> bool:
        return self.log or self.validate or self.model or self.checkpoint


def due(
    config: TrainConfig, position: Position, batches: int, last_step: int, total_steps: int
) -> Due:
    """What is due after the micro-step at ``position``, in epochs of so many ``batches``."""
    step = position.step
    ends_epoch = position.batch == batches
    every = config.checkpoint_every
    wanted = ends_epoch or step == last_step or (every is not None and step % every == 0)
    # Where there is one, as a signal leaves it, a further start would go on from that again.
    ends = bool(config.resume) and step == total_steps
    return Due(
        log=step % config.frequent == 0 or step == total_steps,
        validate=step % config.verbose == 0 or step == total_steps,
        model=ends_epoch,
        checkpoint=(config.keeps_checkpoints and wanted) or ends,
    )
