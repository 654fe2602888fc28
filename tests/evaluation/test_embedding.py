import numpy as np
import pytest
import torch
from torch import nn

from arcface_cakd.evaluation import EvaluationError, embed


class Small(nn.Module):
    """Sensitive to place, channel order, mirroring and mode."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.convolution = nn.Conv2d(3, 4, 16, 16)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(4 * 7 * 7, 6)
        self.batches = []

    def forward(self, images):
        self.batches.append(len(images))
        return self.linear(self.dropout(self.norm(self.convolution(images))).flatten(1))


def faces(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


def one_by_one(model, images):
    """Each image on its own, through float64 copies of the weights."""
    model = Small().double().eval().requires_grad_(False) if model is None else model
    rows = []
    for image in images:
        pixels = (image.astype(np.float64) / 127.5 - 1).transpose(2, 0, 1)[None]
        rows.append(model(torch.from_numpy(pixels.copy()))[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_an_image_and_its_mirror_image_are_added(batch_size):
    images = faces(7)
    expected = one_by_one(None, images) + one_by_one(None, images[:, :, ::-1])
    found = embed(Small(), images, batch_size)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_without_flip_it_is_the_image_alone():
    images = faces(5, seed=1)
    np.testing.assert_allclose(
        embed(Small(), images, 2, flip=False), one_by_one(None, images), atol=2e-6
    )


def test_no_more_than_a_batch_is_converted_at_a_time():
    model = Small()
    embed(model, faces(7), 3)
    assert model.batches == [3, 3, 3, 3, 1, 1]


def test_every_part_gets_its_mode_back_and_nothing_else_changes():
    model = Small().train()
    model.norm.eval()  # a part that is frozen
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    embed(model, faces(4))
    assert [module.training for module in model.modules()] == modes
    assert len(set(modes)) == 2
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_modes_come_back_after_a_failure():
    class Failing(Small):
        def forward(self, images):
            raise RuntimeError("broken")

    model = Failing().train()
    with pytest.raises(RuntimeError, match="broken"):
        embed(model, faces(2))
    assert all(module.training for module in model.modules())


def test_read_only_images_do():
    images = faces(2)
    images.flags.writeable = False
    assert embed(Small(), images).shape == (2, 6)


@pytest.mark.parametrize(
    "images",
    [faces(2).astype(np.float32), faces(2)[:, :100], faces(2)[0], faces(2)[..., :1], faces(0)],
    ids=["float", "height", "one image", "grey", "none"],
)
def test_other_images_are_refused(images):
    with pytest.raises(EvaluationError) as caught:
        embed(Small(), images)
    assert "\n" not in str(caught.value)
