"""Photographs of other people for the study: CFP's, frontal and in profile, aligned to 112 x 112.

    python eval/study/cfp_faces.py CFP_CLONE LFW_CLONE study_faces/real

CFP_CLONE is a plain clone, a bare one will do, of zhangjunh/DR-GAN-by-pytorch, a public repository
that holds the data set *Celebrities in Frontal-Profile* (Sengupta et al., WACV 2016): 500 people,
ten photographs from the front and four from the side of each, and its protocol. LFW_CLONE and the
folder are those of real_faces.py, which comes first. Ten minutes on one core.

Into the folder: cfp_ff.bin, pairs of two frontal faces, and cfp_fp.bin, of a frontal one and a
profile, with <set>_people.tsv; cfp_left_out.tsv, who was left out, and for whose image. Left out
is who is trained on or judged elsewhere in the study, by name or by the teacher's cosine. The
pairs of the others are those of CFP's protocol. That lists fewer of two people, once so many
people are gone, than of one: more are drawn, until there are as many of both kinds.

What may be done with it: see eval/study/README.md. No image and no .bin belongs into a commit.
"""

import argparse
import random
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import torch
from clones import files_below, from_git
from face_detection import QUALITY, FaceFinder, decoded
from near_duplicates import embed_crops, near_duplicates
from real_faces import (
    DRAW,
    LFW_COMMIT,
    TENTHS,
    Crop,
    Pair,
    people_of,
    person_of,
    write_pairs,
)

from arcface_cakd.data.bins import load_bin
from arcface_cakd.data.records import FaceRecords
from arcface_cakd.files import write_text
from arcface_cakd.preparation.align.crops import aligned_crop

CFP_COMMIT = "12de9e083449d5ab0b6cd63afc8df697bd7f63c2"
ROOT = "cfp-dataset"
# What a pair of each set shows, first and second; the protocol's lists of images are by that too.
SETS = {"cfp_ff": ("frontal", "frontal"), "cfp_fp": ("frontal", "profile")}
FOLDS, LISTS = 10, {"frontal": "F", "profile": "P"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cfp", metavar="CFP_CLONE")
    parser.add_argument("lfw", metavar="LFW_CLONE")
    parser.add_argument("out", type=Path, metavar="OUT")
    args = parser.parse_args()
    torch.set_num_threads(1)

    names = from_git(args.cfp, CFP_COMMIT, f"{ROOT}/Data/list_name.txt").decode().splitlines()
    people = {f"{number:03d}": name.strip() for number, name in enumerate(names, start=1)}
    left_out = {person: "name" for person in in_lfw(people, lfw_people(args.lfw))}
    images = {k: v for k, v in images_of(args.cfp).items() if person_of(k) not in left_out}
    crops = align(images)
    print(f"{len(images) - len(crops)} of {len(images)} images have no face that is found")
    alike = with_faces_of(args.out, crops)
    print(f"left out of {len(people)} people: {len(left_out)} by name, {len(alike)} by face")
    left_out |= alike
    lines = (f"{people[person]}\t{why}\n" for person, why in sorted(left_out.items()))
    write_text(args.out / "cfp_left_out.tsv", "".join(lines))
    for name, kinds in SETS.items():
        listed = protocol(args.cfp, name, kinds)
        kept = {k: c for k, c in crops.items() if person_of(k) not in left_out}
        write_pairs(args.out, name, pairs_of(listed, kept, kinds))


def images_of(cfp: str) -> dict[str, bytes]:
    """Every image, encoded, by "<person>/<frontal or profile>/<file>"."""
    files = files_below(cfp, CFP_COMMIT, f"{ROOT}/Data/Images")
    # The clone has people in two folders, "train" and "test".
    found = {below(path): encoded for path, encoded in files if path.endswith(".jpg")}
    return dict(sorted(found.items()))


def below(path: str) -> str:
    """Its last three parts: "001/frontal/01.jpg" of "../Data/Images/001/frontal/01.jpg"."""
    return "/".join(path.split("/")[-3:])


def lfw_people(lfw: str) -> set[str]:
    """Names of all people whom the study trains on or judges: some of LFW's View 1."""
    text = from_git(lfw, LFW_COMMIT, "peopleDevTrain.txt").decode()
    counts = (line.split() for line in text.splitlines())
    trained = {words[0] for words in counts if len(words) == 2 and int(words[1]) >= 2}
    return trained | set(people_of(lfw, "peopleDevTest.txt"))


def in_lfw(people: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Those of the people who are among the names, whatever their accents and spaces."""
    known = {plain_letters(name) for name in names}
    return [person for person, name in people.items() if plain_letters(name) in known]


def plain_letters(name: str) -> str:
    """The letters of a name from a to z and its digits: accents, case and the rest are dropped."""
    letters = unicodedata.normalize("NFKD", name).casefold()
    return re.sub("[^a-z0-9]", "", letters)


def align(images: Mapping[str, bytes]) -> dict[str, Crop]:
    """Crops of the images in which a face is found."""
    finder, found = FaceFinder(), {}
    for name, encoded in images.items():
        landmarks = finder.landmarks(encoded)
        if landmarks is None:
            continue
        # The package's crop: these faces are up to five times as large as LFW's.
        crop = aligned_crop(decoded(encoded), landmarks)
        _, jpeg = cv2.imencode(".jpg", crop.image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        found[name] = Crop(name, jpeg.tobytes(), crop.landmarks)
    return found


def with_faces_of(out: Path, crops: Mapping[str, Crop]) -> dict[str, str]:
    """The people of the crops whom the teacher takes for somebody of the sets in ``out``.

    Returns:
        by person, the image that is most alike: its part, whose it is there, and the cosine.
    """
    parts, names = parts_of(out)
    parts["cfp"] = [crop.jpeg for crop in crops.values()]
    names["cfp"] = list(crops)
    found = near_duplicates(embed_crops(out / "edgeface_xs.pt", parts), names)
    alike: dict[str, str] = {}
    for part, whose, other, image, cosine in found:  # the most alike first
        if other == "cfp":
            alike.setdefault(person_of(image), f"{part}, {whose}, {cosine}")
    return alike


def parts_of(out: Path) -> tuple[dict[str, list[bytes]], dict[str, list[str]]]:
    """The images of each part of the real set, encoded, and whose they are."""
    records = FaceRecords(out)
    rows = [records.encoded(position) for position in range(len(records))]
    parts = {"train": [encoded for encoded, _ in rows]}
    names = {"train": [f"label {int(label)}" for _, label in rows]}
    for name in TENTHS:
        encoded, _ = load_bin(out / f"{name}.bin")
        text = (out / f"{name}_people.tsv").read_text(encoding="utf-8")
        people = [person for line in text.splitlines() for person in line.split("\t")]
        whose = dict(zip(encoded, people, strict=True))
        parts[name], names[name] = list(whose), list(whose.values())
    return parts, names


def protocol(cfp: str, name: str, kinds: tuple[str, str]) -> list[tuple[str, str, bool]]:
    """The pairs that CFP lists, fold by fold: two images, and whether they show one person."""
    images = {}
    for kind in set(kinds):
        text = from_git(cfp, CFP_COMMIT, f"{ROOT}/Protocol/Pair_list_{LISTS[kind]}.txt").decode()
        rows = (line.split() for line in text.splitlines() if line.strip())
        images[kind] = {number: below(path) for number, path in rows}
    pairs = []
    for fold in range(1, FOLDS + 1):
        for file, same in (("same", True), ("diff", False)):
            path = f"{ROOT}/Protocol/Split/{name[-2:].upper()}/{fold:02d}/{file}.txt"
            for line in from_git(cfp, CFP_COMMIT, path).decode().split():
                one, other = line.split(",")
                pairs.append((images[kinds[0]][one], images[kinds[1]][other], same))
    return pairs


def pairs_of(
    listed: Iterable[tuple[str, str, bool]], crops: Mapping[str, Crop], kinds: tuple[str, str]
) -> list[Pair]:
    """The listed pairs whose crops are there, and more of two people until both kinds are equal.

    In the order of the list, which has some pairs twice, each pair of one person followed by one
    of two people.
    """
    kept: dict[frozenset[str], tuple[str, str, bool]] = {}
    for one, other, is_same in listed:
        if one in crops and other in crops:
            kept.setdefault(frozenset((one, other)), (one, other, is_same))
    same, different = ([row[:2] for row in kept.values() if row[2] is k] for k in (True, False))
    first, second = ([image for image in crops if image.split("/")[1] == kind] for kind in kinds)
    known = set(kept)
    rng = random.Random(DRAW)
    while len(different) < len(same):
        pair = rng.choice(first), rng.choice(second)
        if person_of(pair[0]) != person_of(pair[1]) and frozenset(pair) not in known:
            known.add(frozenset(pair))
            different.append(pair)
    pairs = []
    for one, other in zip(same, different, strict=False):
        pairs += [Pair(*(crops[image] for image in one), True)]
        pairs += [Pair(*(crops[image] for image in other), False)]
    return pairs[: len(pairs) // 20 * 20]  # ten folds, as many of both kinds in each


if __name__ == "__main__":
    main()
