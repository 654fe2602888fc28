"""Options that would change nothing: they are refused, and not passed over."""

import argparse

from arcface_cakd.errors import ArcfaceCakdError


def refuse(args: argparse.Namespace, options: tuple[str, ...], reason: str) -> None:
    """Refuse options where they have no effect.

    Args:
        args: what was given; None or False of an option that was not.
        options: their names, such as ``"embedding_size"``.
        reason: what goes on after an option's name, and what to do.

    Raises:
        ArcfaceCakdError: one was given.
    """
    for option in options:
        given = getattr(args, option)
        if given is not None and given is not False:
            raise ArcfaceCakdError(f"--{option.replace('_', '-')} {reason}")
