"""What a step frees is there for the next one, unless the user chose otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from arcface_cakd.engine import allocator
from arcface_cakd.engine.allocator import CHOSEN_BY

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone")

# A block of 48 MiB, freed and taken again: how many pages the system had to clear for it, and
# whether anything was set. Without torch, whose import would take most of the time.
COUNT = """
import ctypes, resource, runpy, sys
keep_freed_memory = runpy.run_path(sys.argv[1])["keep_freed_memory"]
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def use(size=48 * 2**20):
    block = libc.malloc(size)
    libc.memset(block, 1, size)
    libc.free(block)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        use()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = faults()
kept = keep_freed_memory()
use()
print(kept, before, faults())
"""


def counted(**environment):
    clean = {name: value for name, value in os.environ.items() if name not in CHOSEN_BY}
    ran = subprocess.run(
        [sys.executable, "-c", COUNT, allocator.__file__],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    kept, before, after = ran.stdout.split()
    return kept == "True", int(before), int(after)


def test_freed_memory_is_taken_again():
    kept, before, after = counted()
    assert kept
    assert after < before / 5


@pytest.mark.parametrize(
    "chosen",
    [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}],
)
def test_the_users_choice_stands(chosen):
    kept, before, after = counted(**chosen)
    assert not kept
    assert after > before / 5
