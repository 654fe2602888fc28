import numpy as np
import pytest
import torch

from arcface_cakd import plots
from arcface_cakd.alignment import LocalFeatures
from arcface_cakd.alignment.geometry import center_places
from arcface_cakd.backbones import get_model
from arcface_cakd.distiller import Distiller


def test_the_centres_of_landmarks_are_the_nearest_ones():
    for side in (5, 7, 8):
        step = 112 / side
        ticks = (np.arange(side) + 0.5) * step
        places = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
        found = plots.landmark_centers(places)
        for index, (x, y) in zip(found, plots.ARCFACE_TEMPLATE, strict=True):
            # On a regular grid the nearest centre is that of the cell that holds the point.
            assert index == int(y // step) * side + int(x // step)


def test_centres_placed_at_landmarks_are_found_there():
    places = np.asarray(center_places(12, "landmarks"))
    found = places[plots.landmark_centers(places)]
    np.testing.assert_allclose(found, plots.ARCFACE_TEMPLATE, atol=1e-4)


@pytest.mark.parametrize("prompts", [0, 3])
@pytest.mark.parametrize("patch", [(0, 0), (3, 5), (6, 2)])
def test_attention_on_the_crop_shows_the_patch_that_a_centre_looks_at(prompts, patch):
    lookup = torch.rand(2, 4, 9, 49 + prompts, generator=torch.Generator().manual_seed(0))
    lookup[1, :, 5, patch[0] * 7 + patch[1]] += 3
    lookup[..., 49:] += 9  # prompts have no place on the crop
    empty = torch.zeros(0)
    maps = plots.attention_on_crop(LocalFeatures(empty, empty, empty, lookup), (7, 7), [2, 5])
    assert maps.shape == (2, 2, 112, 112)
    np.testing.assert_allclose(maps.max(axis=(2, 3)), 1.0, rtol=1e-6)
    y, x = np.unravel_index(maps[1, 1].argmax(), (112, 112))
    assert (y // 16, x // 16) == patch


def test_loss_curves_become_a_picture(tmp_path):
    lines = [
        {"step": i, "epoch": 0, "loss": 2.0 / i, "margin": 1.0 / i, "terms": {"anchoring": 0.5 / i}}
        for i in range(1, 5)
    ]
    lines.append({"step": 4, "epoch": 0, "validation": {"lfw": 0.7}})
    plots.plot_loss_curves({"plain": lines, "other": lines[:2]}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [r"$\foo$", "_a", "a$b", "no\udcffutf8"])
def test_names_of_runs_are_no_formulas(tmp_path, name):
    lines = [{"step": i, "margin": float("nan") if i == 2 else 1.0 / i} for i in range(1, 5)]
    plots.plot_loss_curves({name: lines}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()


def test_there_are_no_local_centres_to_draw_without_urfm(tmp_path):
    teacher = {"network": "r10_narrow", "weights": "random"}
    entry = {"teacher": teacher, "prompts": None, "urfm": None, "anchoring": None, "losses": []}
    student, teacher = (get_model("r10_narrow", num_features=8) for _ in range(2))
    distiller = Distiller(student, teacher, entry)
    images = np.zeros((1, 112, 112, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="has no URFM"):
        plots.plot_local_centers(distiller.eval(), images, tmp_path / "centers.png")
    assert not list(tmp_path.iterdir())
