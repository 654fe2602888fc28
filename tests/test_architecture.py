"""ARCHITECTURE.md is a map of the package as it is: its rooms, their order, the paths it names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "arcface_cakd"
MAP = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
NO_ROOM = {"__init__", "__main__"}  # of the package itself: they may import from every room


def order_of(text: str) -> dict[str, int]:
    """The rooms of a map, each with its place in the order: 0 for foundations, then 1, 2, ..."""
    table = text.split("| room | what is in it |\n")[1].split("\n\n")[0]
    order: dict[str, int] = {}
    rest = False
    for room, heading in re.findall(r"^\| (?:`(\w+)`|\*\*([\w ]+)\*\*) \|", table, flags=re.M):
        if heading:
            rest = heading == "the rest"
            continue
        assert room not in order, f"{room} stands twice in the map"
        order[room] = max(order.values(), default=0) + 1 if rest else 0
    return order


def rooms_of(package: Path) -> set[str]:
    """The modules and packages directly in ``package``."""
    found = {path.stem for path in package.glob("*.py")}
    found |= {path.name for path in package.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    return found - NO_ROOM


def modules_imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and full name of every module or name that is imported, be it inside a function.

    Args:
        tree: of a module.
        package: the dotted parts of the package that it is in, for relative imports.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            start = [*above, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*start, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            name = node.args[0]
            if isinstance(name, ast.JoinedStr):  # an f-string, as far as its start tells
                name = name.values[0]
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                yield node.lineno, str(name.value)


def rooms_imported(package: Path, file: Path) -> Iterator[tuple[int, str]]:
    """Line and room of every import of ours in a file; a name of the package itself as it is."""
    parts = (package.name, *file.relative_to(package).parent.parts)
    for line, module in modules_imported(ast.parse(file.read_text(encoding="utf-8")), parts):
        if module.split(".")[0] == package.name and module != f"{package.name}.__version__":
            yield line, module.removeprefix(package.name).lstrip(".").split(".")[0]


def faults_of(package: Path, text: str) -> list[str]:
    """What of a package is not as its map says, a line each."""
    order, rooms = order_of(text), rooms_of(package)
    faults = [f"{room}: the map does not name this room" for room in sorted(rooms - set(order))]
    faults += [
        f"{room}: the map names it, and there is none" for room in order if room not in rooms
    ]
    for file in sorted(package.rglob("*.py")):
        own = file.relative_to(package).with_suffix("").parts[0]
        if own in NO_ROOM or own not in order:
            continue
        for line, room in rooms_imported(package, file):
            where = f"{file.relative_to(package.parent)}:{line}"
            if room not in rooms:
                faults.append(f"{where}: {room or package.name} is no room: import from its own")
            elif room != own and room in order and order[room] >= order[own]:
                which = "later" if order[room] > order[own] else "beside"
                faults.append(f"{where}: imports {which}: {own} from {room}")
    return faults


def test_the_package_is_as_the_map_says():
    assert not faults_of(PACKAGE, MAP)


def test_the_imports_that_there_are_were_read():
    """Else the test above would hold of a package in which no import was found."""

    def imported(name: str) -> set[str]:
        return {room for _, room in rooms_imported(PACKAGE, PACKAGE / name)}

    assert {"backbones", "losses", "prompting", "partial_fc"} <= imported("distiller/module.py")
    assert "registry" in imported("resources.py")  # inside a function
    assert "recordio" in imported("arcface_torch/mxnet.py")  # by its name in the package
    assert len(order_of(MAP)) > 20


LITTLE_MAP = """
| room | what is in it |
|---|---|
| **foundations** | |
| `errors` | |
| `files` | |
| **the rest** | |
| `data` | |
| `losses` | |

| word | meaning |
|---|---|
| `engine` | not of the first table |
"""


@pytest.mark.parametrize(
    ("file", "source", "fault"),
    [
        ("losses/b.py", "from house.data.a import A\nfrom house import data, files\n", None),
        ("losses/b.py", "import house.losses.c\nimport torch.data\nfrom . import c\n", None),
        (
            "data/b.py",
            "import house.losses\n",
            "data/b.py:1: imports later: data from losses",
        ),
        ("data/b.py", "from house.losses.c import C\n", "imports later: data from losses"),
        ("data/b.py", "from house import losses\n", "imports later: data from losses"),
        ("data/b.py", "from ..losses import c\n", "imports later: data from losses"),
        ("data/b.py", "from .. import losses\n", "imports later: data from losses"),
        ("data/b.py", "def f():\n    import house.losses.c as c\n", "b.py:2: imports later"),
        ("data/b.py", "import_module('house.losses.c')\n", "imports later: data from losses"),
        ("data/b.py", "x.import_module(f'house.losses.{c}')\n", "imports later: data from losses"),
        ("data/b.py", "from house import Distiller\n", "Distiller is no room"),
        ("data/b.py", "import house\n", "house is no room"),
        (
            "files.py",
            "from house.data import a\n",
            "files.py:1: imports later: files from data",
        ),
        ("files.py", "from house.errors import E\n", "imports beside: files from errors"),
        ("engine.py", "", "engine: the map does not name this room"),
        ("engine/loop.py", "", "engine: the map does not name this room"),
        ("losses/__init__.py", None, "losses: the map names it, and there is none"),
        ("__init__.py", "from house.losses import c\nfrom house import Distiller\n", None),
    ],
)
def test_a_package_that_is_otherwise_is_found_out(file, source, fault, tmp_path):
    package = tmp_path / "house"
    for name in ("__init__.py", "errors.py", "files.py", "data/__init__.py", "losses/__init__.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("")
    (package / file).parent.mkdir(exist_ok=True)
    if source is None:
        (package / file).unlink()
    else:
        (package / file).write_text(source)
    found = faults_of(package, LITTLE_MAP)
    assert len(found) == (fault is not None)
    assert all(fault in line for line in found)


def test_every_path_that_the_map_names_is_there():
    """Those with a part to fill in, such as ``losses/<name>_loss.py``, by their folder."""
    words = [
        word for word in re.findall(r"`([^`\s]+)`", MAP) if re.search(r"/|\.(py|md|toml)$", word)
    ]
    assert len(words) > 40
    for word in words:
        path = re.sub(r"[^/]*<.*", "", word)
        assert (ROOT / path).exists() or (PACKAGE / path).exists(), word


def test_the_map_is_one_that_can_be_read_at_once():
    assert len(MAP.splitlines()) < 145
