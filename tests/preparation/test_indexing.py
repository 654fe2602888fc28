"""An index that is made anew from the records."""

import pytest
from helpers.record_sets import jpeg, write_records

from arcface_cakd.cli import main
from arcface_cakd.preparation.indexing import rebuild_index
from arcface_cakd.recordio import IRHeader, MXIndexedRecordIO, RecordIOError, framing, pack


def test_it_is_rebuilt_to_the_byte(insightface_set):
    folder, _ = insightface_set
    expected = (folder / "train.idx").read_bytes()
    assert expected.startswith(b"1\t0\n") and b"\n0\t" in expected
    (folder / "train.idx").unlink()
    assert rebuild_index(folder / "train.rec", folder / "train.idx") == (31, True)
    assert (folder / "train.idx").read_bytes() == expected


@pytest.mark.parametrize("ids", [[0, 0, 0], [5, 6, 5], [0, 1, 2**63]])
def test_keys_are_places_where_ids_do_not_tell_them(tmp_path, ids):
    rec, idx = tmp_path / "train.rec", tmp_path / "train.idx"
    payloads = [pack(IRHeader(0, 1.0, number, 0), b"x" * i) for i, number in enumerate(ids)]
    rec.write_bytes(b"".join(framing.frame(payload) for payload in payloads))
    assert rebuild_index(rec, idx) == (3, False)
    reader = MXIndexedRecordIO(idx, rec, "r")
    assert [reader.read_idx(key) for key in range(3)] == payloads


def test_damage_stops_it(insightface_set):
    folder, _ = insightface_set
    stored = bytearray((folder / "train.rec").read_bytes())
    stored[0] ^= 1
    (folder / "train.rec").write_bytes(stored)
    with pytest.raises(RecordIOError, match="byte 0: no record begins here"):
        rebuild_index(folder / "train.rec", folder / "new.idx")
    assert not list(folder.glob("*new*"))


def test_the_index_command(tmp_path, capsys):
    folder = tmp_path
    write_records(folder, {key: (0.0, jpeg(key)) for key in range(7)})
    before = (folder / "train.idx").read_bytes()
    rec = str(folder / "train.rec")
    assert main(["data", "index", rec]) == 1
    assert "an index is there: replace it with --force" in capsys.readouterr().err
    (folder / "train.idx").unlink()
    assert main(["data", "index", rec]) == 0
    assert "7 records, whose keys are the ids in their headers" in capsys.readouterr().out
    assert (folder / "train.idx").read_bytes() == before
    assert main(["data", "index", str(folder / "train.idx")]) == 1
    assert "not a .rec file" in capsys.readouterr().err
