"""Folds of the real training set: trained on three quarters of its people, judged on the fourth.

    python eval/study/folds.py study_faces

From study_faces/real, which real_faces.py makes: study_faces/real_fold_0 to real_fold_3, each with
train.rec of the people of the other three, and held_out.bin and held_out_people.tsv of its own,
whom its students have not seen. People are numbered as the labels of the whole set; who is taken
by the teacher for somebody of another fold is in no pair. Two minutes on one core.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from grid import FOLDS
from near_duplicates import embed_crops, near_duplicates
from real_faces import DRAW, Crop, draw_pairs, person_of, write_pairs, write_training_set

from arcface_cakd.data.face_landmarks import FaceLandmarks
from arcface_cakd.data.records import FaceRecords


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path, metavar="FACES")
    args = parser.parse_args()
    torch.set_num_threads(1)
    people = people_of(args.faces / "real")
    folds = in_folds(list(people), len(FOLDS))
    crops = {
        name: [crop for person in own for crop in people[person]]
        for name, own in zip(FOLDS, folds, strict=True)
    }
    encoded = {name: [crop.jpeg for crop in own] for name, own in crops.items()}
    names = {name: [crop.name for crop in own] for name, own in crops.items()}
    found = near_duplicates(embed_crops(args.faces / "real" / "edgeface_xs.pt", encoded), names)
    alike = {person_of(image) for _, one, _, other, _ in found for image in (one, other)}
    print(f"{len(alike)} people are taken for somebody of another fold")
    rng = random.Random(DRAW)
    for name, own in zip(FOLDS, folds, strict=True):
        held = set(own)
        write_training_set(args.faces / name, {p: c for p, c in people.items() if p not in held})
        judged = {person: people[person] for person in own if person not in alike}
        write_pairs(args.faces / name, "held_out", draw_pairs(judged, rng))


def people_of(folder: Path) -> dict[str, list[Crop]]:
    """The images of a record set by person, whose name is the label."""
    records = FaceRecords(folder)
    landmarks = FaceLandmarks(folder, len(records))
    people: dict[str, list[Crop]] = {}
    for position in range(len(records)):
        encoded, label = records.encoded(position)
        person = f"{int(label):04d}"
        name = f"{person}/{position:05d}.jpg"
        people.setdefault(person, []).append(
            Crop(name, bytes(encoded), np.array(landmarks[position], dtype=np.float32))
        )
    return people


def in_folds(people: list[str], count: int) -> list[list[str]]:
    """The people dealt out at random, as evenly as may be; always alike."""
    shuffled = sorted(people)
    random.Random(DRAW).shuffle(shuffled)
    return [sorted(shuffled[fold::count]) for fold in range(count)]


if __name__ == "__main__":
    main()
