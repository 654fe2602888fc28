"""``train.sha256``: every flipped bit of the records and their index is seen."""

import hashlib
import os
import pickle
import random

import pytest
from helpers.record_sets import jpeg

from arcface_cakd.cli import main
from arcface_cakd.data import DataError, get_dataloader, write_identity_records
from arcface_cakd.data.damage import verify
from arcface_cakd.recordio import RecordIOError
from arcface_cakd.recordio import block_digests as module
from arcface_cakd.recordio.block_digests import BlockDigests, digests_path, write_digests


@pytest.fixture
def blocks(monkeypatch):
    """Small ones, for small files."""
    monkeypatch.setattr(module, "BLOCK", 4096)


@pytest.fixture
def records(tmp_path, blocks):
    write_identity_records(tmp_path, [[jpeg(2 * i + j) for j in range(2)] for i in range(3)])
    return tmp_path / "train.rec"


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 3 * 4096])
def test_lines_are_of_blocks_that_follow_each_other(tmp_path, blocks, size):
    rec = tmp_path / "a.rec"
    data = random.Random(size).randbytes(size)
    rec.write_bytes(data)
    rec.with_suffix(".idx").write_bytes(b"0\t0\n")
    wanted = [(hashlib.sha256(data[i : i + 4096]), i) for i in range(0, max(size, 1), 4096)]
    lines = [f"{h.hexdigest()} a.rec {i} {min(size - i, 4096)}" for h, i in wanted]
    lines.append(f"{hashlib.sha256(bytes([48, 9, 48, 10])).hexdigest()} a.idx 0 4")
    assert write_digests(rec).read_text().splitlines() == lines
    assert BlockDigests(rec).damages() == []


def test_writers_leave_digests_and_verify_holds_the_set_against_them(records):
    assert digests_path(records).is_file() and verify(records)[1] == []
    whole = {path: path.read_bytes() for path in records.parent.iterdir()}
    rng = random.Random(0)
    for path in (records, records.with_suffix(".idx"), digests_path(records)):
        for _ in range(8):
            flip(path, rng.randrange(8 * len(whole[path])))
            damages = verify(records)[1]
            assert damages, path
            path.write_bytes(whole[path])
    # Named by the block that it is in.
    flip(records, 8 * 5000)
    found = [damage for damage in verify(records)[1] if "bytes from here" in damage["problem"]]
    assert [damage["byte"] for damage in found] == [4096]


def test_training_sees_what_was_flipped_where_it_is_asked_to(records):
    def read(checked):
        options = {"seed": 0, "num_workers": 0, "checked": checked}
        return [labels for _, labels in get_dataloader(records.parent, 2, **options)]

    assert len(read(True)) == 3
    image = records.read_bytes().index(b"\xff\xda") + 100  # within the first one's pixels
    flip(records, 8 * image)
    assert len(read(False)) == 3
    with pytest.raises(
        RecordIOError, match=r"train\.rec, key \d+, byte 0: 4096 bytes from here on"
    ):
        read(True)
    digests_path(records).unlink()
    with pytest.raises(RecordIOError, match=r"train\.sha256: cannot be read.*data digest .*writes"):
        read(True)


def test_a_block_is_read_once_and_pickled_it_begins_anew(records):
    digests = BlockDigests(records)
    data = records.read_bytes()
    assert digests.damage(data, 0, len(data)) is None
    assert digests.damage(bytes(len(data)), 0, len(data)) is None  # nothing is read again
    anew = pickle.loads(pickle.dumps(digests))
    assert anew.damage(bytes(len(data)), 0, 10).offset == 0
    assert anew.damage(data, 0, len(data)) is None


def test_cut_foreign_and_damaged_digests_are_named(records):
    data = records.read_bytes()
    records.write_bytes(data[:-4])
    with pytest.raises(RecordIOError, match=r"train\.rec: has \d+ bytes, and train\.sha256 is of"):
        BlockDigests(records)
    records.write_bytes(data)
    lines = digests_path(records).read_text().splitlines(keepends=True)
    for damaged in ([], lines[1:], lines[:-1], [lines[0], *lines], [*lines, "x\n"], lines[::-1]):
        digests_path(records).write_text("".join(damaged))
        with pytest.raises(RecordIOError, match=r"train\.sha256: (line \d|lacks blocks)|has \d+"):
            BlockDigests(records)


def test_a_new_index_has_a_new_digest_and_the_records_keep_theirs(records, capsys):
    before = digests_path(records).read_text().splitlines()
    assert main(["data", "index", str(records), "--force"]) == 0
    after = digests_path(records).read_text().splitlines()
    assert after[:-1] == before[:-1] and BlockDigests(records).damages() == []
    assert main(["data", "digest", str(records)]) == 1
    assert "digests are there: hold the set against them" in capsys.readouterr().err
    flip(records, 8 * 3000)
    assert main(["data", "digest", str(records), "--force"]) == 0
    assert BlockDigests(records).damages() == []


def test_a_folder_of_images_has_no_digests(tmp_path):
    with pytest.raises(DataError, match=r"check_records is for a train\.rec"):
        get_dataloader(tmp_path, 2, seed=0, num_workers=0, checked=True)


def test_what_a_fork_has_seen_is_seen_here_too(records):
    digests = BlockDigests(records)
    data = records.read_bytes()
    child = os.fork()
    if not child:
        digests.damage(data, 0, len(data))
        os._exit(0)
    os.waitpid(child, 0)
    assert digests.damage(bytes(len(data)), 0, len(data)) is None
