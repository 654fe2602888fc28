"""A patched arcface_torch where arcface_cakd is not installed."""

import math

import pytest
from helpers.host import side_by_side
from helpers.record_sets import jpeg


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """For train: a folder of images as the data, and a mxnet that imports, as they once had."""
    images = tmp_path_factory.mktemp("images")
    for identity in range(3):
        (images / str(identity)).mkdir()
        for number in range(4):
            path = images / str(identity) / f"{number}.jpg"
            path.write_bytes(jpeg(10 * identity + number))
    modules = tmp_path_factory.mktemp("with_mxnet")
    (modules / "mxnet").mkdir()
    (modules / "mxnet" / "__init__.py").write_text("from . import ndarray\n")
    (modules / "mxnet" / "ndarray.py").touch()
    return {
        "env": {"HIDE": "arcface_cakd", "PYTHONPATH": str(modules)},
        "rec": images,
        "network": "mbf",
        "num_classes": 3,
        "num_image": 12,
        "batch_size": 4,
    }


@pytest.fixture(scope="module")
def runs(host, settings):
    """Without a ``cakd`` entry, with one, and with a network of ours."""
    teacher = {"network": "swin_mini", "weights": "random"}
    return side_by_side(
        lambda: host.train("alone", **settings),
        lambda: host.train("alone_cakd", check=False, cakd={"teacher": teacher}, **settings),
        lambda: host.train("alone_swin", check=False, **{**settings, "network": "swin_mini"}),
    )


def test_a_plain_config_trains(runs):
    run, *_ = runs
    assert len(run.losses) == 3
    assert all(map(math.isfinite, run.losses))
    assert "cakd" not in run.checkpoint()
    assert run.load("model.pt")


def test_a_config_with_cakd_says_what_to_do(runs):
    _, run, _ = runs
    assert run.code == 1
    last = run.err.rstrip().splitlines()[-1]
    assert "cakd" in last and "install" in last
    assert "Traceback" not in run.err
    assert run.losses == []


def test_a_network_of_ours_says_what_to_do(runs):
    *_, run = runs
    assert run.code == 1
    last = run.err.rstrip().splitlines()[-1]
    assert "swin_mini" in last and "install" in last
