"""What a measurement was taken on: machine, load, threads, versions."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from arcface_cakd import __version__
from arcface_cakd.engine.threads import usable_cores

_PACKAGES = ("torch", "timm", "numpy", "torchvision", "pillow", "simplejpeg", "mxnet")


def machine() -> dict[str, Any]:
    """Facts about this machine and this process, for a report.

    Returns:
        ``cpu``; ``cores`` that this process may use; ``load`` (one minute's); ``threads`` of
        torch; ``gpu`` (None where there is none); ``system``; ``versions`` by package, of those
        that are installed.
    """
    versions = {"python": platform.python_version(), "arcface_cakd": __version__}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(terse=True),
        "versions": versions,
    }


def cpu_name() -> str:
    """The processor, as it calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
