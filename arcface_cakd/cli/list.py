"""``arcface-cakd list``: what a config can name."""

import argparse
import ast
import inspect
from collections.abc import Callable

from arcface_cakd.cli.figures import add_json, write_json

HELP = "List the losses, backbones, protocols or recipes that there are, one line each."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example: arcface-cakd list losses"
    parser.add_argument("kind", choices=tuple(_LISTS), help="what to list")
    add_json(parser, "write the list to a file")


def run(args: argparse.Namespace) -> None:
    rows = _LISTS[args.kind]()
    width = max(len(row["name"]) for row in rows)
    folders = max(len(row.get("folder", "")) for row in rows)
    for row in rows:
        line = f"{row['name']:<{width}}  "
        if row.get("folder"):
            line += f"{row['folder']:<{folders}}  "
        line += row["what"]
        if row.get("paper"):
            line += f" [{row['paper']}]"
        if row.get("needs"):
            line += f" (needs {', '.join(row['needs'])})"
        print(line)
    write_json(args.json, rows)


def _losses() -> list[dict]:
    from arcface_cakd.registry import LOSSES

    losses = {name: LOSSES.get(name) for name in LOSSES.names()}
    return [
        {
            "name": name,
            "what": _first_line(inspect.getdoc(loss)),
            "paper": loss.paper,
            "needs": sorted(loss.needs),
        }
        for name, loss in losses.items()
    ]


def _backbones() -> list[dict]:
    from arcface_cakd.registry import BACKBONES

    names = BACKBONES.names()
    rows = [{"name": n, "what": _first_line(inspect.getdoc(BACKBONES.get(n)))} for n in names]
    anything = "any timm model that yields a grid of tokens"
    return [*rows, {"name": "timm:<name>", "what": anything}]


def _protocols() -> list[dict]:
    from arcface_cakd.registry import PROTOCOLS

    names = PROTOCOLS.names()
    return [{"name": n, "what": _first_line(inspect.getdoc(PROTOCOLS.get(n)))} for n in names]


def _recipes() -> list[dict]:
    from arcface_cakd.resources import recipe_files

    files = sorted(recipe_files().items(), key=lambda item: (item[1].parent.name, item[0]))
    return [
        {
            "name": name,
            "folder": file.parent.name,
            "what": _first_line(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))),
        }
        for name, file in files
    ]


def _first_line(docstring: str | None) -> str:
    """The first sentence, or what there is of it on the first line."""
    first = (docstring or "").split("\n\n")[0]
    return first.replace("\n", " ").replace("``", "").strip()


_LISTS: dict[str, Callable[[], list[dict]]] = {
    "losses": _losses,
    "backbones": _backbones,
    "protocols": _protocols,
    "recipes": _recipes,
}
