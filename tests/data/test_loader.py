"""Batches, against a plain reading of the same data set with Pillow."""

import numpy as np
import pytest
import torch
from helpers.integer_draws import draw
from helpers.record_sets import encoded, identify, jpeg, pixels, write_records
from PIL import Image

from arcface_cakd.data import DataError, get_dataloader
from arcface_cakd.data.draws import epoch_flips, epoch_order
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.recordio import MissingKeyError, RecordIOError

SETTINGS = {"seed": 7, "num_workers": 0}


def epoch_of(loader, epoch: int, start: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader.set_epoch(epoch, start)
    return list(loader)


def error_of(loader) -> ArcfaceCakdError:
    """What an epoch raises. (A traceback that holds the test would keep the workers waiting.)"""
    try:
        epoch_of(loader, 0)
    except ArcfaceCakdError as error:
        return error.with_traceback(None)
    raise AssertionError("no error")


def test_images_are_those_of_the_records(insightface_set):
    folder, images = insightface_set
    known = {key: pixels(image) for key, (_, image) in images.items()}
    loader = get_dataloader(folder, 5, **SETTINGS)
    assert (loader.num_images, loader.num_classes, len(loader)) == (26, 4, 5)
    seen, flips = [], []
    for epoch in range(3):
        for batch, labels in epoch_of(loader, epoch):
            assert batch.dtype == torch.float32 and batch.shape == (5, 3, 112, 112)
            assert labels.dtype == torch.int64 and batch.is_contiguous()
            assert batch.min() >= -1 and batch.max() <= 1
            for image, label in zip(batch, labels.tolist(), strict=True):
                key, flipped = identify(image, known)
                assert label == images[key][0]
                seen.append(key)
                flips.append(flipped)
    for epoch in range(3):
        assert len(set(seen[25 * epoch : 25 * (epoch + 1)])) == 25  # no image twice
    assert seen[:25] != seen[25:50]
    assert 10 < sum(flips) < 65


def test_extreme_pixels_become_exactly_one(tmp_path):
    images = [encoded(Image.new("RGB", (112, 112), c), "PNG") for c in ("black", "white")]
    write_records(tmp_path, {0: (0, images[0]), 1: (1, images[1])})
    ((batch, labels),) = epoch_of(get_dataloader(tmp_path, 2, **SETTINGS), 0)
    for image, label in zip(batch, labels.tolist(), strict=True):
        assert image.unique().tolist() == [(-1.0, 1.0)[label]]


def test_workers_change_nothing(insightface_set):
    folder, _ = insightface_set
    loaders = [get_dataloader(folder, 3, seed=5, num_workers=n) for n in (0, 1, 2)]
    for epoch in (0, 1):  # the second with the workers of the first
        expected, *others = (epoch_of(loader, epoch) for loader in loaders)
        assert len(expected) == 8
        for other in others:
            for (images, labels), (want_images, want_labels) in zip(other, expected, strict=True):
                assert torch.equal(images, want_images) and torch.equal(labels, want_labels)


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_ranks_share_each_global_batch(insightface_set, world_size):
    folder, _ = insightface_set
    whole = epoch_of(get_dataloader(folder, 12, **SETTINGS), 4)
    parts = [
        epoch_of(
            get_dataloader(folder, 12 // world_size, rank=r, world_size=world_size, **SETTINGS), 4
        )
        for r in range(world_size)
    ]
    assert len(whole) == 2
    for (images, labels), *ranks in zip(whole, *parts, strict=True):
        assert torch.equal(torch.cat([part for part, _ in ranks]), images)
        assert torch.equal(torch.cat([part for _, part in ranks]), labels)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_resumes_at_any_batch(insightface_set, num_workers):
    loader = get_dataloader(insightface_set[0], 4, seed=1, num_workers=num_workers)
    straight = epoch_of(loader, 2)
    loader.set_epoch(2)
    next(iter(loader))  # leave an epoch in the middle
    rest = epoch_of(loader, 2, start=3)
    assert len(rest) == len(loader) - 3 == 3
    for (images, labels), (want_images, want_labels) in zip(rest, straight[3:], strict=True):
        assert torch.equal(images, want_images) and torch.equal(labels, want_labels)
    assert epoch_of(loader, 2, start=len(loader)) == []
    with pytest.raises(ValueError, match="start_batch"):
        loader.set_epoch(2, len(loader) + 1)


def test_order_and_flips_are_fair_and_hang_on_seed_and_epoch():
    keys = np.arange(1, 20_001)
    orders = {(s, e): epoch_order(keys, s, e) for s in (0, 1, -3) for e in (0, 1)}
    flips = {(s, e): epoch_flips(keys, s, e) for s in (0, 1, -3) for e in (0, 1)}
    for pair, order in orders.items():
        assert np.array_equal(np.sort(order), np.arange(20_000))
        # Correlations of independent draws are normal with deviation 1 / sqrt(20000) = 0.007.
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.035
        assert abs(np.corrcoef(order, np.arange(20_000))[0, 1]) < 0.035
        assert abs(flips[pair].mean() - 0.5) < 0.02
        assert abs(np.corrcoef(order.argsort(), flips[pair])[0, 1]) < 0.035
        for other in orders.keys() - {pair}:
            assert (order == orders[other]).mean() < 0.01
            assert abs(np.corrcoef(flips[pair], flips[other])[0, 1]) < 0.035
    # A record's flip is its own, whatever else is in the batch or the set.
    some = keys[[5, 17, 3000]]
    assert np.array_equal(epoch_flips(some, 1, 0), flips[1, 0][[5, 17, 3000]])


def test_order_and_flips_stay_what_they_were():
    """Golden values, by Python integers: a run resumes with the same data after an upgrade."""
    keys = list(range(1, 100))
    for seed, epoch in ((0, 0), (2048, 3), (-1, 1)):
        order = sorted(range(99), key=lambda i: draw(keys[i], seed, epoch, 0))
        assert epoch_order(np.array(keys), seed, epoch).tolist() == order
        flips = [draw(key, seed, epoch, 1) >> 63 == 1 for key in keys]
        assert epoch_flips(np.array(keys), seed, epoch).tolist() == flips


def test_im2rec_sets_hold_an_image_under_every_key(tmp_path):
    write_records(tmp_path, {key: (float(key % 3), jpeg(key)) for key in (5, 9, 0, 7, 1)})
    loader = get_dataloader(tmp_path, 5, **SETTINGS)
    assert (loader.num_images, loader.num_classes) == (5, 3)
    ((_, labels),) = epoch_of(loader, 0)
    assert sorted(labels.tolist()) == sorted(key % 3 for key in (5, 9, 0, 7, 1))


def test_the_identity_is_the_first_of_several_labels(tmp_path):
    images = {key: ([key - 1, 99.5, -1], jpeg(key)) for key in range(1, 5)}
    write_records(tmp_path, {0: ([5, 5], b""), **images})
    (tmp_path / "property").write_text("4,112,112")
    ((_, labels),) = epoch_of(get_dataloader(tmp_path, 4, **SETTINGS), 0)
    assert sorted(labels.tolist()) == [0, 1, 2, 3]


def test_a_folder_of_identities(tmp_path):
    known = {}
    for i, name in enumerate(["b", "a", "c10", "c9"]):
        (tmp_path / name).mkdir()
        for j in range(2):
            data = jpeg(10 * i + j)
            (tmp_path / name / f"{j}.jpg").write_bytes(data)
            known[name, j] = pixels(data)
    (tmp_path / "a" / "0.jpg").unlink()
    png = Image.fromarray(known["a", 0]).convert("RGBA")
    (tmp_path / "a" / "0.PNG").write_bytes(encoded(png, "PNG"))
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / ".cache").mkdir()
    loader = get_dataloader(tmp_path, 8, **SETTINGS)
    assert (loader.num_images, loader.num_classes) == (8, 4)
    ((images, labels),) = epoch_of(loader, 0)
    found = {
        identify(image, known)[0]: label
        for image, label in zip(images, labels.tolist(), strict=True)
    }
    names = ["a", "b", "c10", "c9"]
    assert found == {(name, j): names.index(name) for name in names for j in range(2)}


# -- what bad input gets --------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    ("record", "text"),
    [
        ((1.0, b"\xff\xd8\xff not a JPEG"), "key 5: the image does not decode"),
        ((1.0, b""), "key 5: there is no image"),
        ((1.0, jpeg(5)[:900]), "key 5: the image does not decode"),
        ((1.0, jpeg(5, (96, 112))), "key 5: the image is 96 x 112, not 112 x 112: align"),
        ((1.0, jpeg(5, (128, 128))), "key 5: the image is 128 x 128, not 112 x 112"),
        ((9.0, jpeg(5)), "key 5: label 9 is not one of 0 to 2: set num_classes"),
        ((-1.0, jpeg(5)), "key 5: label -1 is not one of"),
        ((0.5, jpeg(5)), "key 5: label 0.5 is not one of"),
        ((float("nan"), jpeg(5)), "key 5: label nan is not one of"),
    ],
)
def test_a_bad_record_is_named_in_one_line(tmp_path, num_workers, record, text):
    write_records(tmp_path, {k: (1.0, jpeg(k)) if k != 5 else record for k in range(8)})
    loader = get_dataloader(tmp_path, 2, seed=1, num_workers=num_workers, num_classes=3)
    error = error_of(loader)
    assert type(error) is DataError
    assert str(error).startswith(f"{tmp_path / 'train.rec'}, {text}")
    assert "\n" not in str(error)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_damaged_record_is_named_in_one_line(insightface_set, num_workers):
    folder, _ = insightface_set
    offset = int(dict(line.split("\t") for line in (folder / "train.idx").open())["9"])
    data = bytearray((folder / "train.rec").read_bytes())
    data[offset] ^= 1
    (folder / "train.rec").write_bytes(data)
    loader = get_dataloader(folder, 26, seed=1, num_workers=num_workers, num_classes=4)
    error = error_of(loader)
    assert type(error) is RecordIOError
    assert str(error).startswith(f"{folder / 'train.rec'}, key 9, byte {offset}: ")
    assert "\n" not in str(error)


def test_missing_and_cut_files(insightface_set, tmp_path):
    folder, _ = insightface_set
    idx, rec = folder / "train.idx", folder / "train.rec"
    lines, data = idx.read_text().splitlines(keepends=True), rec.read_bytes()
    idx.write_text("".join(lines[:-1]))  # key 0 stands last
    with pytest.raises(MissingKeyError, match=r"train\.idx, key 0: record 0.*is not there"):
        get_dataloader(folder, 2, **SETTINGS)
    idx.write_text("".join(lines[:10] + lines[12:]))
    with pytest.raises(MissingKeyError, match=r"train\.idx, key 11: the index lacks 2 of the 30"):
        get_dataloader(folder, 2, **SETTINGS)
    idx.write_text("".join(lines))
    rec.write_bytes(data[: len(data) // 2])
    with pytest.raises(RecordIOError, match=r"train\.rec, key 0, byte \d+: .*cut"):
        get_dataloader(folder, 2, **SETTINGS)
    rec.unlink()
    with pytest.raises(RecordIOError, match=r"train\.rec: no such file"):
        get_dataloader(folder, 2, **SETTINGS)
    rec.write_bytes(data)
    idx.unlink()
    with pytest.raises(RecordIOError, match=r"train\.idx: no such file"):
        get_dataloader(folder, 2, **SETTINGS)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        get_dataloader(tmp_path / "nowhere", 2, **SETTINGS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: neither train\.rec"):
        get_dataloader(tmp_path / "empty", 2, **SETTINGS)
    (tmp_path / "empty" / "someone").mkdir()
    with pytest.raises(DataError, match="someone: no image in it"):
        get_dataloader(tmp_path / "empty", 2, **SETTINGS)


@pytest.mark.parametrize("text", ["", "4", "x,112,112", "4,112,96", "0,112,112"])
def test_a_property_file_that_makes_no_sense(insightface_set, text):
    folder, _ = insightface_set
    (folder / "property").write_text(text)
    with pytest.raises(DataError, match=r"property: must say 'identities,112,112'"):
        get_dataloader(folder, 2, **SETTINGS)


@pytest.mark.parametrize("label", [[float("nan"), 3], [5, 2], [-1, 4], [1e30, 2e30]])
def test_a_record_0_that_makes_no_sense(tmp_path, label):
    write_records(tmp_path, {0: (label, b""), 1: (0.0, jpeg(1))})
    with pytest.raises(DataError, match=r"train\.rec, key 0: labels"):
        get_dataloader(tmp_path, 1, **SETTINGS)


def test_a_set_smaller_than_a_global_batch(insightface_set):
    assert len(get_dataloader(insightface_set[0], 13, rank=1, world_size=2, **SETTINGS)) == 1
    with pytest.raises(DataError, match="26 images, less than a batch of 14 on each of 2 ranks"):
        get_dataloader(insightface_set[0], 14, rank=1, world_size=2, **SETTINGS)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_iteration_goes_on_after_an_error(tmp_path, num_workers):
    records = {key: (1.0, jpeg(key)) for key in range(6)}
    write_records(tmp_path, records)
    bad = int(epoch_order(np.arange(6), 1, 0)[0])
    write_records(tmp_path, {**records, bad: (1.0, b"bad")})
    loader = get_dataloader(tmp_path, 2, seed=1, num_workers=num_workers)
    assert type(error_of(loader)) is DataError
    assert len(epoch_of(loader, 0, start=1)) == 2
