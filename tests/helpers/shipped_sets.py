"""What the shipped sets put into a host, as a digest beside the version that it belongs to.

``python tests/helpers/shipped_sets.py`` writes ``shipped_sets.json`` anew.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from arcface_cakd.patching import read_sets

PATH = Path(__file__).with_suffix(".json")


def digest(patch_set) -> str:
    """Over what ends up in a host and where; not over the reasons."""
    entries = [*map(asdict, patch_set.edits), *map(asdict, patch_set.added)]
    for entry in entries:
        del entry["reason"]
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def shipped() -> dict:
    return {
        patch_set.name: {"version": patch_set.version, "digest": digest(patch_set)}
        for patch_set in read_sets()
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(shipped(), indent=2) + "\n", encoding="utf-8")
