"""How a user's mistake ends a run of the host."""

import contextlib
import sys
from collections.abc import Iterator

from arcface_cakd.distributed import is_main
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.launcher import tell_launcher


@contextlib.contextmanager
def exiting_on_user_error(of_one_rank: bool = False) -> Iterator[None]:
    """The host has no place of its own to say what a user did wrong: rank 0 says it and all end.

    Args:
        of_one_rank: whether one rank alone may meet the mistake, such as a damaged row of a file
            that it reads; then each that does says so.
    """
    try:
        yield
    except (ArcfaceCakdError, OSError) as error:
        message = f"arcface-cakd: error: {error}"
        if of_one_rank or is_main():
            print(message, file=sys.stderr)
        tell_launcher(message)
        raise SystemExit(1) from None
