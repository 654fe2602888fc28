"""Other projects' code, imported out of a checkout for as long as it is compared with."""

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from arcface_cakd.bench.errors import BenchError


def find_checkout(given: str | None, variable: str, contains: str) -> Path | None:
    """The folder of a checkout, or None where none is told of.

    Args:
        given: by the user.
        variable: of the environment, where ``given`` is None.
        contains: a file that such a checkout has.

    Raises:
        BenchError: a folder was told of, and lacks the file.
    """
    told = given or os.environ.get(variable)
    if not told:
        return None
    folder = Path(told)
    if not (folder / contains).is_file():
        raise BenchError(
            f"{folder}: no {contains} there: give the folder of a checkout that holds it, or unset "
            f"{variable}"
        )
    return folder.resolve()


@contextlib.contextmanager
def importable(folder: Path, **stand_ins: ModuleType) -> Iterator[None]:
    """Import from ``folder`` first; at the end whatever came from there is forgotten.

    So names that many projects give their modules, such as ``utils`` and ``backbones``, are free
    again for the next one, and what it left in ``sys.path`` and the working folder is as it was.

    Args:
        folder: of a checkout; becomes the working folder too.
        stand_ins: modules by the names under which that code shall find them.
    """
    known, path, here = dict(sys.modules), list(sys.path), os.getcwd()
    sys.path.insert(0, str(folder))
    sys.modules.update(stand_ins)
    os.chdir(folder)
    importlib.invalidate_caches()
    try:
        with warnings.catch_warnings():
            # Of another project's code, for its authors.
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        os.chdir(here)
        sys.path[:] = path
        for name, module in list(sys.modules.items()):
            origin = getattr(module, "__file__", None) or ""
            if name in stand_ins or origin.startswith(f"{folder}{os.sep}"):
                del sys.modules[name]
        sys.modules.update({name: known[name] for name in stand_ins if name in known})
