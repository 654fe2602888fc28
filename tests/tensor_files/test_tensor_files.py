"""Files of tensors: what is written comes back, every flipped bit is seen, lies take no memory."""

import hashlib
import io
import logging
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn

from arcface_cakd.tensor_files import DamagedFile, load_tensors, seal, write_tensors
from arcface_cakd.tensor_files.layout import AsksTooMuch, storages_of


def contents():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.randn(4, 5)).sum().backward()
    optimizer.step()
    shared = torch.arange(6.0)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "views": [shared[:3], shared.view(2, 3).T, torch.zeros(0, 4), torch.tensor(1)],
        "others": [torch.zeros(2, dtype=kind) for kind in (torch.uint16, torch.bool, torch.half)],
        "parameter": nn.Parameter(torch.ones(2).bfloat16()),
        "plain": (1, 2.5, "text", None, True, {"a": [torch.Size([1, 2])]}),
    }


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "a.pt"
    write_tensors(path, contents())
    return path


@pytest.mark.parametrize("mapped", [False, True])
def test_what_is_written_comes_back_here_and_by_torch(sealed, mapped):
    wanted = contents()
    assert equal(wanted, load_tensors(sealed, mapped=mapped))
    assert equal(wanted, torch.load(sealed, weights_only=True, mmap=mapped))


def test_equal_contents_are_equal_bytes_and_the_digest_is_of_them(sealed, tmp_path):
    write_tensors(tmp_path / "another name.pt", contents())
    data = sealed.read_bytes()
    assert (tmp_path / "another name.pt").read_bytes() == data
    with zipfile.ZipFile(sealed) as archive:
        comment, damaged = archive.comment, archive.testzip()
    assert damaged is None
    assert comment == b"sha256:" + hashlib.sha256(data[: -len(comment)]).hexdigest().encode()


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_files_of_torch_itself_are_read(tmp_path, caplog, old, mapped):
    path = tmp_path / "a.pt"
    wanted = contents()
    if old:
        del wanted["others"]  # which torch itself does not read again
    torch.save(wanted, path, _use_new_zipfile_serialization=not old)
    with caplog.at_level(logging.WARNING, "arcface_cakd"):
        assert equal(wanted, load_tensors(path, mapped=mapped))
    assert ("a format without checksums" in caplog.text) == old


def test_every_flipped_bit_of_what_we_write_is_seen(sealed):
    data = sealed.read_bytes()
    rng = random.Random(0)
    ends = [*range(40), *range(len(data) * 8 - 8 * 100, len(data) * 8, 5)]
    for bit in [*ends, *rng.sample(range(8 * len(data)), 60)]:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        sealed.write_bytes(flipped)
        with pytest.raises((DamagedFile, pickle.UnpicklingError, ValueError)):
            load_tensors(sealed)


def test_a_file_that_is_cut_while_it_is_read_is_damaged(sealed, monkeypatch):
    class Cutting:
        blocks = 0

        def update(self, block):
            self.blocks += 1
            assert self.blocks < 99, "it reads on for ever"
            os.truncate(sealed, 600)

    monkeypatch.setattr(seal, "_BLOCK", 512)
    monkeypatch.setattr(seal.hashlib, "sha256", Cutting)
    with pytest.raises(DamagedFile, match="cut while it was read"):
        seal.check_seal(sealed)


def test_every_flipped_bit_of_a_record_of_torchs_own_is_seen(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.randn(40)}, path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        record = archive.read("a/data/0")
    begin = data.index(record)
    for bit in range(8 * begin, 8 * (begin + len(record)), 7):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DamagedFile, match="record 'a/data/0' does not have the checksum"):
            load_tensors(path)


def test_cut_files_are_seen(sealed):
    data = sealed.read_bytes()
    for length in (0, 1, 30, len(data) // 2, len(data) - 71, len(data) - 1):
        sealed.write_bytes(data[:length])
        with pytest.raises((DamagedFile, pickle.UnpicklingError, ValueError)):
            load_tensors(sealed)


class Rebuilt:
    """A tensor as its pickle says it, true or not."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return self.arguments[0], self.arguments[1:]


class Storage:
    def __init__(self, count, key="0", kind=torch.FloatStorage):
        self.pid = ("storage", kind, key, "cpu", count)


def archive(path, content, records):
    """A zip as torch writes it, of a pickle that may lie."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            return item.pid if isinstance(item, Storage) else None

    data = io.BytesIO()
    Pickler(data, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", data.getvalue())
        file.writestr("a/byteorder", "little")
        for key, record in records.items():
            file.writestr(f"a/data/{key}", record)
        file.writestr("a/version", "3\n")


def rebuilt(size, stride, count, offset=0):
    v2 = torch._utils._rebuild_tensor_v2
    return Rebuilt(v2, Storage(count), offset, size, stride, False, OrderedDict())


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (rebuilt((10**10,), (1,), 10**10), "40000000000 bytes for the record data/0, which has 16"),
        (rebuilt((5,), (1,), 5), "20 bytes for the record data/0, which has 16"),
        (rebuilt((10**5, 10**5), (0, 0), 4), r"a tensor \(100000, 100000\) with strides \(0, 0\)"),
        (rebuilt((2, 2), (0, 1), 4), r"with strides \(0, 1\) of a storage of 4"),
        (rebuilt((3, 3), (1, 1), 4), "of a storage of 4 numbers"),
        (rebuilt((2,), (-1,), 4), "size and strides make no sense"),
        (Rebuilt(bytearray, 10**10), "asks for .*bytearray, which no state dict needs"),
        (rebuilt((4,), (1,), -4), "a storage of -4 numbers"),
    ],
)
def test_what_asks_for_more_than_the_file_has_is_refused(tmp_path, content, text):
    archive(tmp_path / "a.pt", {"weight": content}, {"0": bytes(16)})
    tracemalloc.start()
    with pytest.raises(AsksTooMuch, match=text):
        load_tensors(tmp_path / "a.pt")
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_the_archive_of_these_tests_is_one_where_it_does_not_lie(tmp_path):
    archive(tmp_path / "a.pt", {"weight": rebuilt((2, 2), (2, 1), 4)}, {"0": bytes(16)})
    assert torch.equal(load_tensors(tmp_path / "a.pt")["weight"], torch.zeros(2, 2))


def test_packed_records_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(10**6)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as one,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as other,
    ):
        for name in one.namelist():
            other.writestr(name, one.read(name))
    assert (tmp_path / "b.pt").stat().st_size < 20_000
    with pytest.raises(AsksTooMuch, match="packed"):
        load_tensors(tmp_path / "b.pt")


def test_an_old_file_that_lies_about_its_storages_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert data.count(b"M\xe8\x03") == 2  # BININT2 of 1000: in the storage, and in the shape
    path.write_bytes(data.replace(b"M\xe8\x03", b"J" + struct.pack("<i", 2 * 10**9)))
    with pytest.raises(AsksTooMuch, match="8000000000 bytes of storages"):
        load_tensors(path)


def test_a_tuple_deeper_than_the_stack_is_refused():
    deep = b"\x80\x02}" + b")" + b"\x85" * 10**5 + b"K\x01s."  # as a key, which is hashed
    with pytest.raises(AsksTooMuch, match="deep"):
        storages_of(io.BytesIO(deep))


def test_nothing_stays_behind_of_a_pickle_that_changes_what_it_calls():
    name = b"ctorch._utils\n_rebuild_tensor_v2\n"
    with pytest.raises(AsksTooMuch, match="changes"):
        storages_of(io.BytesIO(b"\x80\x02" + name + b"N}X\x01\x00\x00\x00aK\x01s\x86b."))


def test_a_full_disk_is_the_systems_error():
    with pytest.raises(OSError) as raised:
        write_tensors("/dev/full", {"weight": torch.zeros(10**6)})
    assert raised.value.errno == 28
