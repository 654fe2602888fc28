"""Where the recipes are, whether the package is installed or editable."""

import json
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
    """The shipped recipes by name, in alphabetical order, from all folders of ``recipes/``;
    pieces that they share (``_*.py``) are not among them."""
    files = resource_dir("recipes").glob("*/[!_]*.py")
    return {file.stem: file for file in sorted(files, key=lambda file: file.stem)}


def set_lines() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Runs that have a name and no recipe of their own: by name, the recipe and the
    ``"key=value"`` settings that give the run. All are in ``recipes/set_lines.json``.
    """
    path = resource_dir("recipes") / "set_lines.json"
    runs = {}
    for name, line in json.loads(path.read_text(encoding="utf-8")).items():
        recipe, _, settings = line.partition(" --set ")
        runs[name] = (recipe, (*settings.split(), f"output=work_dirs/{name}"))
    return runs


class NoRecipeOfItsOwn(ArcfaceCakdError):
    """A name of ``set_lines``; the message is the command that trains it.

    Attributes:
        recipe, settings: the shipped recipe, and the settings that make it this run.
    """

    def __init__(self, path: str, recipe: str, settings: tuple[str, ...]):
        self.recipe, self.settings = recipe, settings
        super().__init__(
            f"config {path}: no recipe of its own any more: "
            f"train {recipe} --set {' '.join(settings)}"
        )


def find_recipe(path: str) -> Path:
    """``path`` itself, or with ``.py``, if it exists, else the shipped recipe of that name.

    So ``configs/name``, as arcface_torch is told, is the file beside, and a config of the user's
    comes before a recipe of the same name.
    ``demo_teacher``, ``demo_teacher.py``, ``recipes/demo/demo_teacher.py`` and, without the
    folder, ``recipes/demo_teacher.py`` all name the same recipe, from any directory.

    Raises:
        NoRecipeOfItsOwn: it names a run that a shipped recipe gives with other settings.
        ArcfaceCakdError: neither exists; the message names the nearest recipe.
    """
    from arcface_cakd.registry import did_you_mean

    given = Path(path)
    for file in (given, Path(f"{path}.py")):
        if file.is_file():
            return file
    shipped, runs = recipe_files(), set_lines()
    name, folders = given.stem, given.parent.parts
    if folders[:1] == ("recipes",):
        folders = folders[1:]
    if name in shipped and folders in ((), (shipped[name].parent.name,)):
        return shipped[name]
    if name in runs and folders == ():
        raise NoRecipeOfItsOwn(path, *runs[name])
    hint = did_you_mean(name, shipped)
    if hint.startswith("known: "):  # nothing near: there are too many to name
        hint = "`arcface-cakd list recipes` names them"
    raise ArcfaceCakdError(f"config {path}: no such file, and no recipe of that name; {hint}")


def import_folders(path: Path) -> list[Path]:
    """The folders that a config file imports from: its own, and for a recipe in a folder of
    recipes as this package ships them also that folder and all those in it, so that recipes
    name each other and the pieces that they share by their file names alone."""
    own = path.resolve().parent
    recipes = own.parent
    if not (recipes / "_arcface_torch.py").is_file():
        return [own]
    others = {file.parent for file in recipes.glob("*/*.py")} - {own}
    return [own, recipes, *sorted(others)]
