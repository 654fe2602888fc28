"""The record format, against a parser of its own and against files that mxnet wrote."""

import gc
import json
import multiprocessing
import os
import pickle
import random
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from arcface_cakd.errors import ArcfaceCakdError, ArcfaceCakdWarning
from arcface_cakd.recordio import (
    IRHeader,
    MissingKeyError,
    MXIndexedRecordIO,
    MXRecordIO,
    RecordIOError,
    pack,
    pack_img,
    unpack,
    unpack_img,
)
from arcface_cakd.recordio.framing import read_record

GOLDEN = Path(__file__).parents[1] / "golden"
MAGIC = bytes.fromhex("0a23d7ce")


def parse(data: bytes) -> list[tuple[int, bytes]]:
    """(offset, payload) of every record of an intact file, by the format's plain words."""
    records, at = [], 0
    while at < len(data):
        start, payload = at, None
        while True:
            magic, word = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
            assert magic == MAGIC
            kind, length = divmod(word, 1 << 29)
            part = data[at + 8 : at + 8 + length]
            payload = part if payload is None else payload + MAGIC + part
            at += 8 + (length + 3) // 4 * 4
            if kind in (0, 3):
                break
        records.append((start, payload))
    return records


def payloads(seed: int, count: int) -> list[bytes]:
    """Payloads of all lengths mod 4, many with the magic in aligned and other places."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        pieces = [rng.choice((MAGIC, rng.randbytes(rng.randrange(9)))) for _ in range(6)]
        made.append(b"".join(pieces))
    return made


def write(folder: Path, items: dict[int, bytes]) -> tuple[Path, Path]:
    idx, rec = folder / "a.idx", folder / "a.rec"
    with MXIndexedRecordIO(idx, rec, "w") as writer:
        for key, payload in items.items():
            writer.write_idx(key, payload)
    return idx, rec


def read_everything(reader: MXIndexedRecordIO, queue) -> None:
    queue.put([reader.read_idx(key) for key in reader.keys])


def test_the_writers_bytes_equal_mxnets(tmp_path):
    items = json.loads((GOLDEN / "mxnet_multipart.json").read_text())
    idx, rec = write(tmp_path, {int(key): bytes.fromhex(text) for key, text in items.items()})
    assert rec.read_bytes() == (GOLDEN / "mxnet_multipart.rec").read_bytes()
    assert idx.read_bytes() == (GOLDEN / "mxnet_multipart.idx").read_bytes()


def test_what_mxnet_wrote_is_read():
    items = json.loads((GOLDEN / "mxnet_multipart.json").read_text())
    reader = MXIndexedRecordIO(GOLDEN / "mxnet_multipart.idx", GOLDEN / "mxnet_multipart.rec", "r")
    assert reader.keys == [int(key) for key in items]
    assert {key: reader.read_idx(int(key)).hex() for key in items} == items
    sequential = MXRecordIO(str(GOLDEN / "mxnet_multipart.rec"), "r")
    assert [sequential.read().hex() for _ in items] == list(items.values())
    assert sequential.read() is None


@pytest.mark.parametrize("seed", range(5))
def test_round_trip_against_an_independent_parser(tmp_path, seed):
    made = payloads(seed, 60)
    keys = random.Random(seed).sample(range(-50, 1000), len(made))
    idx, rec = write(tmp_path, dict(zip(keys, made, strict=True)))
    records = parse(rec.read_bytes())
    assert [payload for _, payload in records] == made
    lines = [tuple(map(int, line.split("\t"))) for line in idx.read_text().splitlines()]
    assert lines == [(key, at) for key, (at, _) in zip(keys, records, strict=True)]
    reader = MXIndexedRecordIO(idx, rec, "r")
    assert reader.keys == keys
    assert dict(reader.idx) == dict(lines)
    for key in random.Random(1).sample(keys, len(keys)):
        assert reader.read_idx(key) == made[keys.index(key)]


def test_a_key_is_found_wherever_its_line_stands(tmp_path):
    items = {key: f"payload {key}".encode() for key in range(9)}
    idx, rec = write(tmp_path, {**{k: items[k] for k in range(1, 9)}, 0: items[0]})
    assert idx.read_text().splitlines()[-1].startswith("0\t")
    lines = idx.read_text().splitlines(keepends=True)
    for order in (lines, lines[::-1], sorted(lines)):
        idx.write_text("".join(order))
        reader = MXIndexedRecordIO(idx, rec, "r")
        assert {key: reader.read_idx(key) for key in items} == items
        assert reader.read_idx(np.int64(4)) == items[4]
    idx.write_text("".join(lines[:3] + lines[6:]))  # gaps among the keys
    reader = MXIndexedRecordIO(idx, rec, "r")
    assert [reader.read_idx(key) for key in (1, 8, 0)] == [items[1], items[8], items[0]]
    assert 5 not in reader.idx
    with pytest.raises(MissingKeyError, match=r"a\.idx, key 5: "):
        reader.read_idx(5)


def test_other_ways_to_write_an_index(tmp_path):
    idx, rec = write(tmp_path, {1: b"one", 2: b"two"})
    idx.write_bytes(b"1\t0\r\n2\t12")
    reader = MXIndexedRecordIO(idx, rec, "r")
    assert (reader.read_idx(1), reader.read_idx(2)) == (b"one", b"two")
    idx.write_text("first\t0\nsecond\t12\n")
    reader = MXIndexedRecordIO(idx, rec, "r", key_type=str)
    assert reader.keys == ["first", "second"]
    assert reader.read_idx("second") == b"two"
    with pytest.raises(MissingKeyError, match="key third"):
        reader.read_idx("third")


def test_reading_goes_on_behind_a_key_and_resets(tmp_path):
    idx, rec = write(tmp_path, {k: bytes([k]) for k in range(5)})
    reader = MXIndexedRecordIO(idx, rec, "r")
    reader.read_idx(2)
    assert reader.read() == b"\3"
    reader.seek(1)
    assert (reader.read(), reader.tell()) == (b"\1", 24)
    reader.reset()
    assert reader.read() == b"\0"
    reader.close()
    with pytest.raises(RecordIOError, match="not open for reading"):
        reader.read_idx(0)
    reader.open()
    assert reader.read_idx(4) == b"\4"


def test_an_empty_file_has_no_records(tmp_path):
    idx, rec = write(tmp_path, {})
    reader = MXIndexedRecordIO(idx, rec, "r")
    assert (reader.read(), reader.keys, len(reader.idx)) == (None, [], 0)
    with pytest.raises(MissingKeyError):
        reader.read_idx(0)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_reader_may_go_to_another_process(tmp_path, method):
    items = dict(enumerate(payloads(3, 40)))
    reader = MXIndexedRecordIO(*write(tmp_path, items), "r")
    reader.read_idx(7)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=read_everything, args=(reader, queue))
    process.start()
    assert queue.get(timeout=60) == list(items.values())
    process.join(60)
    assert reader.read_idx(8) == items[8]  # and is still good here


def _read_next(reader, queue):
    queue.put(reader.read())


def test_a_forked_reader_starts_at_the_beginning(tmp_path):
    items = dict(enumerate(payloads(3, 3)))
    reader = MXIndexedRecordIO(*write(tmp_path, items), "r")
    reader.read_idx(1)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_read_next, args=(reader, queue))
    process.start()
    assert queue.get(timeout=60) == items[0]
    process.join(60)
    assert reader.read() == items[2]  # and goes on here


def test_pickling_leaves_the_index_behind(tmp_path):
    reader = MXIndexedRecordIO(*write(tmp_path, {k: b"x" for k in range(10_000)}), "r")
    text = pickle.dumps(reader)
    assert len(text) < 2000
    assert pickle.loads(text).read_idx(9_999) == b"x"


def test_threads_share_a_reader(tmp_path):
    items = dict(enumerate(payloads(4, 200)))
    reader = MXIndexedRecordIO(*write(tmp_path, items), "r")
    wrong = []

    def read(seed):
        for key in random.Random(seed).choices(list(items), k=2000):
            if reader.read_idx(key) != items[key]:
                wrong.append(key)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_half_written_stays(tmp_path):
    idx, rec = write(tmp_path, {0: b"old"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ZeroDivisionError), MXIndexedRecordIO(idx, rec, "w") as writer:
        writer.write_idx(0, b"new")
        raise ZeroDivisionError
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    writer = MXIndexedRecordIO(idx, rec, "w")
    writer.write_idx(0, b"new")
    with pytest.warns(ArcfaceCakdWarning, match=r"a\.rec: discarded.*call close\(\)"):
        del writer
        gc.collect()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_writer_starts_anew_on_reset(tmp_path):
    writer = MXIndexedRecordIO(tmp_path / "a.idx", tmp_path / "a.rec", "w")
    writer.write_idx(0, b"dropped")
    writer.reset()
    writer.write_idx(5, b"kept")
    assert writer.tell() == 12
    writer.close()
    reader = MXIndexedRecordIO(tmp_path / "a.idx", tmp_path / "a.rec", "r")
    assert (reader.keys, reader.read_idx(5)) == ([5], b"kept")


def _touch_a_forked_writer(writer, queue):
    try:
        writer.write(b"from the child")
    except RecordIOError as error:
        queue.put(str(error))
    writer.__del__()


def test_a_writer_belongs_to_its_process(tmp_path):
    writer = MXRecordIO(tmp_path / "a.rec", "w")
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(writer)
    writer.write(b"mine")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_touch_a_forked_writer, args=(writer, queue))
    process.start()
    assert "another process" in queue.get(timeout=60)
    process.join(60)
    writer.close()
    assert MXRecordIO(tmp_path / "a.rec", "r").read() == b"mine"


def test_wrong_use_says_what_is_wrong(tmp_path):
    idx, rec = write(tmp_path, {0: b"zero"})
    reader, writer = MXIndexedRecordIO(idx, rec, "r"), MXRecordIO(tmp_path / "b.rec", "w")
    with pytest.raises(RecordIOError, match="not open for writing"):
        reader.write(b"x")
    with pytest.raises(RecordIOError, match="not open for reading"):
        writer.read()
    writer.close()
    with pytest.raises(ValueError, match="flag"):
        MXRecordIO(rec, "a")
    with (
        pytest.raises(RecordIOError, match="key 1: the key is already written"),
        MXIndexedRecordIO(tmp_path / "c.idx", tmp_path / "c.rec", "w") as twice,
    ):
        twice.write_idx(1, b"x")
        twice.write_idx(1, b"y")
    with pytest.raises(RecordIOError, match=r"no\.rec: no such file"):
        MXIndexedRecordIO(idx, tmp_path / "no.rec", "r")
    with pytest.raises(RecordIOError, match=r"no\.idx: no such file, where the index of"):
        MXIndexedRecordIO(tmp_path / "no.idx", rec, "r")
    with pytest.raises(RecordIOError, match="cannot be opened"):
        MXRecordIO(tmp_path, "r")


# -- damage ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """A set of records, its bytes, and which of them are heads, padding and payload."""
    folder = tmp_path_factory.mktemp("intact")
    rng = random.Random(0)
    items = {k: p + rng.randbytes(rng.randrange(60)) for k, p in enumerate(payloads(1, 80))}
    idx, rec = write(folder, {**{k: items[k] for k in range(1, 80)}, 0: items[0]})
    return items, idx.read_bytes(), rec.read_bytes()


def payload_bytes(data: bytes) -> set[int]:
    """Positions that hold payload (not heads, not padding)."""
    inside, at = set(), 0
    while at < len(data):
        length = struct.unpack("<I", data[at + 4 : at + 8])[0] % (1 << 29)
        inside.update(range(at + 8, at + 8 + length))
        at += 8 + (length + 3) // 4 * 4
    return inside


def readings(tmp_path, idx: bytes, rec: bytes, keys) -> dict:
    """What each key reads as; errors are checked for their form."""
    paths = tmp_path / "d.idx", tmp_path / "d.rec"
    for path, data in zip(paths, (idx, rec), strict=True):
        path.write_bytes(data)
    found = {}
    try:
        reader = MXIndexedRecordIO(*paths, "r")
    except RecordIOError as error:
        assert str(error).startswith(str(paths[0])) and error.offset is not None
        assert "\n" not in str(error)
        return {key: error for key in keys}
    for key in keys:
        try:
            found[key] = reader.read_idx(key)
        except RecordIOError as error:
            text = str(error)
            assert text.startswith((f"{paths[1]}, key {key}, byte ", f"{paths[0]}, key {key}: "))
            assert isinstance(error, MissingKeyError) or error.offset is not None
            assert "\n" not in text
            found[key] = error
    return found


def only_zeros_differ(one: bytes, other: bytes) -> bool:
    """The one fault the format cannot show: a length wrong within the padding of zeros."""
    return abs(len(one) - len(other)) < 4 and one.rstrip(b"\0") == other.rstrip(b"\0")


@pytest.mark.parametrize("seed", range(300))
def test_damage_gives_the_error_or_intact_data(tmp_path, intact, seed):
    """Cuts and flips, in the records or their index.

    A flipped byte inside a payload cannot be seen, as the format has no checksum, so there the
    record that was hit may read as that payload with that byte changed; nothing else may differ.
    """
    items, idx, rec = intact
    rng = random.Random(seed)
    hit_index, cut = rng.random() < 0.3, rng.random() < 0.3
    data = bytearray(idx if hit_index else rec)
    at = rng.randrange(len(data))
    if cut:
        del data[at:]
    else:
        # Half of the flips go to heads, which are few among the bytes.
        if not hit_index and rng.random() < 0.5:
            at = rng.choice(sorted(set(range(len(rec))) - payload_bytes(rec)))
        data[at] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
    damaged = (bytes(data), rec) if hit_index else (idx, bytes(data))
    found = readings(tmp_path, *damaged, items)
    in_payload = not hit_index and not cut and at in payload_bytes(rec)
    for key, payload in items.items():
        got = found[key]
        if isinstance(got, RecordIOError) or got == payload:
            continue
        if in_payload:
            assert len(got) == len(payload)
            assert sum(a != b for a, b in zip(got, payload, strict=True)) == 1
        else:
            assert only_zeros_differ(got, payload), (key, at)
    unharmed = sum(found[key] == payload for key, payload in items.items())
    if not hit_index and not cut:
        assert unharmed >= len(items) - 2  # the one that was hit, and one that may swallow it


def test_every_flip_of_a_head_is_seen(intact):
    """All bits of all heads and paddings, one at a time."""
    items, idx, rec = intact
    keys = sorted((offset, key) for key, offset in _offsets(idx).items())
    positions = sorted(set(range(len(rec))) - payload_bytes(rec))
    unseen = 0
    for at in positions:
        offset, key = max(pair for pair in keys if pair[0] <= at)
        for bit in range(8):
            data = bytearray(rec)
            data[at] ^= 1 << bit
            try:
                got, _ = read_record(bytes(data), offset, "a.rec")
            except RecordIOError:
                continue
            unseen += 1
            assert only_zeros_differ(got, items[key])
            assert got != items[key]
    assert unseen < len(items)  # the lowest bits of some lengths


def _offsets(idx: bytes) -> dict[int, int]:
    return {int(k): int(v) for k, v in (line.split(b"\t") for line in idx.splitlines())}


def test_records_beside_a_damaged_one_are_read(tmp_path, intact):
    items, idx, rec = intact
    offset = _offsets(idx)[40]
    data = bytearray(rec)
    data[offset : offset + 8] = bytes(8)
    found = readings(tmp_path, idx, bytes(data), items)
    assert isinstance(found[40], RecordIOError)
    assert {k: v for k, v in found.items() if k != 40} == {
        k: v for k, v in items.items() if k != 40
    }


def test_an_index_may_name_some_of_the_records(tmp_path, intact):
    items, idx, rec = intact
    some = b"".join(idx.splitlines(keepends=True)[::3])
    keys = list(_offsets(some))
    assert readings(tmp_path, some, rec, keys) == {key: items[key] for key in keys}


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (b"\x89PNG\r\n\x1a\n" * 4, "not a line of 'key<tab>offset'"),
        (b"0\t0\n1\t12\n1\t24\n", "key 1, byte 12: the key occurs twice"),
        (b"0\t0\n1\t12\n7\t12\n", "keys 1 and 7 have the same byte offset"),
        (b"0\t0\n1 12\n", "byte 4: not a line"),
        (b"0\t0\n1\t99999999999999999999\n", "byte 4: not a line"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path, index, text):
    write(tmp_path, {0: b"zero"})
    (tmp_path / "a.idx").write_bytes(index)
    with pytest.raises(RecordIOError, match=text):
        MXIndexedRecordIO(tmp_path / "a.idx", tmp_path / "a.rec", "r")


def test_errors_pass_between_processes():
    error = RecordIOError("the problem", "x.rec", 3, 12)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "x.rec, key 3, byte 12: the problem"
    assert (copy.path, copy.key, copy.offset) == ("x.rec", 3, 12)
    missing = pickle.loads(pickle.dumps(MissingKeyError("gone", "x.idx", 3)))
    assert str(missing) == "x.idx, key 3: gone"
    assert isinstance(missing, KeyError) and isinstance(missing, ArcfaceCakdError)


# -- headers and images ---------------------------------------------------------------------


def test_headers_are_laid_out_as_the_format_says():
    assert pack(IRHeader(9, 4, 2574, 1), b"img") == struct.pack("<IfQQ", 0, 4, 2574, 1) + b"img"
    header, image = unpack(pack(IRHeader(0, [3, 1.5, 2**24], 7, 0), b"img"))
    assert (header.flag, header.id, image) == (3, 7, b"img")
    assert header.label.dtype == np.float32 and header.label.tolist() == [3, 1.5, 2**24]
    assert unpack(pack(IRHeader(0, np.float32(2.5), 0, 0), b""))[0] == (0, 2.5, 0, 0)
    assert unpack(struct.pack("<IfQQ3f", 3, 0, 1, 2, 5, 6, 7))[0].label.tolist() == [5, 6, 7]
    assert pickle.loads(pickle.dumps(header)).flag == 3


@pytest.mark.parametrize("payload", [b"", b"x" * 23, struct.pack("<IfQQ", 2, 0, 0, 0) + b"1234567"])
def test_what_is_no_image_record_is_refused(payload):
    with pytest.raises(RecordIOError, match="no image record"):
        unpack(payload)


@pytest.mark.parametrize("label", ["x", [1, "y"]])
def test_labels_that_do_not_fit_are_refused(label):
    with pytest.raises(RecordIOError, match="does not fit"):
        pack(IRHeader(0, label, 0, 0), b"")
    with pytest.raises(RecordIOError, match="does not fit"):
        pack(IRHeader(0, 0, -1, 0), b"")


def test_images_are_packed_as_opencv_would():
    cv2 = pytest.importorskip("cv2")
    ramp = np.linspace(0, 255, 40 * 50 * 3).reshape(40, 50, 3).astype(np.uint8)
    ramp[10:20, 5:25] = (255, 0, 10)  # BGR
    header = IRHeader(0, 3, 1, 0)
    for suffix, quality in ((".png", 3), (".jpg", 95), (".JPEG", 60)):
        payload = pack_img(header, ramp, quality, suffix)
        encoded = np.frombuffer(unpack(payload)[1], np.uint8)
        for iscolor in (1, 0, -1):
            got_header, image = unpack_img(payload, iscolor)
            expected = cv2.imdecode(encoded, iscolor)
            assert got_header == header and image.shape == expected.shape
            assert np.abs(image.astype(int) - expected).max() <= (suffix == ".png" and not iscolor)
        if suffix == ".png":
            np.testing.assert_array_equal(image, ramp)
        else:
            theirs = cv2.imencode(".jpg", ramp, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            difference = unpack_img(payload, 1)[1].astype(int) - cv2.imdecode(theirs, 1)
            assert np.abs(difference).max() < 30  # 4:2:2 or 4:4:4 chroma would differ by 60
    grey = ramp[..., 0].copy()
    assert unpack_img(pack_img(header, grey, 95))[1].shape == (40, 50)
    np.testing.assert_array_equal(unpack_img(pack_img(header, grey, 9, ".png"))[1], grey)
    alpha = cv2.imencode(".png", np.dstack([ramp, grey]))[1].tobytes()
    np.testing.assert_array_equal(unpack_img(pack(header, alpha))[1], np.dstack([ramp, grey]))


def test_images_that_cannot_be_packed_or_unpacked():
    with pytest.raises(RecordIOError, match="does not decode"):
        unpack_img(pack(IRHeader(0, 0, 0, 0), b"\xff\xd8\xff no image"))
    with pytest.raises(RecordIOError, match="must be uint8"):
        pack_img(IRHeader(0, 0, 0, 0), np.zeros((4, 4, 3)))
    with pytest.raises(RecordIOError, match="image format"):
        pack_img(IRHeader(0, 0, 0, 0), np.zeros((4, 4, 3), np.uint8), img_fmt=".gif")
    with pytest.raises(RecordIOError, match="iscolor"):
        unpack_img(pack_img(IRHeader(0, 0, 0, 0), np.zeros((4, 4, 3), np.uint8)), iscolor=7)


def test_plain_reading_needs_numpy_alone(tmp_path):
    write(tmp_path, {0: pack(IRHeader(0, 1, 0, 0), b"x")})
    code = (
        "import sys\nfrom arcface_cakd import recordio\n"
        f"r = recordio.MXIndexedRecordIO({str(tmp_path / 'a.idx')!r}, "
        f"{str(tmp_path / 'a.rec')!r}, 'r')\nrecordio.unpack(r.read_idx(0))\n"
        "assert not {'torch', 'PIL', 'simplejpeg', 'cv2'} & set(sys.modules), 'imported'"
    )
    assert os.spawnl(os.P_WAIT, os.sys.executable, os.sys.executable, "-c", code) == 0
