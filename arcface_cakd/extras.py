"""Packages that not everyone needs, which an extra of this package brings."""

import importlib
import importlib.util
from types import ModuleType

from arcface_cakd.errors import ArcfaceCakdError


class MissingPackageError(ArcfaceCakdError, ImportError):
    """A package that an extra brings is not installed, or does not import; the message says how
    it is, or why.
    """


def extra(package: str, name: str, what: str) -> ModuleType:
    """Import a package that the extra ``name`` brings.

    Args:
        package: its import name, or that of a module in it.
        name: of the extra, in setup.py.
        what: needs it, for the message.

    Raises:
        MissingPackageError: it is not installed, or does not work with what is.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        top = package.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise  # what it needs itself is broken, which its own message tells
        raise _missing(top, name, what) from None
    except ImportError as error:  # as of a version that another package is too old for
        reason = " ".join(str(error).split())
        raise MissingPackageError(
            f"{what} needs the package {package}, which does not import here: {reason}"
        ) from error


def check_extra(package: str, name: str, what: str) -> None:
    """See that a package is there without importing it, which may take seconds; see ``extra``.

    Raises:
        MissingPackageError: it is not installed.
    """
    if not is_installed(package):
        raise _missing(package, name, what)


def is_installed(package: str) -> bool:
    """Whether a package could be imported, by its import name."""
    return importlib.util.find_spec(package) is not None


def _missing(package: str, name: str, what: str) -> MissingPackageError:
    return MissingPackageError(
        f"{what} needs the package {package}: pip install 'arcface_cakd[{name}]', or pip install "
        f"{package}"
    )
