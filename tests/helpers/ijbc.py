"""A made IJB-C of a few faces, and the scores that the host's protocol gives on it."""

import io
from pathlib import Path

import numpy as np
import torch
from helpers.record_sets import jpeg
from PIL import Image

from arcface_cakd.landmarks import ARCFACE_TEMPLATE

IMAGES, TEMPLATES = 9, 5


def make_ijbc(folder: Path) -> Path:
    """Nine images of five templates, their landmarks the template's: alignment changes nothing.

    Laid out as IJB-C is, in a new folder.
    """
    for name in ("meta", "loose_crop"):
        (folder / name).mkdir(parents=True)
    landmarks = " ".join(str(number) for number in ARCFACE_TEMPLATE.ravel())
    rows = {"face_tid_mid": [], "name_5pts_score": [], "template_pair_label": []}
    for index in range(IMAGES):
        (folder / f"loose_crop/{index}.jpg").write_bytes(jpeg(index))
        rows["face_tid_mid"].append(f"{index}.jpg {index % TEMPLATES + 1} {index}")
        rows["name_5pts_score"].append(f"{index}.jpg {landmarks} {0.5 + index / 20}")
    for first, second in pairs():
        rows["template_pair_label"].append(f"{first + 1} {second + 1} {(first + second) % 2}")
    for name, lines in rows.items():
        (folder / f"meta/ijbc_{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def pairs() -> list[tuple[int, int]]:
    return [(a, b) for a in range(TEMPLATES) for b in range(a + 1, TEMPLATES)]


def face_image(seed: int) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(jpeg(seed))))


@torch.no_grad()
def embed(net, images: np.ndarray) -> np.ndarray:
    return net(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1).numpy()


def wanted_scores(net) -> np.ndarray:
    """IJB-C's protocol as the host sets it: flips added, detector scores as weights."""
    images = np.stack([face_image(index) for index in range(IMAGES)])
    features = embed(net, images) + embed(net, images[:, :, ::-1].copy())
    features *= 0.5 + np.arange(IMAGES)[:, None] / 20
    templates = np.stack([features[index::TEMPLATES].sum(0) for index in range(TEMPLATES)])
    templates /= np.linalg.norm(templates, axis=1, keepdims=True)
    return np.array([templates[a] @ templates[b] for a, b in pairs()])
