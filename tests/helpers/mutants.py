"""Files that strangers may hand us: a corpus of each format, what is done to it, who reads it."""

import contextlib
import io
import json
import pickle
import pickletools
import random
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from arcface_cakd.config import load_config
from arcface_cakd.data import DataError, read_bin
from arcface_cakd.data.face_landmarks import FaceLandmarks
from arcface_cakd.data.images import decode_image
from arcface_cakd.data.record_layout import image_keys, read_property
from arcface_cakd.errors import ArcfaceCakdError
from arcface_cakd.patching.blocks import take_out
from arcface_cakd.recordio import IRHeader, MXIndexedRecordIO, codec, pack, unpack
from arcface_cakd.recordio.block_digests import BlockDigests, write_digests
from arcface_cakd.teacher_cache.store import read_index

_NUMBERS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_TEXTS = (
    b"0",
    b"-1",
    b"1",
    b"999999999999999999",
    b"9" * 30,
    b"1e9",
    b"nan",
    b"[",
    b"(",
    b"\t",
    b"\n",
)

Change = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Target:
    """A parser of ours.

    Attributes:
        corpus: files of its format that it takes, made in a folder that is given.
        read: reads a file's content in a folder that is given, all of it.
        changes: what may be done to a file besides ``anywhere``.
        errors: those that it documents.
    """

    corpus: Callable[[Path], list[bytes]]
    read: Callable[[bytes, Path], object]
    changes: tuple[Change, ...] = ()
    errors: tuple[type[Exception], ...] = (ArcfaceCakdError,)


def mutant(target: Target, corpus: list[bytes], rng: random.Random) -> bytes:
    """One of the corpus, changed once or a few times."""
    data = rng.choice(corpus)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        change = rng.choice((anywhere, *target.changes))
        try:
            data = change(data, rng)
        except Exception:  # what was changed before is no such file any more
            data = anywhere(data, rng)
        if rng.random() < 0.05:
            other = rng.choice(corpus)
            data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
    return data[:100_000]


def anywhere(data: bytes, rng: random.Random) -> bytes:
    """A change that knows nothing of the format."""
    changed = bytearray(data)
    place = rng.randrange(len(data) + 1)
    kind = rng.randrange(7)
    if kind == 0 and data:
        changed[place % len(data)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        number = rng.choice(_NUMBERS)
        order = rng.choice("<>")
        form = rng.choice("BHI")
        changed[place : place + struct.calcsize(form)] = struct.pack(
            order + form, number & (1 << 8 * struct.calcsize(form)) - 1
        )
    elif kind == 2:
        del changed[place : place + rng.choice((1, 2, 4, 100))]
    elif kind == 3:
        changed[place:place] = data[place : place + rng.choice((1, 4, 50))]
    elif kind == 4:
        changed[place:place] = rng.choice(_TEXTS)
    elif kind == 5:
        changed[place:place] = rng.randbytes(rng.choice((1, 2, 8)))
    else:
        del changed[place:]
    return bytes(changed)


def of_opcodes(data: bytes, rng: random.Random) -> bytes:
    """A pickle whose steps are dropped, doubled, moved or taken with other arguments."""
    places = [place or 0 for _, _, place in pickletools.genops(data)]
    steps = [data[a:b] for a, b in zip(places, [*places[1:], len(data)], strict=True)]
    kind, at = rng.randrange(4), rng.randrange(len(steps))
    if kind == 0:
        del steps[at]
    elif kind == 1:
        steps[at:at] = [steps[at]] * rng.choice((1, 2, 50))
    elif kind == 2:
        steps.insert(rng.randrange(len(steps)), steps.pop(at))
    else:
        opcode = rng.choice(pickletools.opcodes).code.encode("latin1")
        steps[at] = opcode + rng.choice(
            (steps[at][1:], b"", struct.pack("<I", rng.choice(_NUMBERS)))
        )
    return b"".join(steps)


def of_zip(data: bytes, rng: random.Random) -> bytes:
    """A zip with a record changed, whose checksums are right."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as one, zipfile.ZipFile(written, "w") as other:
        names = one.namelist()
        chosen = rng.choice([name for name in names if name.endswith("data.pkl")] * 3 + names)
        for name in names:
            content = one.read(name)
            if name == chosen:
                is_pickle = name.endswith(".pkl") and rng.random() < 0.7
                content = of_opcodes(content, rng) if is_pickle else anywhere(content, rng)
                if rng.random() < 0.02:
                    continue
            other.writestr(name, content, rng.choice((0, 0, 0, 0, 0, 0, 0, 8)))
    return written.getvalue()


def of_heads(data: bytes, rng: random.Random) -> bytes:
    """A record file with another number in one of its heads."""
    changed = bytearray(data)
    found = re.finditer(rb"\x0a\x23\xd7\xce", data[: max(len(data) - 29, 0)])
    heads = [match.start() for match in found if match.start() % 4 == 0]
    at = rng.choice(heads) + rng.choice((4, 8, 12, 16, 32))
    changed[at : at + 4] = struct.pack("<I", rng.choice((*_NUMBERS, 1 << 29, 2 << 29, 3 << 29)))
    return bytes(changed)


def of_numbers(data: bytes, rng: random.Random) -> bytes:
    """A text with another number in the place of one."""
    spans = [(i, j) for i, j in _numbers(data)]
    begin, end = rng.choice(spans)
    return data[:begin] + rng.choice(_TEXTS) + data[end:]


def _numbers(data: bytes):
    begin = None
    for i, byte in enumerate(data + b" "):
        if 48 <= byte < 58:
            begin = i if begin is None else begin
        elif begin is not None:
            yield begin, i
            begin = None


def _pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
    pixels = np.repeat(np.repeat(pixels[:8, :8], 14, 0), 14, 1)
    found = [
        codec.encode(pixels, 80),
        codec.encode(pixels[..., 0], 60),
        codec.encode(pixels, 9, ".png"),
    ]
    for kind, mode in (
        ("WEBP", "RGB"),
        ("GIF", "P"),
        ("BMP", "RGB"),
        ("TIFF", "I;16"),
        ("PPM", "L"),
    ):
        file = io.BytesIO()
        image = Image.fromarray(pixels)
        if mode == "I;16":
            image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 200)
        elif mode != "RGB":
            image = image.convert(mode)
        image.save(file, kind)
        found.append(file.getvalue())
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(file, "JPEG", progressive=True, exif=exif)
    return [*found, file.getvalue()]


def _bins(folder: Path) -> list[bytes]:
    one, other = _pictures()[0], _pictures()[2]
    images, truths = [one, other, one, one], [True, False]
    array = np.frombuffer(one, np.uint8)
    found = [pickle.dumps((images, truths), protocol) for protocol in range(6)]
    found += [pickle.dumps(([array] * 2, np.array([1.0])), protocol) for protocol in (2, 4, 5)]
    found.append(pickle.dumps((np.array(images, dtype=object), [np.bool_(True), 0]), 4))
    found.append(pickle.dumps(([bytearray(one)] * 2, (1,)), 2))
    return found


def _records(folder: Path) -> list[bytes]:
    """Record files, with what stands in them, all with one index, which stays in the folder."""
    found = []
    picture = _pictures()[0]
    for label in ([3.0, 4.0], [1.0, 2.0]):
        with MXIndexedRecordIO(folder / "train.idx", folder / "train.rec", "w") as writer:
            for key in (1, 2):
                writer.write_idx(key, pack(IRHeader(0, label, key, 0), picture))
            writer.write_idx(3, pack(IRHeader(0, 0.0, 3, 0), b"\x0a\x23\xd7\xce" * 3))
            writer.write_idx(4, pack(IRHeader(2, [1, 4], 4, 0), b""))
            writer.write_idx(0, pack(IRHeader(2, [4, 5], 0, 0), b""))
        found.append((folder / "train.rec").read_bytes())
    return found


def _read_all(folder: Path) -> None:
    reader = MXIndexedRecordIO(folder / "train.idx", folder / "train.rec", "r")
    with contextlib.suppress(ArcfaceCakdError):
        image_keys(reader)
    for key in reader.keys[:20]:
        unpack(reader.read_idx(key))


def _indices(folder: Path) -> list[bytes]:
    _records(folder)
    return [(folder / "train.idx").read_bytes()]


def _digests(folder: Path) -> list[bytes]:
    _records(folder)
    return [write_digests(folder / "train.rec").read_bytes()]


def _read_digests(data: bytes, folder: Path) -> None:
    (folder / "train.sha256").write_bytes(data)
    BlockDigests(folder / "train.rec").damages()


def _decode(data: bytes, folder: Path) -> None:
    with contextlib.suppress(DataError):
        decode_image(data)
    for mode in ("L", None):
        with contextlib.suppress(ValueError):
            codec.decode(data, mode)
    codec.image_size(data)


def _into(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def write_and_read(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        return read(folder)

    return write_and_read


def _arrays(folder: Path) -> list[bytes]:
    found = []
    for array in (np.full((3, 5, 2), 50, np.float32), np.asfortranarray(np.ones((3, 5, 2)))):
        file = io.BytesIO()
        np.save(file, array)
        found.append(file.getvalue())
    file = io.BytesIO()
    np.savez_compressed(file, a=np.ones((3, 5, 2), np.float32))
    return [*found, file.getvalue()]


def _tables(folder: Path) -> list[bytes]:
    rows = "".join(f"{i},{','.join(['0.4'] * 10)}\n" for i in range(3))
    wide = "".join(f"{i},{','.join(['0.4'] * 15)}\n" for i in range(3))
    return [f"idx,x\n{rows}".encode(), f"idx,x\n{wide}".encode()]


def _landmarks(folder: Path) -> None:
    points = FaceLandmarks(folder, 3)
    for row in range(len(points)):
        points[row]


_CONFIG = """
from easydict import EasyDict as edict
losses = [dict(name="rkd", weight=1.0), dict(name="kd", weight=1.0)]
teacher = dict(network="swin_mini", weights="random")
config = edict(rec="r", margin_list=(1.0, 0.5, 0.0), cakd=dict(
    teacher=teacher, urfm=dict(dim=16), losses=losses))
"""
_SETTINGS = [
    b"lr=0.1", b"cakd.losses.1.weight=2", b"cakd.urfm.dim=128", b"margin_list=(1, 0.5, 0)",
    b"cakd.losses=[{'name': 'rkd'}]", b"cakd.teacher.network='swin_mini'", b"augment={'crop': 0.2}",
    b"cakd.urfm=None", b"val_targets=('lfw',)", b"output=/tmp/a b", b"cakd.prompts.__class__=3",
    b"cakd.urfm.keys=1", b"cakd.items=2", b"margin_list.0.real=1",
]  # fmt: skip


def _set(data: bytes, folder: Path) -> None:
    path = folder / "config.py"
    if not path.exists():
        path.write_text(_CONFIG)
    load_config(path, [data.decode("utf-8", "surrogateescape")])


def _host_file(data: bytes, folder: Path) -> None:
    take_out(data.decode("utf-8", "surrogateescape").split("\n"), "train_v2.py")


def _weights(folder: Path) -> list[bytes]:
    import torch
    from torch import nn

    from arcface_cakd.tensor_files import write_tensors

    torch.manual_seed(0)
    state = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()
    write_tensors(folder / "sealed.pt", state)
    torch.save(state, folder / "plain.pt")
    torch.save({"state_dict": state}, folder / "old.pt", _use_new_zipfile_serialization=False)
    return [(folder / f"{name}.pt").read_bytes() for name in ("sealed", "plain", "old", "plain")]


def _safetensors(folder: Path) -> list[bytes]:
    import torch
    from safetensors.torch import save
    from torch import nn

    torch.manual_seed(0)
    state = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()
    return [save(state), save({f"module.{name}": tensor for name, tensor in state.items()})]


def _read_weights(path: Path) -> None:
    from torch import nn

    from arcface_cakd.backbones import load_weights

    load_weights(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), path)


def _graphs(folder: Path) -> list[bytes]:
    from onnx import TensorProto, helper

    def floats(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Mul", ["m", "w"], ["y"]),
    ]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    graph = helper.make_graph(
        nodes, "g", [floats("x", ("n", 3, 112, 112))], [floats("y", None)], [weight]
    )
    opset = [helper.make_opsetid("", 17)]
    return [helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()]


def _teach(folder: Path) -> None:
    import torch

    from arcface_cakd.backbones import OnnxTeacher, weights_digest

    teacher = OnnxTeacher(folder / "a.onnx")
    teacher(torch.zeros(3, 3, 112, 112))
    weights_digest(teacher)


_BLOCKS = b"""import os
# >>> arcface-cakd cakd 1 import 5614f749
from utils import utils_cakd as cakd
# <<< arcface-cakd
            # >>> arcface-cakd cakd 1 clip af333f10
            # ---             clip(model)
            cakd.clip(model)
            # <<< arcface-cakd
"""
_CACHE = json.dumps(
    {"identity": {"a": 1}, "images": 4, "views": 1, "grid": [7, 7], "parts": {"tokens": [49, 8]}}
)

TARGETS: dict[str, Target] = {
    "bin": Target(_bins, _into("a.bin", lambda folder: read_bin(folder / "a.bin")), (of_opcodes,)),
    "rec": Target(_records, _into("train.rec", _read_all), (of_heads,)),
    "idx": Target(_indices, _into("train.idx", _read_all), (of_numbers,)),
    "digests": Target(_digests, _read_digests, (of_numbers,)),
    "image": Target(lambda folder: _pictures(), _decode, errors=(ValueError,)),
    "property": Target(
        lambda folder: [b"93431,112,112\n"], _into("property", read_property), (of_numbers,)
    ),
    "landmarks": Target(_arrays, _into("train_landmarks.npy", _landmarks), (of_numbers,)),
    "table": Target(_tables, _into("ldmk_5points.csv", _landmarks), (of_numbers,)),
    "settings": Target(lambda folder: _SETTINGS, _set, (of_numbers,)),
    "cache": Target(
        lambda folder: [_CACHE.encode()], _into("index.json", read_index), (of_numbers,)
    ),
    "weights": Target(
        _weights, _into("a.pt", lambda folder: _read_weights(folder / "a.pt")), (of_zip,)
    ),
    "safetensors": Target(
        _safetensors,
        _into("a.safetensors", lambda folder: _read_weights(folder / "a.safetensors")),
        (of_numbers,),
    ),
    "onnx": Target(_graphs, _into("a.onnx", _teach), (of_numbers,)),
    "host": Target(lambda folder: [_BLOCKS], _host_file, (of_numbers,)),
}  # fmt: skip
