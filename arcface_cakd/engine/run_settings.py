"""What a run was told, kept in its checkpoint, so that a resumed one can say what has changed."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arcface_cakd.config.settings import settings_of
from arcface_cakd.registry import SECTIONS

logger = logging.getLogger("arcface_cakd")

# What a run that goes on has to say otherwise, and the host's password, which stays in its config.
_LEFT_OUT = {"resume", "output", "force", "wandb_key"}
_SHOWN = 40  # characters of a value


def run_settings(config: Any) -> dict[str, str]:
    """The settings of a run, by dotted name, as Python writes their values.

    Args:
        config: a ``TrainConfig``, or the host's EasyDict.
    """
    flat = dict(_flatten(config, ""))
    return {name: value for name, value in flat.items() if name not in _LEFT_OUT}


def changed_settings(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between two ``run_settings``, on one line; empty where nothing does."""
    changes = [
        f"{name} {_short(now.get(name))} (was {_short(then.get(name))})"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]
    return ", ".join(changes)


def log_changes(then: Mapping[str, str] | None, config: Any, path: Path) -> None:
    """Say on one line of the log what a resumed run is told otherwise than the stopped one.

    Args:
        then: ``run_settings`` of the stopped run; None in checkpoints of older versions.
        config: the resumed one's.
        path: the checkpoint.
    """
    if then is None:
        return
    now = run_settings(config)
    if dataclasses.is_dataclass(config):
        # What there was no setting for was as its default has it.
        then = {k: v for k, v in _defaults(config, then).items() if k in now} | dict(then)
    changes = changed_settings(then, now)
    if changes:
        logger.warning("%s goes on with other settings: %s", path, changes)


def _defaults(config: Any, then: Mapping[str, str]) -> dict[str, str]:
    """The defaults of a ``TrainConfig``'s settings, and of those in the entry and its parts as far
    as the stopped run had these; as ``run_settings`` has them.
    """
    flat = {field.name: field.default for field in dataclasses.fields(config)}
    if config.cakd is not None and any(name.startswith("cakd.") for name in then):
        own = dataclasses.fields(config.cakd)
        flat |= {f"cakd.{field.name}": field.default for field in own}
        for part in SECTIONS.names():
            if any(name.startswith(f"cakd.{part}.") for name in then):
                settings = settings_of(SECTIONS.get(part))
                flat |= {f"cakd.{part}.{name}": s.default for name, s in settings.items()}
    return dict(pair for name, value in flat.items() for pair in _flatten(value, name))


def _flatten(value: Any, name: str) -> list[tuple[str, str]]:
    inner: list[tuple[str, Any]] | None = None
    if dataclasses.is_dataclass(value):
        inner = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    elif isinstance(value, Mapping):
        inner = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple) and any(_is_entry(item) for item in value):
        inner = [(str(number), item) for number, item in enumerate(value)]
    if inner is None:
        return [(name, repr(list(value) if isinstance(value, tuple) else value))]
    prefix = f"{name}." if name else ""
    return [pair for key, item in inner for pair in _flatten(item, prefix + key)]


def _is_entry(value: Any) -> bool:
    return dataclasses.is_dataclass(value) or isinstance(value, Mapping)


def _short(value: str | None) -> str:
    if value is None:
        return "unset"
    value = " ".join(value.split())
    return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}..."
