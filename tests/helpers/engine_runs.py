"""Tiny networks and made data for the tests of the loop; also imported by spawned ranks."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from arcface_cakd.backbones import FaceBackbone, get_model
from arcface_cakd.config import CakdConfig, TrainConfig
from arcface_cakd.data import write_bin
from arcface_cakd.recordio import IRHeader, MXIndexedRecordIO, pack
from arcface_cakd.registry import BACKBONES


class TinyFace(FaceBackbone):
    """Two convolutions to a 7x7 grid, with BatchNorm, and dropout where asked for."""

    token_dim = 8
    grid = (7, 7)
    stage_dims = (6, 8)

    def __init__(self, embedding_size: int, dropout: float, fp16: bool = False):
        super().__init__()
        self.amp_dtype = torch.float16 if fp16 else None
        self.embedding_size = embedding_size
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.norm = nn.BatchNorm2d(6)
        self.down = nn.Conv2d(6, 8, 4, stride=4)
        self.drop = nn.Dropout(dropout)
        self.fc = nn.Linear(8 * 49, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)

    def body(self, images):
        first = torch.relu(self.norm(self.stem(images)))
        second = self.down(first)
        return second, (first, second)

    def head(self, final):
        return self.features(self.fc(self.drop(final.flatten(1))))


class PlainFace(FaceBackbone):
    """No BatchNorm: what an image becomes does not depend on the others of its batch."""

    token_dim = 8
    grid = (7, 7)
    stage_dims = (8,)

    def __init__(self, embedding_size: int, fp16: bool = False):
        super().__init__()
        self.amp_dtype = torch.float16 if fp16 else None
        self.embedding_size = embedding_size
        self.stem = nn.Conv2d(3, 8, 16, stride=16)
        self.fc = nn.Linear(8 * 49, embedding_size)

    def body(self, images):
        final = torch.tanh(self.stem(images))
        return final, (final,)

    def head(self, final):
        return self.fc(final.flatten(1))


@BACKBONES.register("test_tiny")
def test_tiny(dropout=0.0, fp16=False, num_features=512):
    return TinyFace(num_features, dropout, fp16)


@BACKBONES.register("test_tiny_dropout")
def test_tiny_dropout(dropout=0.0, fp16=False, num_features=512):
    return TinyFace(num_features, 0.3, fp16)


@BACKBONES.register("test_plain")
def test_plain(dropout=0.0, fp16=False, num_features=512):
    return PlainFace(num_features, fp16)


# pytest must not take the factories for tests where a module imports them.
test_tiny.__test__ = test_tiny_dropout.__test__ = test_plain.__test__ = False


def save_teacher(path: Path, seed: int, name: str = "swin_mini") -> None:
    """Weights of a teacher with 16 features; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.save(get_model(name, num_features=16).state_dict(), path)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return stream.getvalue()


def made_face(identity: int, number: int) -> np.ndarray:
    """(112, 112, 3) uint8: a coarse pattern per identity, and noise per image."""
    pattern = np.random.default_rng(identity).integers(40, 216, (7, 7, 3))
    noise = np.random.default_rng((identity, number)).integers(-40, 40, (112, 112, 3))
    return (np.kron(pattern, np.ones((16, 16, 1))) + noise).clip(0, 255).astype(np.uint8)


def mirrored_face(identity: int, number: int) -> np.ndarray:
    """``made_face`` whose right half is the left one's mirror image: no flip changes it."""
    half = made_face(identity, number)[:, :56]
    return np.concatenate([half, half[:, ::-1]], axis=1)


def make_faces(
    folder: Path,
    identities: int = 6,
    images: int = 6,
    pairs: int = 12,
    face: Callable[[int, int], np.ndarray] = made_face,
) -> Path:
    """A record set and ``lfw.bin`` of made faces, as insightface lays them out."""
    folder.mkdir(parents=True)
    writer = MXIndexedRecordIO(str(folder / "train.idx"), str(folder / "train.rec"), "w")
    count = identities * images
    writer.write_idx(0, pack(IRHeader(2, [count + 1, count + 1 + identities], 0, 0), b""))
    for key in range(1, count + 1):
        identity, number = divmod(key - 1, images)
        encoded = png(face(identity, number))
        writer.write_idx(key, pack(IRHeader(0, float(identity), key, 0), encoded))
    for identity in range(identities):
        first = 1 + identity * images
        header = IRHeader(2, [first, first + images], 0, 0)
        writer.write_idx(count + 1 + identity, pack(header, b""))
    writer.close()
    (folder / "property").write_text(f"{identities},112,112\n")
    faces, issame = [], []
    for pair in range(pairs):
        same = pair % 2 == 0
        faces += [png(face(100 + pair, 0)), png(face(100 + pair + (not same), 1))]
        issame.append(same)
    write_bin(folder / "lfw.bin", faces, issame)
    return folder


def small_config(rec: Path, output: Path, **settings) -> TrainConfig:
    """A run of 36 images in 9 batches of 4 an epoch, in a second or so."""
    defaults = dict(
        network="test_tiny",
        embedding_size=16,
        batch_size=4,
        num_epoch=2,
        lr=0.05,
        margin_list=(1.0, 0.0, 0.2),
        margin_scale=16.0,
        num_workers=0,
        val_targets=(),
        frequent=4,
        seed=3,
    )
    return TrainConfig(rec=str(rec), output=str(output), **{**defaults, **settings})


def small_cakd(**entry) -> CakdConfig:
    """The whole method, at the smallest sizes, from a random teacher."""
    defaults = dict(
        teacher=dict(network="swin_mini", weights="random"),
        prompts=dict(num_tokens=2),
        urfm=dict(num_centers=4, num_heads=2),
    )
    return CakdConfig.from_entry({**defaults, **entry})


def assert_same_state(left, right, where: str = "") -> None:
    """Nested dicts, lists, tensors and numbers are equal to the bit."""
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same_state(left[key], right[key], f"{where}/{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for i, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same_state(a, b, f"{where}/{i}")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    else:
        assert left == right, where
