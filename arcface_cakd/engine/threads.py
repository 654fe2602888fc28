"""How many threads torch computes with, on machines that are shared.

torch takes as many as there are cores, and each of its operations waits for the slowest of them.
Where a container has less than all the cores, or other programs run, that is one that waits for a
core itself, which the others, awake, may hold: see ``openmp``. Seen on 2 cores: 16 images a second
with 2 threads where 1 thread gave 75.
"""

import logging
import math
import os
from pathlib import Path

import torch

from arcface_cakd import openmp

logger = logging.getLogger("arcface_cakd")

# Whoever sets one of these has chosen; torchrun sets the first, to 1, where there are more ranks.
CHOSEN_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def settle_threads() -> None:
    """Take no more threads than this process has cores, and say where others want them too.

    The load decides nothing, it is only told: sums depend in their last bits on the number of
    threads, so that a run that is resumed in a busier hour would not be the same run.
    """
    if any(os.environ.get(name) for name in CHOSEN_BY):
        return
    cores, threads = usable_cores(), torch.get_num_threads()
    if threads > cores:
        logger.info("threads: %d instead of %d, as this process has no more cores", cores, threads)
        torch.set_num_threads(cores)
        threads = cores
    if any(os.environ.get(name) for name in openmp.CHOSEN_BY):  # how they wait is settled
        return
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads > 1 and load >= cores:
        logger.warning(
            "the load of this machine is %.1f on %d cores, and %d threads wait awake for one "
            "another: GOMP_SPINCOUNT=%s in the environment may be faster, or OMP_NUM_THREADS=1",
            load,
            cores,
            threads,
            openmp.FEW_SPINS,
        )


def usable_cores(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Cores that this process may keep busy: those that it may run on, and no more than its
    container's share of time.

    Args:
        cgroups: where Linux tells the share, in either of its versions.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    share = _share(cgroups)
    return cores if share is None else max(1, min(cores, math.ceil(share)))


def _share(cgroups: Path) -> float | None:
    """Seconds of CPU in a second of time that the container has; None: no limit."""
    try:
        if (cgroups / "cpu.max").exists():
            quota, period = (cgroups / "cpu.max").read_text(encoding="utf-8").split()
        else:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            quota, period = (
                (cgroups / "cpu" / name).read_text(encoding="utf-8").strip() for name in names
            )
        share = float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # "max", or nobody tells
        return None
    return share if share > 0 else None
