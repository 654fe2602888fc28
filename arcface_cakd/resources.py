"""Where the recipes are, whether the package is installed or editable."""

from pathlib import Path

from arcface_cakd.errors import ArcfaceCakdError

_PACKAGE = Path(__file__).resolve().parent


def resource_dir(kind: str) -> Path:
    """The folder of a kind of resource that ships with the package, such as ``"recipes"``.

    An installed package holds it as ``arcface_cakd/<kind>``; in a checkout (an editable
    install) it stands beside the package, at the root of the repository.

    Raises:
        ArcfaceCakdError: the installation lacks the folder.
    """
    for folder in (_PACKAGE / kind, _PACKAGE.parent / kind):
        if folder.is_dir():
            return folder
    raise ArcfaceCakdError(f"this installation of arcface_cakd has no {kind}/: reinstall it")


def recipe_files() -> dict[str, Path]:
    """The shipped recipes by name, in alphabetical order; pieces that they share (``_*.py``)
    are not among them."""
    return {file.stem: file for file in sorted(resource_dir("recipes").glob("[!_]*.py"))}


def find_recipe(path: str) -> Path:
    """``path`` itself if it exists, else the shipped recipe of that name.

    ``demo_teacher``, ``demo_teacher.py`` and ``recipes/demo_teacher.py`` all name the same
    recipe, from any directory.

    Raises:
        ArcfaceCakdError: neither exists; the message names the nearest recipe.
    """
    from arcface_cakd.registry import did_you_mean

    given = Path(path)
    if given.is_file():
        return given
    shipped = recipe_files()
    if given.stem in shipped and given.parent in (Path("."), Path("recipes")):
        return shipped[given.stem]
    hint = did_you_mean(given.stem, shipped)
    if hint.startswith("known: "):  # nothing near: there are too many to name
        hint = "`arcface-cakd list recipes` names them"
    raise ArcfaceCakdError(f"config {path}: no such file, and no recipe of that name; {hint}")
