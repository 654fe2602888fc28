"""Another order of the same images."""

import numpy as np
import pytest
from helpers.written_sets import shown

from arcface_cakd.cli import main
from arcface_cakd.data.damage import verify
from arcface_cakd.preparation.shuffling import shuffle

LABELS = [number // 4 for number in range(40)]


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_every_image_is_there_once_with_its_label(make_set, tmp_path, block):
    folder = make_set("in", LABELS, names={n: f"p{n}" for n in range(10)}, landmarks=True)
    out = tmp_path / "out"
    shuffle(folder, out, 3, block=block)
    before, after = shown(folder), shown(out)
    order = [before.images.index(image) for image in after.images]
    assert sorted(order) == list(range(40))
    assert order == np.random.default_rng(3).permutation(40).tolist()
    assert after.labels == [LABELS[place] for place in order]
    assert after.names == before.names
    np.testing.assert_array_equal(after.landmarks, before.landmarks[order])
    assert (out / "property").read_text() == "10,112,112\n"
    assert verify(out)[1] == []


def test_the_command(make_set, tmp_path, capsys):
    folder = make_set("in", LABELS)
    for seed in ("1", "1", "2"):
        assert main(["data", "shuffle", str(folder), str(tmp_path / "out"), "--seed", seed]) == 0
        (tmp_path / "out").rename(tmp_path / f"out{len(list(tmp_path.iterdir()))}")
    stored = [(path / "train.rec").read_bytes() for path in sorted(tmp_path.glob("out*"))]
    assert stored[0] == stored[1] != stored[2]
    assert "40 images of 10 people" in capsys.readouterr().out
