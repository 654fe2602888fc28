"""``arcface-cakd patch``: apply our edits to a checkout of arcface_torch, check or revert them."""

import argparse
import shlex
import sys
from dataclasses import asdict

from arcface_cakd.cli.figures import add_json, write_json

HELP = "Patch a checkout of arcface_torch so that it distils and runs on current versions."

# 1 is a user's mistake and 2 wrong usage, as in every command.
EXIT_CODES = {"patched": 0, "older": 3, "unpatched": 4, "partly": 5, "foreign": 6}

_MEANINGS = {
    "patched": "in place",
    "unpatched": "not applied",
    "partly": "not in place as a whole: patch again",
    "foreign": "cannot be applied to this checkout as it is",
}
_PLACES = {
    "after": "put the block after what does this here:",
    "before": "put the block before what does this here:",
    "change": "put the block in the place of the line that does this here, and put your own "
    "line behind # ---, for --revert to give it back:",
}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "--check exits with 0 if patched, 3 older, 4 unpatched, 5 partly, 6 foreign; of two sets "
        "the gravest counts: foreign, then partly, older, unpatched. A block that you mark by-hand "
        "in the place of its checksum is yours: it counts, stays as you wrote it, and goes with "
        "--revert.\n\n"
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
    add_json(parser, "with --check: write the same as data")
    parser.set_defaults(wrong_usage=parser.error)


def run(args: argparse.Namespace) -> int:
    if args.json and not args.check:
        args.wrong_usage("--json goes with --check")
    if args.recipe and args.only == "current-stack":
        args.wrong_usage("--recipe goes with the set cakd, not with --only current-stack")
    if args.check:
        return _check(args)
    try:
        return _revert(args) if args.revert else _patch(args)
    except KeyboardInterrupt:  # perhaps between the renames of two files
        print(
            "arcface-cakd patch: interrupted: run it again, it completes what is done in part",
            file=sys.stderr,
        )
        return 130


def _patch(args: argparse.Namespace) -> int:
    from arcface_cakd.patching import patch

    outcome = patch(args.host, args.only, args.recipe)
    for found in outcome.examined:
        print(f"{found.patch_set.name} {found.patch_set.version}: {_change(found, args.only)}")
    if outcome.recipes:
        print(f"recipes in configs/: {', '.join(outcome.recipes)}")
    _print_yours(outcome)
    changed = [*outcome.written, *(f"{path} (removed)" for path in outcome.removed)]
    files = f"{_count(len(changed), 'file')} changed: {', '.join(changed)}"
    print(f"{outcome.root}: {files if changed else 'nothing changed'}")
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
    changes = {
        "patched": "in place already",
        "unpatched": "applied",
        "older": f"brought{_from_version(found)} up to date{too}",
        "partly": f"completed{too}",
    }
    return f"{changes[found.state]}: {size}"


def _from_version(found) -> str:
    """ " from version 1"; nothing if that is no other version than the present one."""
    if found.versions == (found.patch_set.version,):
        return ""
    return f" from version {' and '.join(map(str, found.versions))}"


def _meaning(found) -> str:
    if found.state != "older":
        return _MEANINGS[found.state]
    if not _from_version(found):  # an edited indentation, or a set that was changed
        return "what is in place differs from this version: patch again"
    return f"version {' and '.join(map(str, found.versions))} is in place: patch again"


def _revert(args: argparse.Namespace) -> int:
    from arcface_cakd.patching import revert

    outcome = revert(args.host, args.only)
    for path in outcome.kept:
        print(f"{path}: kept, it is yours")
    for path in outcome.copies:
        print(f"{path}: carried blocks of arcface-cakd, taken out too")
    _print_outside(outcome)
    for line in outcome.left:
        print(line)
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
        print(f"{name}: {found.state}: {_meaning(found)}")
    _print_yours(outcome)
    for found in outcome.examined:
        for refusal in found.refusals:
            print(f"\n{refusal}")
        for lack in found.lacks:
            print("\n" + "\n".join(_lacking(found.patch_set.name, lack)))
    state = gravest(outcome.examined)
    write_json(args.json, _figures(outcome, state))
    return EXIT_CODES[state]


def _lacking(set_name: str, lack) -> list[str]:
    """An anchor that a fork lacks, and the block to add by hand, ready to be pasted."""
    edit = lack.edit
    found = "the file is missing" if lack.found is None else f"found {_times(lack.found)}"
    if lack.by_hand:
        found += f", and {_times(lack.by_hand)} a block by hand"
    anchor = [f"{edit.indentation}{line}".rstrip() for line in edit.anchor]
    alike = len(anchor) == 1 and _indentation(anchor[0]) == _indentation(lack.block[0])
    how = (
        "indent it as the line there" if alike else "shift it as the lines above are shifted there"
    )
    return [
        f"{edit.file}: {set_name} {edit.id}: anchor must occur {_times(edit.count)}, {found}",
        f"reason: {edit.reason}",
        _PLACES[edit.action],
        *anchor,
        "the block; you may fit it to your code, by-hand keeps it as you write it;",
        f"{how}:",
        *lack.block,
    ]


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _figures(outcome, state: str) -> dict:
    return {
        "host": str(outcome.root),
        "state": state,
        "exit_code": EXIT_CODES[state],
        "copies": outcome.copies,
        "outside": {path: str(target) for path, target in outcome.outside.items()},
        "sets": [
            {
                "name": found.patch_set.name,
                "version": found.patch_set.version,
                "versions_found": list(found.versions),
                "state": found.state,
                "refusals": list(found.refusals),
                "notes": list(found.notes),
                "lacks": [
                    {
                        **asdict(lack.edit),
                        "found": lack.found,
                        "by_hand": lack.by_hand,
                        "block": list(lack.block),
                    }
                    for lack in found.lacks
                ],
            }
            for found in outcome.examined
        ],
    }


def _print_yours(outcome) -> None:
    """What patching leaves to the user."""
    for found in outcome.examined:
        for note in found.notes:
            print(note)
    for path in outcome.kept:
        print(f"{path}: kept, it is yours")
    for path in outcome.copies:
        print(f"{path}: carries blocks of arcface-cakd, left as it is")
    _print_outside(outcome)


def _print_outside(outcome) -> None:
    for path, target in outcome.outside.items():
        print(f"{path}: a link out of {outcome.root}: the file is {target}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
