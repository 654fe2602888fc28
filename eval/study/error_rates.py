"""How often studies find a difference between methods that do not differ: simulated.

    python eval/study/error_rates.py --drawn 100 --json eval/study/error_rates.json

Two methods score the pairs that this study judges on real faces, by effects of people, of pairs
and of trainings, some of them each method's own. Which method is better is drawn anew in each
study, and is no difference between the two: so of 100 studies 5 should come out with p below 0.05.
`closed` is arcface_cakd.evaluation.auc_difference, by which the tables compare 1 - AUC; `drawn` the
bootstrap, by which they compare all else: for the first --drawn studies, as each takes seconds.
"""

import argparse
import dataclasses
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from records import RUNS, read_people

from arcface_cakd.evaluation import (
    Bootstrap,
    Estimate,
    People,
    auc_difference,
    difference,
    one_minus_auc,
)
from arcface_cakd.files import write_text


@dataclasses.dataclass(frozen=True)
class World:
    """Standard deviations of what a score is made of, beside 0.42 for a pair of one person.

    Each of people and of pairs: what both methods share, each method's own, each training's own.
    """

    people: tuple[float, float, float]
    pairs: tuple[float, float, float]
    trainings: float  # by which all pairs of one person move together


# The first is guessed to be as real faces are; in each of the others one part is large.
WORLDS = {
    "as on real faces": World((0.08, 0.03, 0.03), (0.14, 0.06, 0.06), 0.01),
    "people differ": World((0.14, 0.08, 0.06), (0.10, 0.03, 0.03), 0.01),
    "pairs differ": World((0.02, 0.01, 0.01), (0.16, 0.08, 0.08), 0.003),
    "trainings differ": World((0.08, 0.02, 0.03), (0.14, 0.03, 0.06), 0.04),
}


def studies(world: World, people: People, seeds: int, rng: np.random.Generator):
    """Without end: the scores (seeds, P) of two methods."""
    names, persons = np.unique(people.persons, return_inverse=True)
    persons = persons.reshape(people.persons.shape)

    def effects(which: int) -> np.ndarray:
        own, other = rng.normal(0, world.people[which], (2, len(names)))
        of_people = np.where(people.issame, own[persons[:, 0]], other[persons].sum(1) / 2**0.5)
        return of_people + rng.normal(0, world.pairs[which], len(persons))

    def method(common: np.ndarray) -> np.ndarray:
        own = common + effects(1)
        moved = rng.normal(0, world.trainings, seeds)
        rows = [own + effects(2) + shift * people.issame for shift in moved]
        return np.clip(rows, -1, 1)

    while True:
        common = 0.42 * people.issame + effects(0)
        yield method(common), method(common)


def judged(found: Sequence[Estimate]) -> dict[str, float]:
    """How often p is below 0.05, and the standard errors against how far the values spread."""
    spread = np.std([each.value for each in found])
    return {
        "studies": len(found),
        "p below 0.05": float(np.mean([each.p < 0.05 for each in found])),
        "standard error / true": float(np.mean([each.std**2 for each in found]) ** 0.5 / spread),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--drawn", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 3])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    people, _, _ = read_people(RUNS, "real", "dev")
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "worlds": {},
    }
    for name, world in WORLDS.items():
        for seeds in args.seeds:
            each = studies(world, people, seeds, np.random.default_rng(1))
            closed, drawn = [], []
            for number in range(args.studies):
                ours, theirs = next(each)
                closed.append(auc_difference([ours], [theirs], [people]))
                if number < args.drawn:
                    bootstrap = Bootstrap([people], draws=200)
                    one, other = (bootstrap.resample([s], one_minus_auc) for s in (ours, theirs))
                    drawn.append(difference(one, other))
            found = {"closed": judged(closed)} | ({"drawn": judged(drawn)} if drawn else {})
            report["worlds"].setdefault(name, {})[f"{seeds} seeds"] = found
            print(f"{name}, {seeds} seeds: {json.dumps(found)}", flush=True)
    if args.json:
        write_text(args.json, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
