"""Faces of made people, and a model of no weights that tells them apart a little."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from arcface_cakd.evaluation import Embedder
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, invert_affine, transform_points

SIDE = 7  # of the patterns


def pattern(person: int, image: int, noise: float = 60.0) -> np.ndarray:
    """A coarse pattern of a person, and noise of an image: float64 (7, 7, 3)."""
    own = np.random.default_rng([1, person]).uniform(40, 215, (SIDE, SIDE, 3))
    return own + np.random.default_rng([2, person, image]).normal(0, noise, own.shape)


def crop(person: int, image: int, noise: float = 60.0) -> np.ndarray:
    """An aligned face, uint8 (112, 112, 3)."""
    coarse = pattern(person, image, noise).clip(0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((112, 112), Image.Resampling.BICUBIC))


def save(path: Path, image: np.ndarray) -> Path:
    """A PNG, in a folder that is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "PNG", compress_level=1)
    return path


def photograph(face: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of a face that is turned and off the centre, and its landmarks (5, 2)."""
    random = np.random.default_rng(seed)
    turn, scale = random.uniform(-0.4, 0.4), random.uniform(0.8, 1.4)
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    place = random.uniform(60, 110, 2)
    to_picture = np.column_stack([linear, place - linear @ [55.5, 55.5]])
    back = invert_affine(to_picture)
    back[:, 2] += 0.5 - 0.5 * back[:, :2].sum(axis=1)  # Pillow counts from corners
    picture = Image.fromarray(face).transform(
        (170, 180), Image.Transform.AFFINE, tuple(back.ravel()), Image.Resampling.BILINEAR
    )
    return np.asarray(picture), transform_points(to_picture, ARCFACE_TEMPLATE.astype(np.float64))


def means(images: Tensor) -> Tensor:
    """(B, 147): the mean colours of 7 x 7 fields, less the mean over them."""
    fields = torch.nn.functional.adaptive_avg_pool2d(images, SIDE).flatten(1)
    return fields - fields.mean(dim=1, keepdim=True)


EMBEDDER = Embedder(means, batch_size=64)


def embedding(face: np.ndarray) -> np.ndarray:
    """What ``EMBEDDER`` gives a face, by numpy in float64: (147,), the mirror image's added."""

    def of(pixels: np.ndarray) -> np.ndarray:
        scaled = pixels.astype(np.float64) / 127.5 - 1
        fields = scaled.reshape(SIDE, 16, SIDE, 16, 3).mean(axis=(1, 3)).transpose(2, 0, 1).ravel()
        return fields - fields.mean()

    return of(face) + of(face[:, ::-1])
