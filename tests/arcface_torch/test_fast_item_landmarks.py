"""Landmarks ride from the items to the distiller, beside labels that are the host's."""

import io
import shutil

import numpy as np
import pytest
import torch
from easydict import EasyDict as edict
from helpers.host import HostRun
from helpers.host_items import COUNT, SETS, loader_over
from PIL import Image
from torch import nn
from torchvision.transforms import functional as F

from arcface_cakd.arcface_torch import distill, faster_items, labels, total_loss
from arcface_cakd.backbones import get_model
from arcface_cakd.data import get_dataloader
from arcface_cakd.landmarks import ARCFACE_TEMPLATE, mirror

ENTRY = edict(
    teacher=edict(network="swin_mini", weights="random"),
    urfm=edict(num_centers=4, num_heads=2, landmarks="image"),
)
CFG = edict(
    network="r10_narrow",
    embedding_size=16,
    num_classes=5,
    num_image=20,
    num_epoch=2,
    batch_size=5,
    fp16=False,
    frequent=1,
    resume=False,
    cakd=ENTRY,
)

# Keeps, of every training forward, the images and the landmarks that URFM was given.
SPY = """
import os
import torch
from arcface_cakd.alignment import URFM
from arcface_cakd.arcface_torch.host_distiller import HostDistiller

seen = []
into_distiller, into_urfm = HostDistiller.forward, URFM.forward


def distiller_forward(self, images, landmarks=None):
    if self.training:
        seen.append([images.clone()])
    return into_distiller(self, images, landmarks)


def urfm_forward(self, student, teacher, landmarks=None):
    seen[-1].append(landmarks.clone())
    torch.save(seen, os.environ["SPY"] + os.environ.get("RANK", "0"))
    return into_urfm(self, student, teacher, landmarks)


HostDistiller.forward, URFM.forward = distiller_forward, urfm_forward
"""


def write_landmarks(folder, count):
    noise = np.random.default_rng(count).normal(0, 6, (count, 5, 2))
    faces = (ARCFACE_TEMPLATE + noise).astype(np.float32)
    np.save(folder / "train_landmarks.npy", faces)
    return faces


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["array", "flag 0"])
def test_images_and_labels_stay_the_hosts(tmp_path, kind, workers):
    dataset = SETS[kind](tmp_path)
    faces = write_landmarks(tmp_path, COUNT)

    def epoch(loader):
        torch.manual_seed(5)
        return list(loader)

    loader = faster_items(loader_over(dataset, workers), edict(cakd=ENTRY))
    rows = {key: row for row, key in enumerate(sorted(dataset.imgidx.tolist()))}
    backbone = distill(get_model("r10_narrow", num_features=16), CFG)
    order = torch.Generator().manual_seed(3)
    keys = dataset.imgidx[torch.randperm(COUNT, generator=order).numpy()].tolist()
    for (images, numbers), (expected, expected_labels) in zip(
        epoch(loader), epoch(loader_over(dataset, workers)), strict=True
    ):
        assert torch.equal(images, expected)
        assert numbers.dtype == torch.float64 and numbers.shape == (6, 11)
        kept = labels(backbone, numbers)
        assert kept.dtype == torch.int64 and torch.equal(kept, expected_labels)
        for image, face in zip(images, backbone._landmarks, strict=True):
            key = keys.pop(0)
            plain = Image.open(io.BytesIO(dataset.images[key][1])).convert("RGB")
            plain = F.normalize(F.to_tensor(plain), [0.5] * 3, [0.5] * 3)
            own = faces[rows[key]] if torch.equal(image, plain) else mirror(faces[rows[key]])
            np.testing.assert_array_equal(face.numpy(), own)


def test_plain_labels_pass_through():
    several = [torch.zeros(4, width) for width in (1, 2, 3, 11, 13)]  # as a fork may have them
    for given in (torch.arange(4), *several):
        assert labels(nn.Identity(), given) is given
    backbone = distill(get_model("r10_narrow", num_features=16), CFG)  # learns by landmarks alone
    for given in (torch.arange(4), *several[:3], several[4]):
        assert labels(backbone, given) is given


def test_each_step_uses_up_its_landmarks(capsys):
    backbone = distill(get_model("r10_narrow", num_features=16), CFG).train()
    images = torch.randn(2, 3, 112, 112)
    riding = torch.cat([torch.tensor([[0.0], [1.0]]), torch.rand(2, 10) * 112], dim=1).double()
    kept = labels(backbone, riding)
    backbone(images)
    assert total_loss(torch.tensor(1.0), backbone, kept, None) > 1
    with pytest.raises(SystemExit):
        backbone(images)
    said = capsys.readouterr().err
    assert "this train_v2.py does not hand them over: update it" in said and said.count("\n") == 1


def test_data_that_cannot_carry_them_ends_the_program_with_one_line(tmp_path, capsys):
    class DALIWarper:
        pass

    with pytest.raises(SystemExit):
        faster_items(DALIWarper(), edict(cakd=ENTRY))
    said = capsys.readouterr().err
    assert 'cakd.urfm.landmarks="image" cannot be had here: a DALIWarper is not' in said
    with pytest.raises(SystemExit):
        faster_items(loader_over(SETS["scalar"](tmp_path)), edict(cakd=ENTRY))
    assert "train_landmarks.npy: no such file" in capsys.readouterr().err


def test_a_host_patched_before_they_rode_with_the_labels_ends_with_one_line(
    host, teacher, tmp_path, few_records
):
    data = shutil.copytree(few_records, tmp_path / "faces")
    write_landmarks(data, 12)
    script = host.folder / "train_v2.py"
    patched = script.read_text()
    line = "            local_labels = cakd.labels(backbone, local_labels)\n"
    assert line in patched
    script.write_text(patched.replace(line, ""))
    cakd = {"teacher": {"network": "swin_mini", "weights": teacher}, "urfm": dict(ENTRY.urfm)}
    settings = {"rec": data, "num_classes": 3, "num_image": 12, "batch_size": 2}
    try:
        run = host.train("older_patch", check=False, cakd=cakd, **settings)
    finally:
        script.write_text(patched)
    assert run.code == 1
    said = [line for line in run.err.splitlines() if "arcface-cakd: error" in line]
    assert len(said) == 1 and "update it with `arcface-cakd patch`" in said[0]
    assert "Traceback" not in run.err


def test_in_the_real_host(host, teacher, tmp_path, few_records):
    data = shutil.copytree(few_records, tmp_path / "faces")
    faces = write_landmarks(data, 12)
    (tmp_path / "spy_landmarks.py").write_text(SPY)
    env = {"PYTHONPATH": str(tmp_path), "SPY": str(tmp_path / "seen")}
    cakd = {"teacher": {"network": "swin_mini", "weights": teacher}, "urfm": dict(ENTRY.urfm)}
    settings = {"rec": data, "num_classes": 3, "num_image": 12, "batch_size": 2}
    run: HostRun = host.train(
        "landmarks", processes=2, env=env, before="import spy_landmarks", cakd=cakd, **settings
    )
    assert len(run.losses) == 3
    plain = [None] * 12
    # Our own loader, which other tests hold to the file, tells which image has which row.
    for images, _, landmarks in get_dataloader(data, 1, seed=0, num_workers=0, landmarks=True):
        for row, face in enumerate(faces):
            if np.array_equal(landmarks[0], face):
                plain[row] = images[0]
            elif np.array_equal(landmarks[0], mirror(face)):
                plain[row] = images[0].flip(2)
    rows = []
    for rank in range(2):
        for images, landmarks in torch.load(tmp_path / f"seen{rank}"):
            assert landmarks.shape == (2, 5, 2)
            for image, own in zip(images, landmarks.numpy(), strict=True):
                for row, original in enumerate(plain):
                    for flipped in (False, True):
                        there = original.flip(2) if flipped else original
                        if torch.allclose(image, there, atol=1e-5):
                            expected = mirror(faces[row]) if flipped else faces[row]
                            np.testing.assert_array_equal(own, expected)
                            rows.append(row)
    assert sorted(rows) == list(range(12))
