"""Heads of many records at once against ``unpack`` of each; a file without its index."""

import numpy as np
import pytest
from helpers.record_sets import jpeg, write_records

from arcface_cakd.data.damage import verify
from arcface_cakd.recordio import (
    IRHeader,
    MissingKeyError,
    MXIndexedRecordIO,
    RecordIOError,
    framing,
    pack,
    unpack,
)
from arcface_cakd.recordio.heads import read_heads
from arcface_cakd.recordio.scan import scan


def random_records(folder, seed, count=200):
    """Records of any labels and lengths, some of many parts, in any order of keys."""
    rng = np.random.default_rng(seed)
    keys = rng.choice(10 * count, count, replace=False).tolist()
    with MXIndexedRecordIO(folder / "train.idx", folder / "train.rec", "w") as writer:
        for key in keys:
            labels = rng.normal(size=rng.integers(0, 4)).astype(np.float32)
            label = float(rng.integers(0, 100)) if rng.random() < 0.5 else labels
            image = rng.bytes(int(rng.integers(0, 40))) if rng.random() < 0.8 else b""
            if rng.random() < 0.1:
                image = bytes(-len(image) % 4) + image + framing.MAGIC
            # An id of the magic splits the record inside its header.
            number = int.from_bytes(framing.MAGIC, "little") if rng.random() < 0.1 else key
            writer.write_idx(key, pack(IRHeader(0, label, number, 0), image))
    return MXIndexedRecordIO(folder / "train.idx", folder / "train.rec", "r")


@pytest.mark.parametrize("seed", range(3))
def test_heads_are_those_of_each_record(tmp_path, seed):
    reader = random_records(tmp_path, seed)
    labelled = []
    for key in reader.keys:
        header, image = unpack(reader.read_idx(key))
        if not (header.flag == 0 and isinstance(header.label, np.ndarray)):
            labelled.append((key, float(np.ravel(header.label)[0]), len(image) > 0))
    keys, expected, carry = zip(*labelled, strict=True)
    heads = read_heads(reader, np.array(keys))
    assert heads.labels.dtype == np.float32 and heads.has_image.dtype == bool
    np.testing.assert_array_equal(heads.labels, np.array(expected, dtype=np.float32))
    np.testing.assert_array_equal(heads.has_image, carry)
    assert 0.1 < np.mean(carry) < 1


def test_heads_of_nothing_and_of_a_missing_key(tmp_path):
    reader = random_records(tmp_path, 0)
    assert len(read_heads(reader, np.zeros(0, dtype=np.int64)).labels) == 0
    with pytest.raises(MissingKeyError, match="key 9999"):
        read_heads(reader, np.array([reader.keys[0], 9999]))


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_head_that_is_cut_or_damaged_is_named(tmp_path, cut):
    write_records(tmp_path, {key: (float(key), jpeg(key)) for key in range(4)})
    stored = (tmp_path / "train.rec").read_bytes()
    offsets = [int(line.split("\t")[1]) for line in (tmp_path / "train.idx").open()]
    (tmp_path / "train.rec").write_bytes(stored[: offsets[3] + cut])
    reader = MXIndexedRecordIO(tmp_path / "train.idx", tmp_path / "train.rec", "r")
    assert read_heads(reader, np.arange(3)).labels.tolist() == [0, 1, 2]
    with pytest.raises(RecordIOError) as raised:
        read_heads(reader, np.arange(4))
    assert (raised.value.key, raised.value.offset) == (3, offsets[3])
    (tmp_path / "train.rec").write_bytes(framing.frame(b"too short") + stored)
    reader = MXIndexedRecordIO(tmp_path / "train.idx", tmp_path / "train.rec", "r")
    with pytest.raises(RecordIOError, match=r"key 0, byte 0: no image record, 9 bytes"):
        read_heads(reader, np.array([0]))


class TestWithoutAnIndex:
    def test_the_message_names_the_command(self, insightface_set):
        folder, _ = insightface_set
        (folder / "train.idx").unlink()
        with pytest.raises(RecordIOError) as raised:
            MXIndexedRecordIO(folder / "train.idx", folder / "train.rec", "r")
        assert f"'arcface-cakd data index {folder / 'train.rec'}' rebuilds it" in str(raised.value)

    def test_reading_goes_on_behind_damage(self, insightface_set):
        folder, images = insightface_set
        offsets = dict(map(int, line.split("\t")) for line in (folder / "train.idx").open())
        stored = bytearray((folder / "train.rec").read_bytes())
        stored[offsets[3]] ^= 1
        stored[offsets[7] + 6] ^= 1  # a length
        (folder / "train.rec").write_bytes(stored)
        found = dict(scan(folder / "train.rec"))
        wrong = [offset for offset, item in found.items() if isinstance(item, RecordIOError)]
        assert wrong == [offsets[3], offsets[7]]
        for key, (_, image) in images.items():
            if offsets[key] not in wrong:
                assert unpack(found[offsets[key]])[1] == image

    def test_verify_decodes_all_the_same(self, insightface_set):
        folder, images = insightface_set
        offsets = dict(map(int, line.split("\t")) for line in (folder / "train.idx").open())
        stored = bytearray((folder / "train.rec").read_bytes())
        begin = offsets[9] + 8 + 24
        stored[begin : begin + len(images[9][1]) // 2] = bytes(len(images[9][1]) // 2)
        (folder / "train.rec").write_bytes(stored)
        for index in (None, b"no index\n"):
            (folder / "train.idx").unlink(missing_ok=True)
            if index:
                (folder / "train.idx").write_bytes(index)
            count, damages = verify(folder)
            assert count == 32
            assert [(d["path"], d["byte"]) for d in damages] == [
                (str(folder / "train.idx"), None if index is None else 0),
                (str(folder / "train.rec"), offsets[9]),
            ]
