"""What holds for every document: its links lead somewhere, its commands parse."""

import re
import shlex

import pytest
from helpers.documents import DOCUMENTS, ROOT, commands, read, without_blocks

import arcface_cakd
from arcface_cakd.cli import COMMANDS, _parser

NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def headings(text: str) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    found: dict[str, int] = {}
    anchors = set()
    for title in re.findall(r"^#{1,6} +(.*?) *$", without_blocks(text), flags=re.M):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        number = found[anchor] = found.get(anchor, -1) + 1
        anchors.add(f"{anchor}-{number}" if number else anchor)
    return anchors


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", without_blocks(text))


def fault_of(link: str, name: str) -> str | None:
    """What is wrong with a link in a document; None: nothing, or it leads to the web."""
    if re.match(r"[a-z]+:", link):
        return None if re.match(r"(https?|mailto):", link) else "an unknown kind of address"
    path, _, anchor = link.partition("#")
    target = ((ROOT / name).parent / path if path else ROOT / name).resolve()
    if not target.is_relative_to(ROOT.resolve()) or path.startswith("/"):
        return "leads out of the repository"
    if not target.exists():
        return "no such file"
    if anchor and (target.suffix != ".md" or anchor not in headings(target.read_text("utf-8"))):
        return "no such heading"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name):
    faults = {link: fault_of(link, name) for link in links(read(name))}
    assert not {link: fault for link, fault in faults.items() if fault}


def test_what_is_no_link_is_found_out():
    faults = {
        "docs/config.md": None,
        "#limits": None,
        "docs/config.md#cakdurfm": None,
        "https://arxiv.org/abs/2306.14662": None,
        "docs/confi.md": "no such file",
        "#no-limits": "no such heading",
        "docs/config.md#cakd.urfm": "no such heading",
        "LICENSE#permission": "no such heading",
        "../README.md": "leads out of the repository",
        "/docs/config.md": "leads out of the repository",
    }
    assert {link: fault_of(link, "README.md") for link in faults} == faults
    assert fault_of("../README.md#limits", "docs/config.md") is None
    assert fault_of("README.md", "docs/config.md") == "no such file"


def test_the_headings_anchors_are_githubs():
    text = "# The `cakd` entry\n## What is *ours*, really?\n## A\n```\n# no heading\n```\n## A\n"
    assert headings(text) == {"the-cakd-entry", "what-is-ours-really", "a", "a-1"}


@pytest.mark.parametrize("command", [command for name in NAMES for command in commands(read(name))])
def test_every_command_parses(command):
    words = shlex.split(command.replace("-m arcface_cakd", "arcface-cakd"), comments=True)
    _parser().parse_args(words[words.index("arcface-cakd") + 1 :])


def test_the_readme_shows_every_command():
    shown = " ".join(commands(read("README.md")))
    assert {name for name in COMMANDS if re.search(rf"arcface[-_]cakd {name}\b", shown)} == set(
        COMMANDS
    )


def test_a_version_is_said_once_and_the_same():
    version = arcface_cakd.__version__
    assert f"\nversion: {version}\n" in read("CITATION.cff")
    assert re.findall(r"^## \[(.*)\]", read("CHANGELOG.md"), flags=re.M)[:2] == [
        "Unreleased",
        version,
    ]


def test_ruff_is_the_same_for_ci_and_for_commits():
    (pinned,) = re.findall(r'"ruff==([\d.]+)"', read("setup.py"))
    assert f"ruff-pre-commit\n    rev: v{pinned}\n" in read(".pre-commit-config.yaml")


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_table_have_as_many_cells_as_its_header(name):
    """One that has not is cut, or split in two, without a word by whatever shows it."""
    width, odd = 0, []
    for line in without_blocks((ROOT / name).read_text("utf-8")).splitlines():
        cells = len(re.split(r"(?<!\\)\|", line.strip())) if line.startswith("|") else 0
        if width and cells and cells != width:
            odd.append(line)
        width = cells if not cells or not width else width
    assert not odd
