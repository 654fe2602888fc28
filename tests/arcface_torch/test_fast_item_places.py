"""Places and flips ride from the items to the distiller, which reads the cache by them."""

import copy
import io

import numpy as np
import pytest
import torch
from easydict import EasyDict as edict
from helpers.host_items import COUNT, SETS, loader_over
from PIL import Image
from torchvision.transforms import functional as F

from arcface_cakd.arcface_torch import check_teacher, distill, faster_items, labels, total_loss
from arcface_cakd.backbones import get_model


def cfg_for(folder, cache, **entry):
    cakd = edict(
        teacher=edict(network="swin_mini", weights="random", cache=str(cache)),
        prompts=None,
        urfm=None,
        **entry,
    )
    return edict(
        rec=str(folder),
        output=str(cache.parent / "out"),
        network="r10_narrow",
        embedding_size=16,
        num_classes=5,
        num_image=20,
        num_epoch=2,
        fp16=False,
        frequent=1,
        resume=False,
        batch_size=6,
        num_workers=0,
        val_targets=[],
        cakd=cakd,
    )


@pytest.mark.parametrize("kind", ["array", "flag 0"])
def test_each_image_gets_what_the_teacher_says_of_it(tmp_path, kind):
    """The embedding that losses see, against the teacher on the image as the host flipped it."""
    (tmp_path / "faces").mkdir()
    dataset = SETS[kind](tmp_path / "faces")
    cfg = cfg_for(tmp_path / "faces", tmp_path / "cache")
    backbone = distill(get_model("r10_narrow", num_features=16), cfg).train()
    teacher = copy.deepcopy(backbone.teacher)
    check_teacher(cfg, backbone)
    assert all(p.is_meta for p in backbone.teacher.parameters())  # none of its weights is left

    def epoch(loader):
        torch.manual_seed(5)
        return list(loader)

    host = epoch(loader_over(dataset))
    ours = epoch(faster_items(loader_over(dataset), cfg))
    assert len(ours) == len(host) == COUNT // 6
    flips = set()
    for (images, numbers), (expected, expected_labels) in zip(ours, host, strict=True):
        assert torch.equal(images, expected)
        assert numbers.dtype == torch.float64 and numbers.shape == (6, 3)
        flips |= set(numbers[:, 2].tolist())
        kept = labels(backbone, numbers)
        assert kept.dtype == torch.int64 and torch.equal(kept, expected_labels)
        backbone(images)
        known = backbone._pending.teacher
        assert total_loss(torch.tensor(1.0), backbone, kept, None) > 1
        with torch.no_grad():
            said = teacher(images)
        torch.testing.assert_close(known.embedding, said, rtol=1e-3, atol=1e-4)
    assert flips == {0.0, 1.0}


def test_places_are_those_of_the_keys_in_order(tmp_path):
    dataset = SETS["flag 0"](tmp_path)
    cfg = cfg_for(tmp_path, tmp_path / "cache")
    ordered = sorted(dataset.images)
    for images, numbers in faster_items(loader_over(dataset), cfg):
        for image, (_, place, flip) in zip(images, numbers.tolist(), strict=True):
            stored = dataset.images[ordered[int(place)]][1]
            plain = F.to_tensor(Image.open(io.BytesIO(stored)).convert("RGB"))
            plain = F.normalize(plain, [0.5] * 3, [0.5] * 3)
            assert torch.equal(image, plain.flip(-1) if flip else plain)


def test_landmarks_ride_before_them(tmp_path):
    dataset = SETS["scalar"](tmp_path)
    np.save(tmp_path / "train_landmarks.npy", np.full((COUNT, 5, 2), 56.0, dtype=np.float32))
    cfg = cfg_for(tmp_path, tmp_path / "cache")
    cfg.cakd.urfm = edict(num_centers=4, num_heads=2, landmarks="image")
    backbone = distill(get_model("r10_narrow", num_features=16), cfg).train()
    _, numbers = next(iter(faster_items(loader_over(dataset), cfg)))
    assert numbers.shape == (6, 13)
    labels(backbone, numbers)
    assert torch.equal(backbone._places, numbers[:, 11:])
    assert torch.equal(backbone._landmarks, numbers[:, 1:11].reshape(6, 5, 2))


def error_of(capsys, function, *args) -> str:
    with pytest.raises(SystemExit):
        function(*args)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_what_cannot_be_had_ends_the_program_with_one_line(tmp_path, capsys):
    class DALIWarper:
        pass

    cfg = cfg_for(tmp_path, tmp_path / "cache")
    said = error_of(capsys, faster_items, DALIWarper(), cfg)
    assert "cakd.teacher.cache cannot be had here: a DALIWarper is not" in said

    dataset = SETS["scalar"](tmp_path)
    dataset.imgidx = dataset.imgidx[1:]
    said = error_of(capsys, faster_items, loader_over(dataset), cfg)
    assert "this arcface_torch takes other images of" in said

    backbone = distill(get_model("r10_narrow", num_features=16), cfg).train()
    said = error_of(capsys, backbone, torch.randn(2, 3, 112, 112))
    assert "cakd.teacher.cache needs to know which image is which" in said

    cfg.cakd.teacher.cached_views = 2
    said = error_of(capsys, faster_items, loader_over(dataset), cfg)
    assert "cakd.teacher.cached_views counts views that config.augment makes" in said
    said = error_of(capsys, faster_items, loader_over(dataset), edict(augment=edict(crop=0.5)))
    assert "config.augment is of arcface-cakd train" in said
    loader = loader_over(dataset)
    assert faster_items(loader, edict(augment="a fork's own")) is loader
