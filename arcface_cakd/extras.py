"""Packages that not everyone needs, which an extra of this package brings."""

import importlib
from types import ModuleType

from arcface_cakd.errors import ArcfaceCakdError


class MissingPackageError(ArcfaceCakdError, ImportError):
    """A package that an extra brings is not installed; the message says how it is."""


def extra(package: str, name: str, what: str) -> ModuleType:
    """Import a package that the extra ``name`` brings.

    Args:
        package: its import name, or that of a module in it.
        name: of the extra, in setup.py.
        what: needs it, for the message.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        top = package.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # what it needs itself is broken, which its own message tells
        raise MissingPackageError(
            f"{what} needs the package {top}: pip install 'arcface_cakd[{name}]', or pip install "
            f"{top}"
        ) from None
