"""The recipes in a host's ``configs/``: which of them are ours, and what they are to say."""

import contextlib
import re
from pathlib import Path

from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.patching.blocks import RECIPE, mark_file
from arcface_cakd.patching.errors import PatchError
from arcface_cakd.patching.folder import HostFile
from arcface_cakd.resources import resource_dir

# In a marker, before the name of a recipe that came from a file of the user's own: the shipped
# recipe of that name is another one.
_OWN = "own:"

_MODULE = re.compile(r"[A-Za-z0-9_-]+")


def recipe_files(
    root: Path, host: dict[str, HostFile], version: int, asked: list[str] | None
) -> tuple[dict[str, str], list[str]]:
    """The texts of the chosen recipes and of those of ours that are there, by their path.

    Args:
        asked: names or files of recipes, the default ones if None.

    Returns:
        The texts, and the paths of the default recipes whose place a file of the user's holds.

    Raises:
        PatchError: a recipe has no name for a module, or a file of the user's, or another of
            ``asked``, is in its place.
        ArcfaceCakdError: there is no such recipe, or it cannot be written for arcface_torch.
    """
    from arcface_cakd.patching import recipes

    texts: dict[str, str] = {}
    kept = []
    for name in recipes.HOST_RECIPES if asked is None else asked:
        module = Path(name).stem
        if not _MODULE.fullmatch(module):
            raise PatchError(f"recipe {name}: its name may hold letters, digits, _ and - only")
        text = recipes.render(name)
        path = f"configs/{module}.py"
        label = f"{_OWN}{module}" if _is_own(name) else module
        text = mark_file(RECIPE, version, label, text)
        if texts.get(path, text) != text:
            raise PatchError(f"recipe {name}: another one is to be {path} too: rename one of them")
        if _is_free(root, host, path, label):
            texts[path] = text
        elif asked is None:
            kept.append(path)
        else:
            raise PatchError(
                f"{root / path}: is there and is not this recipe as arcface-cakd wrote it: rename "
                f"it, or leave --recipe {name} out; nothing was changed"
            )
    for file in host.values():
        ours = _label(file)
        if ours is not None and file.name not in texts and not ours.startswith(_OWN):
            with contextlib.suppress(ArcfaceCakdError):  # one that this version lacks: it stays
                texts[file.name] = mark_file(RECIPE, version, ours, recipes.render(ours))
    return texts, kept


def is_our_recipe(file: HostFile) -> bool:
    """Whether it is a recipe as we wrote it: where we put it, and not edited."""
    return _label(file) is not None


def _label(file: HostFile) -> str | None:
    """What the marker of a recipe of ours calls it; None for any other file."""
    marker = file.marker
    if marker is None or marker.set != RECIPE or not file.intact:
        return None
    in_place = file.name == f"configs/{marker.name.removeprefix(_OWN)}.py"
    return marker.name if in_place else None


def _is_free(root: Path, host: dict[str, HostFile], path: str, label: str) -> bool:
    """Whether a recipe may be written there; a shipped one not over one of the user's own."""
    if path not in host:
        return not (root / path).exists()  # a link to a file that counts by another name
    there = _label(host[path])
    return there is not None and (there == label or label.startswith(_OWN))


def _is_own(name: str) -> bool:
    """Whether this names a file of the user's own, and not a recipe that ships."""
    path = Path(name)
    return path.is_file() and resource_dir("recipes").resolve() not in path.resolve().parents
