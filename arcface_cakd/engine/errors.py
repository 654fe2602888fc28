"""What stops a training run."""

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
