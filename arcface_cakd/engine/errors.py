"""What stops a training run."""

import signal
from pathlib import Path

from arcface_cakd.errors import ArcfaceCakdError

# How messages say it: the same output would be refused as another run's, unless forced.
START_ANEW = "start anew with resume=False and another output"


class EngineError(ArcfaceCakdError):
    """A run that cannot go on; the message says where and what to do."""


class DivergenceError(EngineError):
    """A loss or gradient that is no longer finite; the message names the step and the term."""


class TeacherError(EngineError):
    """A teacher that is worse than the config demands, or not the same on every rank."""


class CheckpointError(EngineError):
    """A checkpoint that cannot be resumed from; the message names the file."""


class UnreadableCheckpointError(CheckpointError):
    """A checkpoint that is missing, damaged or of another kind: a former one may do.

    Attributes:
        problem: what is wrong, without what to do.
    """

    def __init__(self, problem: str):
        super().__init__(f"{problem}; {START_ANEW}")
        self.problem = problem


class RunStoppedError(EngineError):
    """A run that a signal asked to leave, and that has left a checkpoint.

    Attributes:
        exit_code: that of a program that a signal ends, as shells report it: 128 and the signal.
    """

    def __init__(self, number: signal.Signals, step: int, output: Path):
        super().__init__(
            f"stopped by {number.name} after step {step}, which is saved in {output}: "
            'resume="auto" or resume=True goes on'
        )
        self.exit_code = 128 + number
