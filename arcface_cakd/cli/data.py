"""``arcface-cakd data``: make, pack, renumber, index, inspect and verify data sets."""

import argparse
import json
from pathlib import Path

from arcface_cakd.cli.evaluate import positive
from arcface_cakd.files import write_text

HELP = "make, pack, renumber, index, inspect and verify data sets"


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    parser.epilog = "example: arcface-cakd data inspect /data/ms1m-retinaface-t1"

    made = _action(
        actions,
        "synthesize",
        "make a data set of procedural faces: training records and verification sets",
        "arcface-cakd data synthesize faces --identities 200 --images-per-identity 50 --seed 1",
    )
    made.add_argument("out", metavar="OUT", help="folder to write to")
    made.add_argument("--identities", type=positive, required=True, metavar="N")
    made.add_argument("--images-per-identity", type=positive, required=True, metavar="M")
    made.add_argument("--seed", type=int, required=True, metavar="S")
    made.add_argument(
        "--difficulty", type=float, default=1.0, metavar="D", help="strength of nuisances [1.0]"
    )
    made.add_argument(
        "--pairs",
        type=positive,
        default=3000,
        metavar="P",
        help="pairs per verification set [3000]",
    )
    made.add_argument("--contact-sheet", metavar="FILE.png", help="picture of what was made")
    made.add_argument("--force", action="store_true", help="replace a data set in OUT")

    packed = _action(
        actions,
        "pack",
        "pack one folder of 112 x 112 images per identity into train.rec, train.idx, property",
        "arcface-cakd data pack crops/ dataset/",
    )
    packed.add_argument("folder", metavar="FOLDER", help="one subfolder per identity")
    packed.add_argument("out", metavar="OUT", help="folder to write to")
    packed.add_argument("--force", action="store_true", help="replace a data set in OUT")
    packed.add_argument(
        "--skip-bad", action="store_true", help="leave out files that are no 112 x 112 images"
    )

    renumbered = _action(
        actions,
        "renumber",
        "write a record set anew: every image, people numbered from 0 on without gaps",
        "arcface-cakd data renumber dataset/ renumbered/",
    )
    renumbered.add_argument("dataset", metavar="DATASET", help="folder of train.rec")
    renumbered.add_argument("out", metavar="OUT", help="folder to write to")
    renumbered.add_argument("--force", action="store_true", help="replace a data set in OUT")

    indexed = _action(
        actions,
        "index",
        "write the .idx of a .rec file anew, from the records themselves",
        "arcface-cakd data index dataset/train.rec",
    )
    indexed.add_argument("rec", metavar="FILE.rec", type=Path)
    indexed.add_argument("--force", action="store_true", help="replace an index that is there")

    inspected = _action(
        actions,
        "inspect",
        "count images, identities and sizes",
        "arcface-cakd data inspect dataset/lfw.bin",
    )
    verified = _action(
        actions,
        "verify",
        "read and decode everything; exit 1 and name what is damaged, if anything is",
        "arcface-cakd data verify dataset/ --json damage.json",
    )
    for action in (inspected, verified):
        action.add_argument("path", metavar="PATH", help="a .rec or .bin file, or a folder")
        action.add_argument("--json", metavar="FILE", help="write the figures there")


def run(args: argparse.Namespace) -> int:
    return _ACTIONS[args.action](args)


def _synthesize(args: argparse.Namespace) -> int:
    from arcface_cakd.data.packing import check_vacant
    from arcface_cakd.synthesis import synthesize

    check_vacant(args.out, args.force)
    synthesize(
        args.out,
        args.identities,
        args.images_per_identity,
        args.seed,
        difficulty=args.difficulty,
        pairs=args.pairs,
        contact_sheet=args.contact_sheet,
    )
    images = args.identities * args.images_per_identity
    print(f"{args.out}: {images} images of {args.identities} identities, and verification sets")
    return 0


def _pack(args: argparse.Namespace) -> int:
    from arcface_cakd.data.packing import pack_folder

    packed = pack_folder(args.folder, args.out, force=args.force, skip_bad=args.skip_bad)
    skipped = f"; {len(packed.skipped)} files left out" if packed.skipped else ""
    print(f"{args.out}: {packed.images} images of {packed.identities} identities{skipped}")
    print(f"{args.out}/labels.tsv: the folder of each label")
    return 0


def _renumber(args: argparse.Namespace) -> int:
    from arcface_cakd.data.renumbering import renumber

    images, people = renumber(args.dataset, args.out, args.force)
    print(f"{args.out}: {images} images of {people} people; labels.tsv has their former labels")
    left = sorted(path.name for path in Path(args.dataset).glob("*.bin"))
    if left:
        print(f"{args.dataset}: {', '.join(left)} stay there: copy what you validate on")
    return 0


def _index(args: argparse.Namespace) -> int:
    from arcface_cakd.data.errors import DataError
    from arcface_cakd.recordio.scan import rebuild_index

    idx = args.rec.with_suffix(".idx")
    if args.rec.suffix != ".rec":
        raise DataError(f"{args.rec}: not a .rec file")
    if idx.exists() and not args.force:
        raise DataError(f"{idx}: an index is there: replace it with --force")
    records, by_id = rebuild_index(args.rec, idx)
    kind = "the ids in their headers" if by_id else "their places, for their ids do not tell them"
    print(f"{idx}: {records} records, whose keys are {kind}")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from arcface_cakd.data.inspection import inspect

    descriptions = inspect(args.path)
    for description in descriptions:
        print(description["path"])
        for name, value in description.items():
            if isinstance(value, dict):
                value = ", ".join(f"{n} of {size}" for size, n in value.items())
            if name != "path" and value is not None:
                print(f"  {name.replace('_', ' ')}: {value}")
    _write_json(args.json, descriptions)
    return 0


def _verify(args: argparse.Namespace) -> int:
    from arcface_cakd.data.damage import verify

    items, damages = verify(args.path)
    for damage in damages:
        place = [damage["path"]]
        place += [f"{name} {damage[name]}" for name in ("key", "byte") if damage[name] is not None]
        print(f"{', '.join(place)}: {damage['problem']}")
    print(f"{args.path}: {items} items read, {len(damages)} damaged")
    _write_json(args.json, {"items": items, "damaged": damages})
    return 1 if damages else 0


_ACTIONS = {
    "synthesize": _synthesize,
    "pack": _pack,
    "renumber": _renumber,
    "index": _index,
    "inspect": _inspect,
    "verify": _verify,
}


def _action(actions, name: str, text: str, example: str) -> argparse.ArgumentParser:
    return actions.add_parser(name, help=text, description=text, epilog=f"example: {example}")


def _write_json(path: str | None, figures) -> None:
    if path:
        write_text(path, json.dumps(figures, indent=2) + "\n")
