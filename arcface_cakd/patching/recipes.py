"""Recipes as config files for arcface_torch, which finds nothing beside them."""

import ast
import keyword
import math
import tokenize
from pathlib import Path
from typing import Any

from easydict import EasyDict

from arcface_cakd.config.training import execute_config
from arcface_cakd.patching.errors import PatchError
from arcface_cakd.resources import NoRecipeOfItsOwn, find_recipe

HOST_RECIPES: tuple[str, ...] = (
    "ms1mv3_swin_s",
    "ms1mv3_swin_s_onegpu",
    "ms1mv3_mbf_onegpu",
    "ms1mv3_mbf_cakd_swin_s",
    "ms1mv3_mbf_cakd_swin_s_onegpu",
    "ms1mv3_r50_cakd_swin_s",
)
"""The recipes that a host gets unless others are asked for."""

_WIDTH = 100
_INDENT = "    "


def render(name: str) -> str:
    """The text of ``configs/<name>.py`` that makes arcface_torch run a recipe.

    arcface_torch imports a config with its own folder alone on the path, so what recipes share
    is written out: one key a line, in the recipe's order, below its docstring.
    ``save_all_states`` is True whatever the recipe says: without it the host cannot resume.

    Args:
        name: a recipe that ships with the package, or a config file of the user's own.

    Raises:
        ArcfaceCakdError: no such recipe or file; the message names the nearest recipe.
        ConfigError: it does not run, or defines no ``config``.
        PatchError: it holds a value that is no literal, or is a run of ``set_lines``.
    """
    try:
        path = find_recipe(name)
    except NoRecipeOfItsOwn as run:  # the host has no --set
        keys = [key for key in run.settings if not key.startswith("output=")]
        raise PatchError(
            f"recipe {name}: no recipe of its own any more: take {run.recipe}, under this name, "
            f"and set in it {' '.join(keys)}"
        ) from run
    config = {**execute_config(path), "save_all_states": True}
    docstring = _docstring(path)
    lines = [docstring, ""] if docstring else []
    lines += ["from easydict import EasyDict as edict", "", "config = edict()"]
    for key, value in config.items():
        if not _is_name(key):
            raise PatchError(f"{path}: config[{key!r}] is no name: `config.KEY` needs one")
        lines += _assignment(f"config.{key} = ", value, f"{path}: config.{key}")
    return "\n".join(lines) + "\n"


def _docstring(path: Path) -> str | None:
    """The module's docstring as it is written, quotes included."""
    with tokenize.open(path) as file:  # in the encoding that Python reads it in
        text = file.read()
    tree = ast.parse(text)
    if ast.get_docstring(tree) is None:
        return None
    return ast.get_source_segment(text, tree.body[0])


def _assignment(start: str, value: Any, where: str) -> list[str]:
    if isinstance(value, dict) and value:  # a section: an entry a line, however short
        return _over_lines(start, value, "", "", where)
    return _written(start, value, "", "", where)


def _written(start: str, value: Any, end: str, indent: str, where: str) -> list[str]:
    """``start``, the value and ``end`` as lines, one where they fit."""
    line = f"{indent}{start}{_flat(value, where)}{end}"
    if len(line) <= _WIDTH or not isinstance(value, dict | list | tuple) or not value:
        return [line]
    return _over_lines(start, value, end, indent, where)


def _over_lines(start: str, value: Any, end: str, indent: str, where: str) -> list[str]:
    opening, entries, closing = _entries(value, where)
    lines = [f"{indent}{start}{opening}"]
    for key, entry, place in entries:
        lines += _written(key, entry, ",", indent + _INDENT, place)
    return [*lines, f"{indent}{closing}{end}"]


def _flat(value: Any, where: str) -> str:
    if isinstance(value, dict | list | tuple):
        opening, entries, closing = _entries(value, where)
        inner = ", ".join(f"{key}{_flat(entry, place)}" for key, entry, place in entries)
        if opening == "(" and len(entries) == 1:
            inner += ","
        return f"{opening}{inner}{closing}"
    if type(value) is str:
        return _quoted(value)
    finite = type(value) is not float or math.isfinite(value)
    if value is None or (type(value) in (bool, int, float) and finite):
        return repr(value)
    raise _no_literal(value, where)


def _entries(value: Any, where: str) -> tuple[str, list[tuple[str, Any, str]], str]:
    """What opens a container; what stands before each entry, the entry, its place; what closes."""
    if type(value) in (list, tuple):
        entries = [("", entry, f"{where}[{i}]") for i, entry in enumerate(value)]
        return ("[", entries, "]") if type(value) is list else ("(", entries, ")")
    if type(value) not in (dict, EasyDict):
        raise _no_literal(value, where)
    places = [(key, entry, f"{where}.{key}") for key, entry in dict.items(value)]
    # EasyDict(d=...) would be its own parameter; a key such as "items" hides the method.
    if type(value) is EasyDict and all(_is_name(key) and key not in ("self", "d") for key in value):
        return "edict(", [(f"{key}=", entry, place) for key, entry, place in places], ")"
    braces = ("edict({", "})") if type(value) is EasyDict else ("{", "}")
    entries = [(f"{_flat(key, where)}: ", entry, place) for key, entry, place in places]
    return braces[0], entries, braces[1]


def _quoted(text: str) -> str:
    quoted = repr(text)
    if quoted[0] == "'" and '"' not in text:
        return f'"{quoted[1:-1]}"'
    return quoted


def _is_name(key: Any) -> bool:
    return type(key) is str and key.isidentifier() and not keyword.iskeyword(key)


def _no_literal(value: Any, where: str) -> PatchError:
    shown = " ".join(repr(value).split())[:40]
    return PatchError(
        f"{where} is {shown}, of type {type(value).__name__}: arcface_torch's copy of a config "
        "holds numbers, strings, lists, tuples and edicts only"
    )
