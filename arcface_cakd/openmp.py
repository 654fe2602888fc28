"""How long torch's threads look for their next piece of work before they sleep.

Between two operations each of them spins, to begin at once. Where other programs want the cores
too, a thread that spins takes the core that the slowest thread of the operation waits for. On 2
cores beside one busy process, ``r10_narrow`` trained from ``swin_mini`` at 26 to 30 images/s, with
short spins at 40 to 43, as with one thread (39 to 45); with nothing beside it, at 85 to 96 and 77
to 87, within what two runs of one kind differ by. What is computed is the same to the bit, as
there are as many threads.
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
