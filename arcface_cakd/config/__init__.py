"""The config file, and the ``cakd`` entry in it: reading, defaults and validation."""

from arcface_cakd.config.cakd import METHOD_LOSSES, CakdConfig, LossEntry
from arcface_cakd.config.other_words import data_folder, margin_meant_by
from arcface_cakd.config.settings import ConfigError, Range, Section, check_settings
from arcface_cakd.config.training import (
    TrainConfig,
    check_centers,
    check_combination,
    load_config,
    unknown_keys,
)

__all__ = [
    "METHOD_LOSSES",
    "CakdConfig",
    "ConfigError",
    "LossEntry",
    "Range",
    "Section",
    "TrainConfig",
    "check_centers",
    "check_combination",
    "check_settings",
    "data_folder",
    "load_config",
    "margin_meant_by",
    "unknown_keys",
]
