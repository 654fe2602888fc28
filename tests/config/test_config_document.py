"""The tables of docs/config.md are the settings that the code declares."""

import ast
import dataclasses
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from easydict import EasyDict as edict
from helpers.documents import read, table

import arcface_cakd.arcface_torch
from arcface_cakd import CakdConfig
from arcface_cakd.config import Range, Section, TrainConfig, load_config
from arcface_cakd.config.training import _HOST_ONLY
from arcface_cakd.registry import LOSSES, SECTIONS

DOCUMENT = read("docs/config.md")
SECTION_TABLES = {
    "augment": "### `augment`",
    "adaface": "### `adaface`",
    "teacher": "### `cakd.teacher`",
    "prompts": "### `cakd.prompts`",
    "urfm": "### `cakd.urfm`",
    "schedule": "### `cakd.losses`",
    "anchoring": "### `cakd.anchoring`",
    "preservation": "### `cakd.preservation`",
}
TEACHER = {"network": "swin_s", "weights": "model.pt"}


def key_of(row: dict[str, str]) -> str:
    return row["key"].strip("`")


def default_of(row: dict[str, str]) -> Any:
    """What stands in the column of defaults, as Python; ``empty`` for a required key."""
    if row["default"] == "required":
        return inspect.Parameter.empty
    assert re.fullmatch(r"`[^`]+`", row["default"]), row
    return eval(row["default"].strip("`"), {"edict": edict})  # text of our own repository


def words_for(annotation: Any) -> str:
    """A type as the tables write it."""
    if typing.get_origin(annotation) is Annotated:
        inner, bounds = typing.get_args(annotation)
        if isinstance(bounds, Section):
            return "edict"
        assert isinstance(bounds, Range)
        return f"{words_for(inner)}, {bounds}"
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        kinds = [words_for(kind) for kind in typing.get_args(annotation)]
        return (", or " if "," in kinds[0] else " or ").join(kinds)
    if typing.get_origin(annotation) is Literal:
        return " or ".join(f'`"{choice}"`' for choice in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        first, *others = typing.get_args(annotation)
        number = "list" if others == [Ellipsis] else f"{1 + len(others)}"
        return f"{number} of {words_for(first)}"
    if annotation in (None, type(None)):
        return "None"
    if annotation is CakdConfig:
        return "edict"
    if dataclasses.is_dataclass(annotation):
        fields = dataclasses.fields(annotation)
        assert {field.type for field in fields} == {float}
        return f"edict of {', '.join(field.name for field in fields)}"
    return annotation.__name__


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (str, "str"),
        (str | None, "str or None"),
        (Annotated[int, Range(1)], "int, at least 1"),
        (Annotated[float, Range(above=0, high=1)] | None, "float, above 0 and at most 1, or None"),
        (Literal["a", "b"], '`"a"` or `"b"`'),
        (Literal["a", "b"] | None, '`"a"` or `"b"` or None'),
        (tuple[float, float, float], "3 of float"),
        (tuple[str, ...], "list of str"),
    ],
)
def test_types_are_written_so(annotation, words):
    assert words_for(annotation) == words


def test_every_top_level_key_is_in_the_table():
    rows = table(DOCUMENT, "## Top-level keys")
    fields = dataclasses.fields(TrainConfig)
    assert sorted(map(key_of, rows)) == sorted(field.name for field in fields)
    rows = {key_of(row): row for row in rows}
    hints = inspect.get_annotations(TrainConfig, eval_str=True)
    for field in fields:
        row = rows[field.name]
        required = field.default is dataclasses.MISSING
        assert default_of(row) == (inspect.Parameter.empty if required else field.default)
        assert row["type"] == words_for(hints[field.name]), field.name
        assert len(row["meaning"]) > 5


def test_every_setting_of_a_section_is_in_its_table():
    named = {name for name in SECTIONS.names()}
    assert named == set(SECTION_TABLES), "a section without a table, or a table without a section"


@pytest.mark.parametrize("name", SECTION_TABLES)
def test_a_sections_table_is_its_signature(name):
    section = SECTIONS.get(name)
    parameters = inspect.signature(section).parameters
    if not dataclasses.is_dataclass(section):
        parameters = {n: p for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    owner = section.__init__ if inspect.isclass(section) else section
    hints = inspect.get_annotations(owner, eval_str=True)
    rows = table(DOCUMENT, SECTION_TABLES[name])
    assert list(map(key_of, rows)) == list(parameters)
    for row, parameter in zip(rows, parameters.values(), strict=True):
        assert default_of(row) == parameter.default, row
        assert row["type"] == words_for(hints[parameter.name]), row


def test_every_key_of_the_entry_is_in_its_table():
    rows = table(DOCUMENT, "## The `cakd` entry")
    assert [key_of(row) for row in rows] == [field.name for field in dataclasses.fields(CakdConfig)]
    defaults = {key_of(row): default_of(row) for row in rows}
    assert defaults.pop("teacher") is inspect.Parameter.empty
    unsaid = CakdConfig.from_entry({"teacher": TEACHER})
    # Each by itself, for a default may hang on another key.
    for key, default in defaults.items():
        assert CakdConfig.from_entry({"teacher": TEACHER, key: default}) == unsaid, key
    off = {"prompts", "preservation", "student_weights"}
    assert {key for key, default in defaults.items() if default is None} == off


def test_with_prompts_preservation_is_on_with_the_defaults_of_its_table():
    (row,) = [r for r in table(DOCUMENT, "## The `cakd` entry") if key_of(r) == "preservation"]
    assert "unsaid it is on where prompts are" in row["meaning"]
    config = CakdConfig.from_entry({"teacher": TEACHER, "prompts": {}})
    rows = table(DOCUMENT, SECTION_TABLES["preservation"])
    assert config.preservation == {key_of(row): default_of(row) for row in rows}


def test_without_urfm_the_first_loss_is_left():
    config = CakdConfig.from_entry({"teacher": TEACHER, "urfm": None})
    (row,) = [r for r in table(DOCUMENT, "## The `cakd` entry") if key_of(r) == "losses"]
    assert "without URFM the first alone" in row["meaning"]
    assert [loss.name for loss in config.losses] == [default_of(row)[0].name]


def test_the_host_reads_the_keys_of_its_table():
    """Those that it looks for without being sure of them are none of arcface_torch's own."""
    looked_for = set()
    for path in Path(arcface_cakd.arcface_torch.__file__).parent.glob("*.py"):
        calls = re.findall(r"\bcfg\.get\((.*?)\)", path.read_text(encoding="utf-8"))
        looked_for |= set(map(ast.literal_eval, calls))
    looked_for -= {"resume", "save_all_states"}  # its own, which ours reads before it does
    rows = table(DOCUMENT, "### In a patched arcface_torch")
    defaults = {key_of(row): default_of(row) for row in rows}
    assert set(defaults) == looked_for
    assert defaults.pop("fast_items") is False
    ours = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    assert defaults == {key: ours[key] for key in defaults}


def test_keys_of_the_hosts_own_tools_are_those_named(tmp_path, recwarn):
    sentence = re.search(r"that\s+one's own tools: (.*?)\.\n", DOCUMENT, flags=re.S)[1]
    names = re.findall(r"`(\w+)`", sentence)
    assert sorted(names) == sorted(_HOST_ONLY)
    lines = [f"config.{name} = 'anything'" for name in names]
    text = "from easydict import EasyDict as edict\nconfig = edict(rec='x')\n" + "\n".join(lines)
    (tmp_path / "host.py").write_text(text)
    assert load_config(tmp_path / "host.py").rec == "x"
    assert not recwarn.list


def test_losses_that_need_centres_and_stages_are_in_their_rows():
    rows = table(DOCUMENT, "## Losses", first="")
    by_need = {}
    for name in LOSSES.names():
        loss = LOSSES.get(name)
        if loss.__module__.startswith("arcface_cakd."):
            for need in loss.needs:
                by_need.setdefault(need, set()).add(name)
    named = {row[""]: set(re.findall(r"`(\w+)`", row["losses"])) for row in rows if row[""]}
    assert named["classes"] == by_need["centers"]
    assert by_need["stages"] <= named["pixel features and stages"]
    assert named["the same, with labels"] <= by_need["labels"]
