"""Models that tell nobody apart: every protocol refuses each in one line, before any figure."""

import io

import numpy as np
import pytest
import torch
from helpers.people_faces import crop, save
from helpers.template_sets import make_templates
from PIL import Image

from arcface_cakd.data import write_bin
from arcface_cakd.evaluation import Embedder, EvaluationError
from arcface_cakd.registry import PROTOCOLS


def encoded(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def bin_set(folder):
    """Ten pairs of one person and ten of two."""
    pairs = [(k, k if k % 2 else k + 1) for k in range(20)]
    faces = [encoded(crop(person, image)) for pair in pairs for image, person in enumerate(pair)]
    folder.mkdir()
    write_bin(folder / "own.bin", faces, [one == other for one, other in pairs])
    return folder


def rfw(folder):
    lines = [f"m.{k}\t1\t2" if k % 2 else f"m.{k}\t1\tm.{k + 1}\t1" for k in range(20)]
    for person in range(21):
        for k in (1, 2):
            save(folder / f"data/Asian/m.{person}/m.{person}_000{k}.jpg", crop(person, k))
    (folder / "txts/Asian").mkdir(parents=True)
    (folder / "txts/Asian/Asian_pairs.txt").write_text("\n".join(lines) + "\n")
    return folder


def people(folder, name="p{}/{}.png"):
    for person in range(3):
        for k in range(2):
            save(folder / name.format(person, k), crop(person, k))
    return folder


def megaface(folder):
    people(folder / "facescrub_images")
    people(folder / "megaface_images")
    return folder


def tinyface(folder):
    for kind in ("Probe", "Gallery_Match", "Gallery_Distractor"):
        people(folder / kind, "{}_{}.jpg")
    return folder


def templates(folder):
    return make_templates(folder, people=4, probes=2).folder


SETS = {
    "all_pairs": people,
    "bin": bin_set,
    "ijb": templates,
    "ijb_1n": templates,
    "megaface": megaface,
    "rfw": rfw,
    "tinyface": tinyface,
}


def constant(images):
    return torch.ones(len(images), 8)


def nothing(images):
    return torch.zeros(len(images), 8)


def diverged(images):
    return torch.full((len(images), 8), float("nan"))


def one_diverged(images):
    found = images.flatten(1)[:, ::700]
    found[0] = float("inf")
    return found


@pytest.mark.parametrize("name", PROTOCOLS.names())
def test_it_is_refused(name, tmp_path):
    protocol = PROTOCOLS.get(name)([SETS[name](tmp_path / "set")])
    for model, said in (
        (constant, "are the same"),
        (nothing, "are the same|have no direction"),
        (diverged, "are not finite"),
        (one_diverged, "1 of .* are not finite, the first is number"),
    ):
        with np.errstate(all="raise"), pytest.raises(EvaluationError, match=said) as raised:
            protocol.judge(Embedder(model), draws=0)
        assert "\n" not in str(raised.value)
        assert "set" in str(raised.value)
