"""``run.json``: what a run was told and where it ran, for whoever looks at it later."""

import dataclasses
import json
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from arcface_cakd import __version__
from arcface_cakd.config import ConfigError, TrainConfig, check_settings
from arcface_cakd.distributed import world_size
from arcface_cakd.engine.run_settings import run_settings
from arcface_cakd.files import write_text

RUN_RECORD = "run.json"
FORMAT = 1
"""Raised by whatever changes the meaning of a key."""


_PARTS = "parts"  # of a run that went on otherwise: those before the last
_SINCE = "since"  # the step after which a part began
_COMPARED = ("environment", "images", "classes")  # of parts, beside their settings


def write_run_record(
    config: TrainConfig, device: torch.device, about: dict[str, Any], start: int = 0
) -> None:
    """Write ``run.json`` into ``config.output``.

    What a run was told and where it ran before it was resumed otherwise stays in ``parts``, a list
    of such records; each has ``since``, the step after which it began to hold.

    Args:
        config: the run's.
        device: where this rank computes.
        about: what else is known of the run, such as numbers of images and parameters, and with
            ``steps`` its length in micro-steps.
        start: micro-steps that are done, where the run is resumed. One that has no more to do
            leaves the record as it is.
    """
    former = read_run_record(config.folder) if start else None
    if former is not None and start >= about.get("steps", start + 1):
        return
    content = {
        "format": FORMAT,
        _SINCE: start,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "environment": {
            "arcface_cakd": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            **{name: version(name) for name in ("timm", "numpy")},
            "system": platform.system(),
            "device": _named(device),
            "ranks": world_size(),
            "threads of each rank": torch.get_num_threads(),
        },
        **about,
        "config": dataclasses.asdict(config),
    }
    content = json.loads(json.dumps(content, default=str))  # as a former one is
    parts = [_completed(p) for p in run_parts(former or {}) if p.get(_SINCE, 0) < start]
    if parts and _told(parts[-1]) == _told(content):
        last = parts.pop()
        content |= {_SINCE: last.get(_SINCE, 0), "started": last.get("started")}
    if parts:
        content[_PARTS] = parts
    text = json.dumps(content, indent=1) + "\n"
    write_text(config.folder / RUN_RECORD, text)


def read_run_record(output: str | Path) -> dict[str, Any] | None:
    """What ``run.json`` in a run's folder says; None where there is none that can be read.

    Runs of earlier versions, and those of arcface_torch, have none; one that is damaged, or of
    another format, is not read.
    """
    path = Path(output) / RUN_RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    known = _is_record(content) and content.get("format") == FORMAT
    return content if known else None


def run_parts(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records of a run's parts, each with other settings, or elsewhere, than the one before.

    Args:
        record: what ``read_run_record`` gives; an empty one has no parts.

    Returns:
        the former parts, and the last, which is the record itself.
    """
    parts = record.get(_PARTS)
    former = [part for part in parts if _is_record(part)] if isinstance(parts, list) else []
    last = {key: value for key, value in record.items() if key != _PARTS}
    return [*former, last] if last else []


def _completed(part: dict[str, Any]) -> dict[str, Any]:
    """A former part with every top-level setting of today, those that there were not yet as by
    default: so the part was run."""
    given = [f for f in dataclasses.fields(TrainConfig) if f.default is not dataclasses.MISSING]
    defaults = json.loads(json.dumps({field.name: field.default for field in given}))
    return part | {"config": defaults | part["config"]}


def _is_record(content: Any) -> bool:
    return isinstance(content, dict) and all(
        isinstance(content.get(key), dict) for key in ("environment", "config")
    )


def _told(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two records one part: settings, data and machine."""
    return run_settings(record["config"]), *(record.get(key) for key in _COMPARED)


def recorded_config(record: dict[str, Any], output: str | Path) -> TrainConfig:
    """The config that a run was told, with ``output`` where the run is now.

    Raises:
        ConfigError: this version of the package does not take it.
    """
    settings = {**record["config"], "output": str(output)}
    if settings.get("cakd") is not None:
        losses = [dict(entry) for entry in settings["cakd"]["losses"]]
        losses = [entry.pop("settings") | entry for entry in losses]
        settings["cakd"] = {**settings["cakd"], "losses": losses}
    known = {field.name for field in dataclasses.fields(TrainConfig)}
    if unknown := settings.keys() - known:
        raise ConfigError(f"{output}: settings of another version: {', '.join(sorted(unknown))}")
    return TrainConfig(**check_settings(TrainConfig, settings, str(output)))


def _named(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
