"""What recipes were that a ``--set`` line replaced: writes set_lines.json beside this file.

    python tests/golden/make_set_lines.py FOLDER

FOLDER holds the recipes as they were while each such run had a file of its own, all in one folder,
which was until recipes/set_lines.json was added:

    before=$(git log --diff-filter=A --format=%h -- recipes/set_lines.json)~
    git archive $before recipes | tar -x -C /tmp
    python tests/golden/make_set_lines.py /tmp/recipes

A recipe that is no longer shipped is recorded as what ``load_config`` made of it, by where that
differs from the nearest one that still is. Nothing here reads ``recipes/set_lines.json``.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from arcface_cakd.config import load_config
from arcface_cakd.resources import recipe_files

GOLDEN = Path(__file__).with_name("set_lines.json")


def resolved(path: Path, settings: tuple[str, ...] = ()) -> dict[str, Any]:
    """A config file's settings, all defaults filled in, as JSON holds them."""
    return json.loads(json.dumps(asdict(load_config(path, settings))))


def differences(before: dict, now: dict, start: str = "") -> dict[str, Any]:
    """The values of ``now`` that differ, by their keys, where dots reach into entries."""
    found = {}
    for key in before.keys() | now.keys():
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found |= differences(old, new, f"{start}{key}.")
        elif old != new:
            found[f"{start}{key}"] = new
    return dict(sorted(found.items()))


def main(folder: str) -> None:
    files = {file.stem: file for file in sorted(Path(folder).glob("[!_]*.py"))}
    configs = {name: resolved(file) for name, file in files.items()}
    kept = [name for name in configs if name in recipe_files()]
    record = {}
    for name in configs.keys() - set(kept):
        near = {k: differences(configs[k], configs[name]) for k in kept}
        recipe = min(kept, key=lambda k: len(json.dumps(near[k])))
        record[name] = {"recipe": recipe, "differs": near[recipe]}
    GOLDEN.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
