"""A few images, and runs of the built-in loop on them, to take steps with."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from arcface_cakd.backbones import get_model
from arcface_cakd.config import CakdConfig, TrainConfig

CLASSES = 2
_STATISTICS = 8  # images that random weights have their statistics from
EMBEDDING_ONLY = {"prompts": None, "urfm": None, "losses": [{"name": "embedding_cosine"}]}


def make_faces(folder: Path, images: int) -> Path:
    """A folder of two people with at least ``images`` images of noise, which cost what faces do."""
    rng = np.random.default_rng(0)
    for number in range(images + images % 2):
        person = folder / "faces" / f"person_{number % CLASSES}"
        person.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(256, size=(112, 112, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(person / f"{number}.png")
    return folder / "faces"


def random_weights(folder: Path, network: str) -> Path:
    """A file of weights for a network, drawn at random: they cost what trained ones cost."""
    weights = folder / f"{network.replace(':', '_').replace('/', '_')}.pt"
    if not weights.exists():
        torch.manual_seed(0)
        model = get_model(network, num_features=512)
        learn_statistics(model, [images_and_labels(_STATISTICS)[0]])
        torch.save(model.state_dict(), weights)
    return weights


def learn_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Let the BatchNorms of random weights know the statistics of images, and put it in eval mode.

    Without, activations of a deep network grow from layer to layer, and embeddings leave the range
    of float16, in which a teacher's cache and exported files have them.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    with torch.no_grad():
        for images in batches:
            model(images)
    model.eval()


def train_config(faces: Path, network: str, batch_size: int, **settings: Any) -> TrainConfig:
    """A config of single steps: a learning rate that leaves the weights about where they are, so
    that many steps from one batch lead to no infinities, which would cost other than numbers do."""
    return TrainConfig(
        rec=str(faces), network=network, batch_size=batch_size, num_workers=0, lr=1e-5, **settings
    )


def distilling_config(
    faces: Path, network: str, batch_size: int, teacher: str, weights: Path, **entry: Any
) -> TrainConfig:
    """The same with a teacher, whose cache is in a folder beside its weights."""
    told = {"network": teacher, "weights": str(weights), "cache": str(weights.with_suffix(""))}
    cakd = CakdConfig.from_entry({"teacher": told, **entry})
    return train_config(faces, network, batch_size, cakd=cakd)


def images_and_labels(batch_size: int) -> tuple[Tensor, Tensor]:
    """A batch of noise, for loops that bring their own networks."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (batch_size, 3, 112, 112)).astype(np.float32)
    return torch.from_numpy(images), torch.from_numpy(rng.integers(CLASSES, size=batch_size))
