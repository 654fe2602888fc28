"""The built-in training loop: checkpoints, schedules, validation and records of a run."""

from arcface_cakd.engine.checkpoint import load_distiller
from arcface_cakd.engine.checkpoint_sets import checkpoint_path
from arcface_cakd.engine.class_means import give_centers
from arcface_cakd.engine.errors import (
    CheckpointError,
    DivergenceError,
    EngineError,
    RunStoppedError,
    TeacherError,
)
from arcface_cakd.engine.journal import read_history
from arcface_cakd.engine.loop import TrainResult, train
from arcface_cakd.engine.run_record import RUN_RECORD, read_run_record, recorded_config
from arcface_cakd.engine.run_settings import run_settings
from arcface_cakd.engine.validation import check_teacher, validate, validation_sets

__all__ = [
    "RUN_RECORD",
    "CheckpointError",
    "DivergenceError",
    "EngineError",
    "RunStoppedError",
    "TeacherError",
    "TrainResult",
    "check_teacher",
    "checkpoint_path",
    "give_centers",
    "load_distiller",
    "read_history",
    "read_run_record",
    "recorded_config",
    "run_settings",
    "train",
    "validate",
    "validation_sets",
]
