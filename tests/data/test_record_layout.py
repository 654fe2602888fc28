"""Which records are images and whom they show, however a set was written."""

import logging

import numpy as np
import pytest
from easydict import EasyDict as edict
from helpers.host_items import MXFaceDataset, loader_over
from helpers.record_sets import jpeg, write_records

from arcface_cakd.arcface_torch import faster_items
from arcface_cakd.cli import main
from arcface_cakd.data import DataError, get_dataloader, labels, record_layout
from arcface_cakd.data.damage import verify
from arcface_cakd.data.inspection import inspect
from arcface_cakd.data.loader import open_images
from arcface_cakd.preparation.record_set import RecordSet
from arcface_cakd.recordio import MissingKeyError, MXIndexedRecordIO, unindexed

PEOPLE, EACH = 4, 3
IMAGES = {n: (n % PEOPLE, jpeg(n)) for n in range(PEOPLE * EACH)}


def write(folder, label=float, first_key=0, step=1, prop=PEOPLE):
    write_records(
        folder,
        {first_key + step * n: (label(person), image) for n, (person, image) in IMAGES.items()},
    )
    if prop:
        (folder / "property").write_text(f"{prop},112,112\n")
    return folder


def read(folder):
    """(label, image) of all that is trained on, without an order."""
    images = open_images(folder)
    encoded = (images.encoded(position) for position in range(len(images)))
    return sorted((label, image) for image, label in encoded)


EVERY_KEY = {
    "scalar labels": {},
    "packed labels": {"label": lambda person: [person]},
    "two labels": {"label": lambda person: [person, 2.0]},
    "many labels": {"label": lambda person: [person, *range(20)]},
    "from key 1": {"first_key": 1},
    "from key 1, packed": {"first_key": 1, "label": lambda person: [person]},
    "from key 17, every fifth": {"first_key": 17, "step": 5},
}


@pytest.mark.parametrize("kind", EVERY_KEY)
def test_a_record_that_carries_an_image_is_an_image(tmp_path, kind):
    write(tmp_path, **EVERY_KEY[kind])
    assert read(tmp_path) == sorted((person, image) for person, image in IMAGES.values())
    loader = get_dataloader(tmp_path, 12, seed=1, num_workers=0)
    assert (loader.num_images, loader.num_classes, loader.num_people) == (12, PEOPLE, PEOPLE)
    ((_, found),) = list(loader)
    assert sorted(found.tolist()) == sorted(person for person, _ in IMAGES.values())
    assert verify(tmp_path) == (12, [])
    (told,) = inspect(tmp_path)
    assert (told["images"], told["identities"], told["labels"]) == (12, PEOPLE, "0 to 3")
    assert told["record_0"] == ("none" if "from" in kind else "im2rec")


@pytest.mark.parametrize("kind", EVERY_KEY)
def test_verify_decodes_every_image(tmp_path, kind):
    write(tmp_path, **EVERY_KEY[kind])
    reader = MXIndexedRecordIO(tmp_path / "train.idx", tmp_path / "train.rec", "r")
    stored = bytearray((tmp_path / "train.rec").read_bytes())
    cut = [reader.keys[i] for i in (0, 4, 11)]
    for key in cut:
        after = reader.read_idx(key) and reader.tell()
        stored[after - 300 : after - 4] = bytes(296)
    (tmp_path / "train.rec").write_bytes(stored)
    assert [damage["key"] for damage in verify(tmp_path)[1]] == cut


def test_without_record_0_a_set_with_headers_is_cut(insightface_set):
    folder, _ = insightface_set
    lines = (folder / "train.idx").read_text().splitlines(keepends=True)
    (folder / "train.idx").write_text("".join(lines[:-1]))  # key 0 stands last
    with pytest.raises(MissingKeyError, match="record 0, which tells what is an image"):
        open_images(folder)
    count, damages = verify(folder)
    assert (count, [damage["key"] for damage in damages]) == (31, [0])


class TestIndexes:
    """Of a set without insightface's record 0, which says how many there must be."""

    def cut(self, folder, keep, order=1):
        """A set of 12 records, and its index with some of the lines."""
        write(folder)
        lines = (folder / "train.idx").read_text().splitlines(keepends=True)
        (folder / "train.idx").write_text("".join([lines[i] for i in keep][::order]))
        return [int(line.split("\t")[1]) for line in lines]

    @pytest.mark.parametrize("order", [1, -1])
    @pytest.mark.parametrize(
        ("keep", "first", "places"),
        [
            (range(5), 5, ""),  # cut
            (range(11), 11, ""),
            ((0, 1, 2, 7, 8, 9, 10, 11), 3, ""),
            (range(4, 12), 0, ""),
            ((0, 1, 3, 4, 6, 7, 8, 9), 2, ", in 3 places"),
        ],
    )
    def test_records_that_they_lack_are_counted(self, tmp_path, caplog, keep, first, places, order):
        offsets = self.cut(tmp_path, keep, order)
        lacking, rec = 12 - len(keep), tmp_path / "train.rec"
        images = open_images(tmp_path)
        assert images.keys.tolist() == list(keep)
        size = np.diff([*offsets, rec.stat().st_size])
        left = int(size.sum() - size[list(keep)].sum())
        remedy = (
            f"'arcface-cakd data index {rec} --force' writes it anew; where they are left out on "
            f"purpose, 'arcface-cakd data renumber {tmp_path} OUT' writes a set without them"
        )
        assert (
            f"train.idx: has {len(keep)} records, and {rec} holds more: {left} byt" in caplog.text
        )
        assert f"left out, the first at byte {offsets[first]}: 'arc" in caplog.text
        assert remedy in caplog.text
        ((damage,), count) = verify(tmp_path)[::-1]
        assert damage["problem"] == (
            f"the index lacks {lacking} records, this one first{places}: {remedy}"
        )
        assert (damage["path"], damage["byte"], count) == (str(rec), offsets[first], len(keep) + 1)
        # As the message has it.
        assert main(["data", "renumber", str(tmp_path), str(tmp_path / "without")]) == 0
        assert verify(tmp_path / "without")[1] == []
        assert main(["data", "index", str(rec), "--force"]) == 0
        caplog.clear()
        assert len(open_images(tmp_path)) == 12 and caplog.text == ""
        assert verify(tmp_path) == (12, [])

    def test_damaged_ones_are_no_records_that_they_lack(self, tmp_path):
        offsets = self.cut(tmp_path, (0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11))
        stored = bytearray((tmp_path / "train.rec").read_bytes())
        stored[offsets[3] + 4] ^= 8  # its length
        (tmp_path / "train.rec").write_bytes(stored)
        (damage,) = verify(tmp_path)[1]
        assert damage["byte"] == offsets[3] and "index lacks" not in damage["problem"]

    def test_headers_that_an_index_of_images_leaves_out_are_not_said(self, insightface_set, caplog):
        folder, _ = insightface_set
        images = open_images(folder).keys.tolist()
        lines = (folder / "train.idx").read_text().splitlines(keepends=True)
        kept = [line for line in lines if int(line.split("\t")[0]) in images]
        (folder / "train.idx").write_text("".join(kept))
        caplog.clear()
        assert open_images(folder).keys.tolist() == images
        assert "are left out" not in caplog.text

    def test_what_else_reads_them_says_so_too(self, tmp_path, caplog):
        self.cut(tmp_path, range(5))
        for use in (inspect, RecordSet, lambda folder: RecordSet(folder, every=True)):
            caplog.clear()
            use(tmp_path)
            assert caplog.text.count("train.idx: has 5 records") == 1

    def test_of_a_large_set_a_few_records_are_looked_at(self, tmp_path, caplog, monkeypatch):
        monkeypatch.setattr(unindexed, "_LOOKED_AT", 1)
        read, asked = unindexed.read_record, []
        monkeypatch.setattr(
            unindexed, "read_record", lambda *where: asked.append(where[1]) or read(*where)
        )
        offsets = self.cut(tmp_path, (0, 1, 2, 9, 10))
        open_images(tmp_path)
        assert asked == [offsets[2], offsets[10]]  # before the widest step, and the last
        assert "about 7 records, are left out" in caplog.text

    def test_behind_a_damaged_record_nothing_is_said_to_be_lacking(self, tmp_path, caplog):
        offsets = self.cut(tmp_path, range(12))
        stored = bytearray((tmp_path / "train.rec").read_bytes())
        stored[offsets[4] + 4] ^= 8  # its length
        (tmp_path / "train.rec").write_bytes(stored)
        assert [damage["key"] for damage in verify(tmp_path)[1]] == [4]
        open_images(tmp_path)
        assert caplog.text == ""


class TestCounts:
    """Record 0's are float32."""

    @pytest.mark.parametrize("seed", range(3))
    def test_any_rounding_is_undone(self, seed):
        rng = np.random.default_rng(seed)
        sizes = [(42_474_557, 2_059_906), (17_100_001, 361_001), (2**24 - 1, 3), (2**24, 1)]
        sizes += zip(rng.integers(1, 2**27, 60), rng.integers(0, 3_000_000, 60), strict=True)
        for images, people in ((int(n), int(p)) for n, p in sizes):
            asked = []

            def carries(key, images=images, people=people, asked=asked):
                assert 1 <= key <= images + people
                asked.append(key)
                return key <= images

            stated = float(np.float32(images + 1))
            end = images + people + 1
            assert record_layout.first_header(stated, end, carries, "here") == images + 1
            assert len(asked) < 10

    @pytest.mark.parametrize("wrong", [[13, 15], [12, 14], [15, 17], [16, 19], [13, 17]])
    def test_bounds_come_from_headers_and_the_last_key(self, tmp_path, monkeypatch, wrong):
        """14 keys of images and 2 of headers, as if counts of this size were rounded."""
        headers = {15: ([1, 8], b""), 16: ([8, 15], b"")}
        images = {key: (float(key // 8), jpeg(key)) for key in range(1, 15)}
        write_records(tmp_path, {**images, **headers, 0: (wrong, b"")})
        monkeypatch.setattr(record_layout, "_rounding", lambda stated: 3)
        reader = MXIndexedRecordIO(tmp_path / "train.idx", tmp_path / "train.rec", "r")
        keys, identities = record_layout.image_keys(reader)
        assert (keys.tolist(), identities.tolist()) == (list(range(1, 15)), [15, 16])
        assert verify(tmp_path) == (17, [])

    @pytest.mark.parametrize(
        ("stated", "problem"),
        [
            ([13, 15], "announces the keys 1 to 14, and the index has up to 16"),
            ([14, 17], "takes key 14 for an identity's header, and it carries an image"),
            ([16, 17], "takes key 15 for an image, and it carries none"),
            ([10], "takes key 10 for an identity's header, and it carries an image"),
        ],
    )
    def test_a_record_0_that_does_not_fit_the_records(self, tmp_path, stated, problem):
        headers = {15: ([1, 8], b""), 16: ([8, 15], b"")}
        images = {key: (float(key // 8), jpeg(key)) for key in range(1, 15)}
        write_records(tmp_path, {**images, **headers, 0: (stated, b"")})
        with pytest.raises(DataError, match=problem) as raised:
            open_images(tmp_path)
        assert str(raised.value).startswith(f"{tmp_path / 'train.rec'}, key 0: record 0 ")
        ((damage,), count) = verify(tmp_path)[::-1]
        assert (damage["key"], count) == (0, 18)
        assert problem in damage["problem"]

    def test_one_label_announces_images_too(self, tmp_path):
        write_records(tmp_path, {1: (0.0, jpeg(1)), 2: (1.0, jpeg(2)), 0: ([6], b"")})
        with pytest.raises(MissingKeyError, match="lacks 3 of the 5 keys"):
            open_images(tmp_path)


class TestLabels:
    def test_that_begin_at_1(self, tmp_path):
        write(tmp_path, label=lambda person: person + 1.0)
        with pytest.raises(DataError) as raised:
            open_images(tmp_path)
        text = str(raised.value)
        assert "says 4 identities, but labels are 1 to 4, which begin at 1" in text
        assert f"arcface-cakd data renumber {tmp_path} OUT" in text and "\n" not in text
        assert "write '5,112,112'" in text
        (tmp_path / "property").write_text("5,112,112")
        assert open_images(tmp_path).num_classes == 5
        keys = [damage["key"] for damage in verify(tmp_path)[1]]
        assert keys == []

    def test_that_begin_at_1_without_a_property(self, tmp_path, caplog):
        write(tmp_path, label=lambda person: person + 1.0, prop=None)
        assert open_images(tmp_path).num_classes == 5
        assert "5 classes for 4 people, as labels are 1 to 4, which begin at 1" in caplog.text

    @pytest.mark.parametrize("label", [lambda p: p * 1e5, lambda p: [p * 1e5, 0]])
    def test_with_gaps(self, tmp_path, caplog, label):
        write(tmp_path, label=label, prop=None)
        images = open_images(tmp_path)
        assert (images.num_classes, images.num_people) == (300_001, 4)
        assert "300001 classes for 4 people" in caplog.text
        assert f"arcface-cakd data renumber {tmp_path} OUT" in caplog.text

    def test_a_set_that_is_all_right_is_no_warning(self, tmp_path, insightface_set, caplog):
        open_images(insightface_set[0])
        open_images(write(tmp_path))
        assert caplog.text == ""

    @pytest.mark.parametrize("stated", [5, 85742])
    def test_a_property_above_them(self, tmp_path, caplog, stated):
        write(tmp_path, prop=stated)
        images = open_images(tmp_path)
        assert (images.num_classes, images.num_people) == (4, 4)
        misfit = f"says {stated} identities, but labels are 0 to 3: 4 are taken; write '4,112,112'"
        assert misfit in caplog.text
        ((damage,), count) = verify(tmp_path)[::-1]
        assert (damage["path"], count) == (str(tmp_path / "property"), 13)
        assert damage["problem"].startswith(misfit)

    def test_a_property_below_them(self, tmp_path):
        write(tmp_path, prop=2)
        with pytest.raises(DataError, match=r"says 2 identities, but labels are 0 to 3: .*'4,112"):
            open_images(tmp_path)
        named = [damage["key"] for damage in verify(tmp_path)[1]]
        assert named == [n for n, (person, _) in IMAGES.items() if person > 1]

    def test_a_property_that_record_0_contradicts(self, insightface_set, caplog):
        folder, _ = insightface_set
        (folder / "property").write_text("9,112,112")
        assert open_images(folder).num_classes == 4
        assert "says 9 identities, but labels are 0 to 3: 4 are taken" in caplog.text
        assert len(verify(folder)[1]) == 1

    def test_headers_without_images_keep_their_classes(self, tmp_path, caplog):
        """The last of three identities has no image: its class stays, and a line says so."""
        headers = {5 + i: ([1, 1], b"") for i in range(3)}
        images = {key: (float(key // 3), jpeg(key)) for key in range(1, 5)}
        write_records(tmp_path, {**images, **headers, 0: ([5, 8], b"")})
        (tmp_path / "property").write_text("3,112,112")
        assert open_images(tmp_path).num_classes == 3
        assert "3 classes for 2 people" in caplog.text

    def test_beyond_the_headers(self, tmp_path):
        write_records(tmp_path, {1: (0.0, jpeg(1)), 2: (4.0, jpeg(2)), 3: ([1, 3], b""),
                                 0: ([3, 4], b"")})  # fmt: skip
        with pytest.raises(DataError, match="announces 1 identities, but labels are 0 to 4"):
            open_images(tmp_path)
        (tmp_path / "property").write_text("5,112,112")
        assert open_images(tmp_path).num_classes == 5

    def test_of_a_large_set_a_sample_is_read(self, insightface_set, monkeypatch, caplog):
        folder, _ = insightface_set
        monkeypatch.setattr(labels, "_READ_ALL", 10)
        monkeypatch.setattr(labels, "_SAMPLE", 5)
        images = open_images(folder)
        assert (images.num_classes, images.num_people, caplog.text) == (4, 4, "")
        (folder / "property").write_text("9,112,112")
        assert open_images(folder).num_classes == 9
        assert "record 0 announces 4 identities: 9 are taken" in caplog.text
        (folder / "property").write_text("3,112,112")  # the last image is of the fourth
        with pytest.raises(DataError, match="says 3 identities, but labels are 0 to 3"):
            open_images(folder)

    def test_a_sample_that_sees_far_too_few(self, tmp_path, monkeypatch, caplog):
        write(tmp_path, prop=85742)
        monkeypatch.setattr(labels, "_READ_ALL", 10)
        monkeypatch.setattr(labels, "_SAMPLE", 6)
        images = open_images(tmp_path)
        assert (images.num_classes, images.num_people) == (85742, None)
        assert "among 6 that were read: 85742 are taken" in caplog.text

    @pytest.mark.parametrize("label", [-1.0, 0.5, float("nan"), float("inf"), 2.0**24])
    def test_that_are_no_numbers_of_identities(self, tmp_path, label):
        write_records(tmp_path, {n: (0.0 if n != 2 else label, jpeg(n)) for n in range(4)})
        with pytest.raises(DataError, match=r"train\.rec, key 2: label .* is not one of 0 to"):
            open_images(tmp_path)


class TestInTheHost:
    """Its MXFaceDataset takes 1 to the first label of record 0 - 1 for images, if the flag is set.

    (Written out in ``taken``, as its dataset.py has it.)
    """

    def loader(self, folder, taken):
        dataset = MXFaceDataset(str(folder), {}, taken)
        dataset.imgrec = MXIndexedRecordIO(folder / "train.idx", folder / "train.rec", "r")
        return loader_over(dataset)

    def test_a_part_of_a_set_is_refused(self, tmp_path, capsys, caplog):
        write(tmp_path, label=lambda person: [person + 9.0], prop=None)
        loader = self.loader(tmp_path, range(1, 9))
        with pytest.raises(SystemExit) as stop:
            faster_items(loader, edict(fast_items=True))
        assert stop.value.code == 1
        printed = capsys.readouterr().err
        assert "takes 8 records for images" in printed and printed.count("\n") == 1
        assert "by record 0; 4 images are left out and 0 are none" in printed
        assert caplog.text == ""

    def test_a_run_without_us_is_warned(self, tmp_path, caplog):
        write(tmp_path, label=lambda person: [person + 9.0], prop=None)
        loader = self.loader(tmp_path, range(1, 9))
        with caplog.at_level(logging.WARNING):
            assert faster_items(loader, edict()) is loader
        assert "4 images are left out" in caplog.text

    def test_an_index_that_lacks_records_is_a_warning(self, tmp_path, caplog):
        write(tmp_path, first_key=1)
        lines = (tmp_path / "train.idx").read_text().splitlines(keepends=True)
        (tmp_path / "train.idx").write_text("".join(lines[:9]))
        loader = self.loader(tmp_path, range(1, 10))
        assert faster_items(loader, edict()) is loader
        assert "train.idx: has 9 records" in caplog.text

    def test_headers_that_are_taken_for_images_are_refused(self, insightface_set, capsys):
        folder, _ = insightface_set
        with pytest.raises(SystemExit):
            faster_items(self.loader(folder, range(1, 29)), edict(fast_items=True))
        assert "0 images are left out and 2 are none" in capsys.readouterr().err

    def test_a_set_that_it_reads_whole_is_silent(self, insightface_set, caplog):
        folder, _ = insightface_set
        loader = self.loader(folder, range(1, 27))
        assert faster_items(loader, edict()) is loader
        assert len(faster_items(loader, edict(fast_items=True)).dataset) == 26
        assert caplog.text == ""

    def test_a_forks_own_choice_is_told_and_kept(self, insightface_set, caplog):
        folder, _ = insightface_set
        loader = self.loader(folder, [3, 20, 7, 8, 9, 10])
        assert len(faster_items(loader, edict(fast_items=True)).dataset) == 6
        assert "takes 6 records for images; 20 images are left out and 0 are none" in caplog.text
