"""Keeps the memory that a step frees for the next step.

glibc gives large blocks back to the system when they are freed, and the system clears each page
anew when it is touched again. The activations of a step are such blocks: 1.2 GB of them in a step
of 32 images through MobileFaceNet, a fifth of whose time that took.
"""

import ctypes
import os
import platform

# Whoever set one of these has chosen.
CHOSEN_BY = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's, of malloc.h
_NEVER = -1
_LARGEST = 2**30  # larger ones, such as a million class centres, go back as ever
_LARGEST_ONCE = 2**25  # that glibc before 2.35 takes


def keep_freed_memory() -> bool:
    """Let malloc keep what is freed, in this process and those that it forks.

    What the process has at the most grows little, for it had that much before; but it has it to
    the end. Nothing that is computed changes.

    Returns:
        whether it does: only with glibc, and where nobody has chosen in the environment.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if any(os.environ.get(name) for name in CHOSEN_BY) or "glibc.malloc" in tunables:
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    taken = mallopt(_MMAP_THRESHOLD, _LARGEST) or mallopt(_MMAP_THRESHOLD, _LARGEST_ONCE)
    return bool(taken and mallopt(_TRIM_THRESHOLD, _NEVER))
