"""How long torch's threads look for their next piece of work before they sleep.

Between two operations each of them spins, to begin at once. Where other programs want the cores
too, a thread that spins takes the core that the slowest thread of the operation waits for. On 2
cores beside one busy process ``r10_narrow`` trained from ``swin_mini`` at 33 images/s, with short
spins at 45; with nothing beside it, at 83 both ways (``eval/shared_threads.py``). More cores were
not to be had. What is computed is the same to the bit, as there are as many threads.
"""

import os

_SPINS = "GOMP_SPINCOUNT"  # of GNU's OpenMP, which torch's wheels for Linux bring
# Whoever sets one of these has chosen.
CHOSEN_BY = (_SPINS, "OMP_WAIT_POLICY")
FEW_SPINS = "1000"  # some 10 microseconds; GNU's own are 300,000


def spin_briefly() -> None:
    """Let threads sleep early, in this process and those that it starts, unless somebody chose.

    It has an effect where torch is not yet imported: OpenMP reads the environment once.
    """
    if not any(os.environ.get(name) for name in CHOSEN_BY):
        os.environ[_SPINS] = FEW_SPINS
