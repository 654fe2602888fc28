"""Photographs of made people, for the README's walk from photographs to a student.

    python eval/made_photographs.py photos --people 0 100
    python eval/made_photographs.py others --people 300 340

A folder a person, PHOTOGRAPHS in each: a made face at any place, 0.8 to 1.8 times the size of a
crop and turned by up to 25 degrees, in a picture of 400 x 320; one in 20 shows nobody. The same
arguments give the same photographs. The demo's training set is of the people 0 to 299: its
teacher has seen those of the first folder, and none of the second.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from arcface_cakd.progress import track
from arcface_cakd.recordio import codec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.photographs import canvas, made_face, placed

WIDTH, HEIGHT = 400, 320


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--people", type=int, nargs=2, required=True, metavar=("FIRST", "END"))
    parser.add_argument("--photographs", type=int, default=12, metavar="N", help="of each [12]")
    args = parser.parse_args()
    for person in track(range(*args.people), "drawing", unit="people"):
        folder = args.out / f"person_{person:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(args.photographs):
            (folder / f"{number:02d}.jpg").write_bytes(photograph(person, number))


def photograph(person: int, number: int) -> bytes:
    """A JPEG of a person, or of nobody."""
    rng = np.random.default_rng([person, number, 1])
    image = canvas(WIDTH, HEIGHT, int(rng.integers(1 << 30)))
    if rng.random() > 0.05:
        centre = rng.uniform([110, 110], [WIDTH - 110, HEIGHT - 110])
        face = made_face(person, number, difficulty=1.0, view="any")
        scale, degrees = rng.uniform(0.8, 1.8), rng.uniform(-25, 25)
        placed(*face, (float(centre[0]), float(centre[1])), scale, degrees, image)
    return codec.encode(image, 92)


if __name__ == "__main__":
    main()
