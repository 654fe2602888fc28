"""The facial positional encoding as it is before training: distances, rows, receptive fields.

    python eval/encoding.py encoding --json eval/results/encoding.json
    python eval/encoding.py encoding --set face_distance=saliency placing=landmarks
    python eval/encoding.py encoding --landmarks DATA --image 7

For grids of 7x7, 12x12 (arcface_torch's ViT, 108 of the crop's 112 pixels) and 14x14 patches it
draws, for the local centres nearest to three landmarks, how far every patch is (Euclidean
distance, weighted facial term, their sum D), the row of the table that each patch looks up, and
the initial receptive fields of the first and the last head; and how many pairs of centre and
patch, or of centre and anchor, each row holds. It prints and writes those numbers, with the
correlation of the relative (RD) and the saliency distance (SD) with the Euclidean one, and the
radius of each head's receptive fields. With ``--landmarks`` all this is by the landmarks of one
image of a training set, as ``urfm.landmarks="image"`` has it, in place of the template's.
"""

import argparse
import ast
import contextlib
import json
import shlex
import sys
from pathlib import Path

import torch
from torch import Tensor

from arcface_cakd.alignment import URFM
from arcface_cakd.alignment import geometry as face
from arcface_cakd.config import ConfigError, check_settings
from arcface_cakd.data import DataError, FaceLandmarks
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.files import atomic_path, write_text
from arcface_cakd.landmarks import ARCFACE_TEMPLATE
from arcface_cakd.plots import LANDMARK_NAMES

# Patches a side, and the pixels of the crop that they cover.
GRIDS = {(7, 7): 112, (12, 12): 108, (14, 14): 112}
DRAWN = (0, 2, 4)  # a landmark of each height

_WIDTH = 256


def read_settings(pairs: list[str]) -> dict:
    """Settings of URFM, complete and checked, from ``key=value`` texts."""
    given = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair}: write key=value")
        with contextlib.suppress(ValueError, SyntaxError):  # else it is a string, as a path is
            value = ast.literal_eval(value)
        section, dot, inner = key.partition(".")
        if dot and isinstance(given.setdefault(section, {}), dict):
            given[section][inner] = value
        else:
            given[key] = value
    settings = check_settings(URFM, given, "urfm")
    if settings["saliency_map"] == "teacher":
        raise ConfigError(
            'urfm.saliency_map="teacher" is estimated in training: give a .npy file here'
        )
    return settings


def read_landmarks(folder: Path, image: int) -> Tensor:
    """The landmarks of an image of a data set, (5, 2) float64."""
    landmarks = FaceLandmarks(folder)
    if not 0 <= image < len(landmarks):
        raise DataError(f"--image {image}: {landmarks.path} has images 0 to {len(landmarks) - 1}")
    return torch.from_numpy(landmarks[image]).double()


class Encoding:
    """URFM's encoding of one grid, and the distances that it was built from."""

    def __init__(
        self,
        grid: tuple[int, int],
        extent: float,
        settings: dict,
        landmarks: Tensor | None = None,
    ):
        torch.manual_seed(0)
        self.grid, self.extent = grid, extent
        # By content, for the anchor's term is the query's; of any width, for no token passes.
        width = settings["dim"] or _WIDTH
        self.urfm = URFM(1, grid, width, grid, extent, extent, **{**settings, "lookup": "content"})
        self.map = None
        if settings["saliency_map"] is not None:
            self.map = face.read_saliency_map(settings["saliency_map"])
        layout, batch = self.urfm.layout, None if landmarks is None else landmarks[None]
        self.landmarks = torch.tensor(ARCFACE_TEMPLATE).double() if batch is None else landmarks
        count, placing = settings["num_centers"], settings["placing"]
        self.centers = face.center_places(count, placing, self.landmarks)
        self.anchors = face.anchor_places(settings["anchor"], self.landmarks)
        self.patches = layout.places["student"]
        self.euclidean = face.euclidean_distance(self.centers, self.patches)
        self.distances = {
            name: distance.view(len(self.centers), -1)
            for name, distance in (
                ("anchor", layout.to_anchors(batch)),
                ("pair", layout.to_patches("student", batch)),
            )
        }
        self.total = self.distances["pair"]

    @torch.no_grad()
    def receptive_fields(self) -> Tensor:
        """(heads, L, N): each head's attention if all patches looked the same."""
        mapping = self.urfm.teacher
        if mapping.pair_encoding is None:
            shape = (mapping.num_heads, len(self.centers), len(self.patches))
            return torch.full(shape, 1 / len(self.patches))
        rows = mapping.pair_encoding.pif(self.total[None])
        return mapping.pair_encoding(index=rows)[0].softmax(-1)

    def rows(self) -> dict:
        """By what is looked up: the constants of the index function, and the pairs in each row."""
        found = {}
        for name in ("anchor", "pair"):
            encoding = getattr(self.urfm.teacher, f"{name}_encoding")
            found[name] = None
            if encoding is not None:
                pif = encoding.pif
                pairs = torch.bincount(pif(self.distances[name]).flatten(), minlength=pif.rows)
                found[name] = {
                    "alpha": pif.alpha,
                    "beta": pif.beta,
                    "gamma": pif.gamma,
                    "pairs_in_row": pairs.tolist(),
                    "largest_share": pairs.max().item() / pairs.sum().item(),
                    "empty_rows": (pairs == 0).sum().item(),
                }
        return found

    def figures(self) -> dict:
        """What the JSON says of this grid."""
        places = {"patches": self.patches, "anchor": self.anchors}
        given = self.map, self.landmarks
        correlation = {
            kind: {
                name: face.correlation_with_euclidean(self.centers, others, kind, *given)
                for name, others in places.items()
            }
            for kind in ("relative", "saliency")
        }
        squared = (self.euclidean * face.UNIT).square()
        radii = (self.receptive_fields() * squared).sum(-1).sqrt().mean(-1)
        return {
            "grid": list(self.grid),
            "extent": self.extent,
            "correlation_with_euclidean": correlation,
            "largest_distance": {
                "euclidean": float(self.euclidean.max()),
                "face": float((self.total - self.euclidean).max()),
                "sum": float(self.total.max()),
            },
            "rows": self.rows(),
            "radius_of_heads_in_pixels": radii.tolist(),
        }


def draw(encodings: list[Encoding], path: Path) -> None:
    """One block a grid: a line for each drawn centre, and the rows' occupancy beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 6 * len(encodings)), layout="constrained")
    blocks = figure.subfigures(len(encodings), 1, squeeze=False)[:, 0]
    for block, encoding in zip(blocks, encodings, strict=True):
        block.suptitle("{} x {} patches".format(*encoding.grid))
        maps, bars = block.subfigures(1, 2, width_ratios=(3, 1))
        _draw_maps(maps, encoding)
        axes = bars.subplots(2, 1)
        for axis, (name, rows) in zip(axes, encoding.rows().items(), strict=True):
            if rows is None:
                axis.set_axis_off()
                continue
            axis.bar(range(len(rows["pairs_in_row"])), rows["pairs_in_row"], color="tab:gray")
            others = {"anchor": "anchor", "pair": "patch"}[name]
            axis.set(title=f"pairs of centre and {others}", xlabel="row of the table")
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=80)


def _draw_maps(figure, encoding: Encoding) -> None:
    centers = face.euclidean_distance(encoding.landmarks, encoding.centers).argmin(dim=1)
    fields, pairs = encoding.receptive_fields(), encoding.urfm.student.pair_encoding
    panels = {
        "Euclidean": encoding.euclidean,
        "facial term": encoding.total - encoding.euclidean,
        "D": encoding.total,
        "row": torch.zeros_like(encoding.total) if pairs is None else pairs.pif(encoding.total),
        "field, first head": fields[0],
        "field, last head": fields[-1],
    }
    edge = encoding.extent - 0.5
    axes = figure.subplots(len(DRAWN), len(panels))
    for line, landmark in zip(axes, DRAWN, strict=True):
        center = centers[landmark]
        for axis, (title, values) in zip(line, panels.items(), strict=True):
            shown = axis.imshow(
                values[center].reshape(encoding.grid).numpy(),
                extent=(-0.5, edge, edge, -0.5),
                cmap="inferno" if "field" in title else "viridis",
            )
            figure.colorbar(shown, ax=axis, shrink=0.6)
            axis.plot(*encoding.landmarks.T.tolist(), "w+", markersize=6)
            axis.plot(*encoding.centers[center].tolist(), "ro", markersize=4)
            axis.set(xticks=[], yticks=[], xlim=(-0.5, 111.5), ylim=(111.5, -0.5))
            if landmark == DRAWN[0]:
                axis.set_title(title, fontsize="small")
        line[0].set_ylabel(f"centre at {LANDMARK_NAMES[landmark]}", fontsize="small")


def table(grids: list[dict]) -> str:
    """The figures that matter, one line a grid."""
    lines = ["  grid    RD      SD    rows empty largest   alpha  beta gamma   radii of heads (px)"]
    for entry in grids:
        correlation = entry["correlation_with_euclidean"]
        rows = entry["rows"]["pair"] or entry["rows"]["anchor"]
        radii = entry["radius_of_heads_in_pixels"]
        lines.append(
            "{:>2}x{:<2} ".format(*entry["grid"])
            + "{:>7.3f} ".format(correlation["relative"]["patches"])
            + "{:>7.3f} ".format(correlation["saliency"]["patches"])
            + f"{len(rows['pairs_in_row']):>6} {rows['empty_rows']:>5} "
            + f"{rows['largest_share']:>7.1%} "
            + f"{rows['alpha']:>7.2f} {rows['beta']:>5.1f} {rows['gamma']:>5.2f}   "
            + f"{min(radii):.1f} to {max(radii):.1f}"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of encoding.png and .json")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of cakd.urfm")
    parser.add_argument("--landmarks", type=Path, metavar="DATA", help="data set with landmarks")
    parser.add_argument("--image", type=int, default=0, help="which of its images, from 0")
    parser.add_argument("--json", type=Path, metavar="FILE", help="in place of OUT/encoding.json")
    args = parser.parse_args(arguments)
    try:
        settings, landmarks = read_settings(args.set), None
        if args.landmarks is not None:
            landmarks = read_landmarks(args.landmarks, args.image)
            settings["landmarks"] = "image"
        encodings = [Encoding(grid, extent, settings, landmarks) for grid, extent in GRIDS.items()]
    except ArcfaceCakdError as error:
        parser.error(str(error))
    grids = [encoding.figures() for encoding in encodings]
    found = {
        "command": shlex.join(["python", "eval/encoding.py", *arguments]),
        "set": args.set,
        "grids": grids,
    }
    write_text(args.json or args.out / "encoding.json", json.dumps(found, indent=2) + "\n")
    draw(encodings, args.out / "encoding.png")
    print(table(grids))


if __name__ == "__main__":
    main(sys.argv[1:])
