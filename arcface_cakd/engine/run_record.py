"""``run.json``: what a run was told and where it ran, for whoever looks at it later."""

import dataclasses
import json
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from arcface_cakd import __version__
from arcface_cakd.config import ConfigError, TrainConfig, check_settings
from arcface_cakd.distributed import world_size
from arcface_cakd.files import write_text

RUN_RECORD = "run.json"
FORMAT = 1
"""Raised by whatever changes the meaning of a key."""


def write_run_record(config: TrainConfig, device: torch.device, about: dict[str, Any]) -> None:
    """Write ``run.json`` into ``config.output``; a resumed run writes it anew.

    Args:
        config: the run's.
        device: where this rank computes.
        about: what else is known of the run, such as numbers of images and parameters.
    """
    content = {
        "format": FORMAT,
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
    text = json.dumps(content, indent=1, default=str) + "\n"
    write_text(config.folder / RUN_RECORD, text)


def read_run_record(output: str | Path) -> dict[str, Any] | None:
    """What ``run.json`` in a run's folder says; None where there is none that can be read.

    Runs of earlier versions, and those of arcface_torch, have none.
    """
    path = Path(output) / RUN_RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(content, dict) and content.get("format") == FORMAT
    return content if known else None


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
