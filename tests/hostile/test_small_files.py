"""Small files that are read in passing: whatever they hold, one line says what is wrong."""

import io
import struct
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest
from helpers.record_sets import jpeg
from onnx import TensorProto, helper

from arcface_cakd.alignment.geometry import read_saliency_map
from arcface_cakd.backbones import BackboneError, OnnxTeacher
from arcface_cakd.config import ConfigError, load_config
from arcface_cakd.data import DataError
from arcface_cakd.data.face_landmarks import FaceLandmarks
from arcface_cakd.data.record_layout import read_property
from arcface_cakd.recordio import codec


def header_of(kind: str, side: int) -> bytes:
    """A few bytes that begin as a picture of side x side does."""
    if kind == "JPEG":
        data = bytearray(jpeg(0))
        place = data.index(b"\xff\xc0")
        data[place + 5 : place + 9] = struct.pack(">HH", side, side)
        return bytes(data)
    if kind == "PNG":

        def chunk(name, content):
            crc = struct.pack(">I", zlib.crc32(name + content))
            return struct.pack(">I", len(content)) + name + content + crc

        head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        pixels = zlib.compress(bytes(1000))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels)
    if kind == "PPM":
        return b"P6 %d %d 255\n" % (side, side) + bytes(100)
    assert kind == "BMP"
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + head + bytes(100)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM", "BMP"])
@pytest.mark.parametrize("mode", ["RGB", "L", None])
def test_an_image_that_says_it_is_huge_takes_no_memory(kind, mode):
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"its header says 9000 x 9000 pixels, which are more"):
        codec.decode(header_of(kind, 9000), mode)
    with pytest.raises(ValueError, match=r"its header says 9000 x 9000 pixels, which are more"):
        codec.decode_rgb(header_of(kind, 9000))
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()
    assert codec.image_size(header_of(kind, 9000)) == (9000, 9000)  # which is only asked


def test_a_format_that_runs_programs_is_none():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 112 112\n%%EndComments\nshowpage\n"
    with pytest.raises(ValueError, match="no known image format"):
        codec.decode_rgb(postscript)


@pytest.mark.parametrize(
    "text",
    ["", "0,112,112", "-4,112,112", "4,112", "4,112,113", "4,112,112,1", "1e3,112,112", "9" * 5000,
     "4_0,112,112", "\ufffd", "99999999,112,112", "\u0664,112,112"],
)  # fmt: skip
def test_property_says_what_it_must_or_is_named(tmp_path, text):
    (tmp_path / "property").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"property: .*mend it") as raised:
        read_property(tmp_path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_property_is_read_as_before(tmp_path):
    for text in ("93431,112,112", "93431, 112, 112\n", "93431,112,112\r\nmore\n"):
        (tmp_path / "property").write_text(text)
        assert read_property(tmp_path) == 93431


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros((2, 5, 2), np.float32))
    return file.getvalue()


def packed() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("a.npy", bytes(10**6))
    return file.getvalue()


ARRAYS = {
    "empty": b"",
    "text": b"landmarks",
    "cut archive": archive()[:40],
    "archive": archive(),
    "packed archive": packed(),
    "huge": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 5, 2)}"),
    "negative": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 5, 2)}", bytes(40)),
    "deep": npy("{'descr': " + "[" * 5000),
    "open": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 5, 2"),
    "objects": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 5, 2)}", bytes(80)),
    "version": b"\x93NUMPY\x09\x00" + bytes(100),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_are_none_are_named(tmp_path, kind):
    path = tmp_path / "train_landmarks.npy"
    path.write_bytes(ARRAYS[kind])
    tracemalloc.start()
    with pytest.raises(DataError, match=r"train_landmarks\.npy: no \.npy file of numbers") as one:
        FaceLandmarks(tmp_path, 2)
    with pytest.raises(ConfigError, match=r"saliency_map .* is no \.npy file of numbers") as two:
        read_saliency_map(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    assert all("\n" not in str(raised.value) for raised in (one, two))


@pytest.mark.parametrize(
    "override",
    ["cakd.losses.\u00b2.weight=1", "cakd.losses." + "9" * 5000 + "=1", "cakd.losses.-1=2",
     "margin_list.0.1=3", "lr=" + "(" * 500, "lr=" + "-" * 5000 + "1", "lr={[]: 1}", "lr=b'1'",
     "lr=1is 2", "lr='\\d'", "batch_size=\x00", "cakd.losses.0.name=\ud800", "seed=1e999", "=",
     "lr=9" + "9" * 5000],
)  # fmt: skip
def test_settings_on_the_command_line_are_taken_or_named(tmp_path, override):
    (tmp_path / "c.py").write_text(
        "from easydict import EasyDict as edict\n"
        "config = edict(rec='r', cakd=dict(losses=[dict(name='rkd', weight=1.0)]))\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConfigError) as raised:
            load_config(tmp_path / "c.py", [override])
    assert "\n" not in str(raised.value)


def graph(path, nodes, batch="batch", out=TensorProto.FLOAT):
    one = helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, 3, 112, 112))
    model = helper.make_model(
        helper.make_graph(nodes, "g", [one], [helper.make_tensor_value_info("y", out, None)]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path.write_bytes(model.SerializeToString())
    return path


make = helper.make_node
MEAN = make("ReduceMean", ["x"], ["m"], axes=[2, 3], keepdims=0)
SAME = make("Identity", ["m"], ["y"])
LIES = {
    "batch of nothing": ([MEAN, SAME], {"batch": 0}, "batches of 0 images"),
    "huge batch": ([MEAN, SAME], {"batch": 10**9}, "batches of 1000000000"),
    "booleans": ([MEAN, make("Greater", ["m", "m"], ["y"])], {"out": TensorProto.BOOL}, "numbers"),
    "texts": (
        [MEAN, make("Cast", ["m"], ["y"], to=TensorProto.STRING)],
        {"out": TensorProto.STRING},
        "numbers",
    ),
    "more rows": ([MEAN, make("Concat", ["m", "m"], ["y"], axis=0)], {}, "for 1 images"),
    "one number": ([make("ReduceMean", ["x"], ["y"], keepdims=0)], {}, "for 1 images"),
    "a list": ([MEAN, make("SequenceConstruct", ["m", "m"], ["y"])], {}, "file that loads"),
}


@pytest.mark.parametrize("kind", LIES)
def test_onnx_outputs_and_batches_that_make_no_sense_are_named(tmp_path, kind):
    nodes, options, text = LIES[kind]
    with pytest.raises(BackboneError, match=text) as raised:
        OnnxTeacher(graph(tmp_path / "a.onnx", nodes, **options))
    assert "\n" not in str(raised.value) and "a.onnx" in str(raised.value)
