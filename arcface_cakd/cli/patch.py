"""``arcface-cakd patch``: apply our edits to a checkout of arcface_torch, check or revert them."""

import argparse
import json
import shlex
from dataclasses import asdict

from arcface_cakd.files import write_text

HELP = "Patch a checkout of arcface_torch so that it distils and runs on current versions."

# 1 is a user's mistake and 2 wrong usage, as in every command.
EXIT_CODES = {"patched": 0, "older": 3, "unpatched": 4, "partly": 5, "foreign": 6}

_MEANINGS = {
    "patched": "in place",
    "older": "an older version is in place: patch again",
    "unpatched": "not applied",
    "partly": "some of its edits are in place: patch again",
    "foreign": "cannot be applied to this checkout as it is",
}
_PLACES = {
    "after": "put the block after what does this here:",
    "before": "put the block before what does this here:",
    "change": "put the block in the place of the line that does this here (--revert puts "
    "its '# ---' line back):",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "--check exits with 0 if patched, 3 older, 4 unpatched, 5 partly, 6 foreign; of two sets "
        "the gravest\ncounts: foreign, then partly, older, unpatched.\n\n"
        "example: arcface-cakd patch insightface/recognition/arcface_torch"
    )
    parser.add_argument("host", metavar="DIR", help="arcface_torch, or a checkout of insightface")
    parser.add_argument(
        "--only",
        choices=("cakd", "current-stack"),
        help="cakd: distillation; current-stack: what current versions of torch, numpy and "
        "scipy need; default: both",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="say what is patched, change nothing")
    action.add_argument("--revert", action="store_true", help="give the original files back")
    action.add_argument(
        "--recipe",
        action="append",
        metavar="NAME",
        help="copy this recipe into configs/ instead of the default ones; may be repeated",
    )
    parser.add_argument("--json", metavar="FILE", help="with --check: write the same as data")
    parser.set_defaults(wrong_usage=parser.error)


def run(args: argparse.Namespace) -> int:
    if args.json and not args.check:
        args.wrong_usage("--json goes with --check")
    if args.recipe and args.only == "current-stack":
        args.wrong_usage("--recipe goes with the set cakd, not with --only current-stack")
    if args.check:
        return _check(args)
    if args.revert:
        return _revert(args)
    return _patch(args)


def _patch(args: argparse.Namespace) -> int:
    from arcface_cakd.patching import patch

    outcome = patch(args.host, args.only, args.recipe)
    for found in outcome.examined:
        print(f"{found.patch_set.name} {found.patch_set.version}: {_change(found, args.only)}")
    if outcome.recipes:
        print(f"recipes in configs/: {', '.join(outcome.recipes)}")
    _print_kept(outcome)
    changed = len(outcome.written) + len(outcome.removed)
    print(f"{outcome.root}: {_count(changed, 'file') if changed else 'nothing'} changed")
    if outcome.recipes:
        train = f"torchrun --nproc-per-node gpu train_v2.py configs/{outcome.recipes[0]}"
        print(f"next: cd {shlex.quote(str(outcome.root))} && {train}")
    return 0


def _change(found, only: str | None) -> str:
    """What patching did for one set."""
    files = {edit.file for edit in found.patch_set.edits}
    size = f"{_count(len(found.patch_set.edits), 'edit')} in {_count(len(files), 'file')}"
    if found.patch_set.added:
        size += f", {_count(len(found.patch_set.added), 'file')} added"
    other = only not in (None, found.patch_set.name)
    too = " too, because it was there" if other else ""
    versions = " and ".join(map(str, found.versions))
    changes = {
        "patched": "in place already",
        "unpatched": "applied",
        "older": f"brought from version {versions} up to date{too}",
        "partly": f"completed{too}",
    }
    return f"{changes[found.state]}: {size}"


def _revert(args: argparse.Namespace) -> int:
    from arcface_cakd.patching import revert

    outcome = revert(args.host, args.only)
    _print_kept(outcome)
    if not outcome.written and not outcome.removed:
        print(f"{outcome.root}: nothing to revert, it is not patched")
        return 0
    removed = f", removed: {', '.join(outcome.removed)}" if outcome.removed else ""
    print(f"{outcome.root}: {_count(len(outcome.written), 'file')} reverted{removed}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from arcface_cakd.patching import check, gravest

    outcome = check(args.host, args.only)
    for found in outcome.examined:
        name = f"{found.patch_set.name} {found.patch_set.version}"
        print(f"{name}: {found.state}: {_MEANINGS[found.state]}")
    for found in outcome.examined:
        for refusal in found.refusals:
            print(f"\n{refusal}")
        for lack in found.lacks:
            print("\n" + "\n".join(_lacking(found.patch_set.name, lack)))
    state = gravest(outcome.examined)
    if args.json:
        write_text(args.json, json.dumps(_figures(outcome, state), indent=2) + "\n")
    return EXIT_CODES[state]


def _lacking(set_name: str, lack) -> list[str]:
    """An anchor that a fork lacks, and the block to add by hand, ready to be pasted."""
    edit = lack.edit
    found = "the file is missing" if lack.found is None else f"found {_times(lack.found)}"
    return [
        f"{edit.file}: {set_name} {edit.id}: anchor must occur {_times(edit.count)}, {found}",
        f"reason: {edit.reason}",
        _PLACES[edit.action],
        *(f"{edit.indentation}{line}".rstrip() for line in edit.anchor),
        "the block, indented as in the original; indent it as a whole as it must be here:",
        *lack.block,
    ]


def _figures(outcome, state: str) -> dict:
    return {
        "host": str(outcome.root),
        "state": state,
        "exit_code": EXIT_CODES[state],
        "sets": [
            {
                "name": found.patch_set.name,
                "version": found.patch_set.version,
                "versions_found": list(found.versions),
                "state": found.state,
                "refusals": list(found.refusals),
                "lacks": [
                    {**asdict(lack.edit), "found": lack.found, "block": list(lack.block)}
                    for lack in found.lacks
                ],
            }
            for found in outcome.examined
        ],
    }


def _print_kept(outcome) -> None:
    for path in outcome.kept:
        print(f"{path}: kept, it is not as arcface-cakd wrote it")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
