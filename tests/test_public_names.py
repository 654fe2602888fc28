"""Names that load on first use, and the imports that tell type checkers what they are."""

import ast
import importlib
from pathlib import Path

import pytest

LAZY = [
    "arcface_cakd",
    "arcface_cakd.arcface_torch",
    "arcface_cakd.data",
    "arcface_cakd.preparation",
]


def typed_imports(package):
    """The modules of the names that ``package`` imports under TYPE_CHECKING and hands on."""
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    guarded = [
        statement
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
    ]
    return {
        alias.asname: f"{statement.module}.{alias.name}"
        for statement in guarded
        for alias in statement.names
    }


@pytest.mark.parametrize("name", LAZY)
def test_a_type_checker_sees_what_loads_on_first_use(name):
    package = importlib.import_module(name)
    lazy = set(package.__all__) - {"__version__"}
    found = typed_imports(package)
    assert found.keys() == lazy
    for public, place in found.items():
        module, _, attribute = place.rpartition(".")
        assert getattr(package, public) is getattr(importlib.import_module(module), attribute)


def test_the_package_says_that_it_is_typed():
    """An empty py.typed, PEP 561: without it type checkers take all of the package for Any."""
    assert (Path(importlib.import_module("arcface_cakd").__file__).parent / "py.typed").is_file()
