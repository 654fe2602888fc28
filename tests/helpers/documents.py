"""The documents of the repository, for the tests that hold them to the code."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / name
    for name in (
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "patches/README.md",
        "recipes/README.md",
    )
] + [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "eval").glob("*/*.md"))]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```\n", "", text, flags=re.M | re.S)


def commands(text: str) -> Iterator[str]:
    """The lines of our command line that a document shows."""
    for language, block in blocks(text):
        for line in block.splitlines():
            if language == "" and re.search(r"arcface-cakd |-m arcface_cakd ", line):
                yield line.split("&&")[-1].strip()


def table(text: str, heading: str, first: str = "key") -> list[dict[str, str]]:
    """The rows of the first table below a heading whose first column has that title.

    Args:
        heading: with its number signs, ``"## Losses"``.
    """
    below = without_blocks(text).split(f"\n{heading}\n")
    assert len(below) == 2, f"{heading!r} stands {len(below) - 1} times"
    section = re.split(r"^#{1,6} ", below[1], flags=re.M)[0]
    lines = iter(section.splitlines())
    titles = next(cells for cells in map(_cells, lines) if cells and cells[0] == first)
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(titles, _cells(line), strict=True)))
    return rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
