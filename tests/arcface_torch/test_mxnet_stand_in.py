"""mxnet's names over our readers, against Pillow, OpenCV, numpy and what mxnet documents."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from helpers.record_sets import encoded, jpeg, pixels
from PIL import Image

from arcface_cakd.arcface_torch import mxnet as mx
from arcface_cakd.data import DataError, decode_image


def test_imports_neither_torch_nor_opencv():
    code = "import sys; from arcface_cakd.arcface_torch import mxnet; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "cv2", "mxnet"} & set(done.stdout.split())


def test_images_decode_to_rgb():
    image = mx.image.imdecode(jpeg(1, (40, 30)))
    assert image.shape == (30, 40, 3)
    assert image.asnumpy().dtype == np.uint8
    np.testing.assert_array_equal(image.asnumpy(), pixels(jpeg(1, (40, 30))))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_images_have_three_channels(kind):
    data = encoded(Image.fromarray(np.arange(900, dtype=np.uint8).reshape(30, 30)), kind)
    image = mx.image.imdecode(data).asnumpy()
    assert image.shape == (30, 30, 3)
    np.testing.assert_array_equal(image, pixels(data))


def test_encoded_bytes_may_be_an_array():
    data = np.frombuffer(jpeg(2), np.uint8)
    np.testing.assert_array_equal(mx.image.imdecode(data).asnumpy(), pixels(jpeg(2)))


@pytest.mark.parametrize("data", [b"", b"no image", jpeg(1)[:40]])
def test_damaged_images_are_refused_as_by_our_decoder(data):
    with pytest.raises(DataError) as ours:
        decode_image(data)
    with pytest.raises(DataError) as error:
        mx.image.imdecode(data)
    assert str(error.value) == str(ours.value)
    assert "\n" not in str(error.value)


# What mxnet documents: the shorter side becomes `size`, the other is rounded down.
@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(90, 60, (168, 112)), (60, 90, (112, 168)), (70, 61, (128, 112)), (50, 50, (112, 112))],
)
def test_resize_short_keeps_the_proportion(width, height, expected):
    image = mx.image.imdecode(jpeg(3, (width, height)))
    resized = mx.image.resize_short(image, 112)
    reference = cv2.resize(
        pixels(jpeg(3, (width, height))), expected, interpolation=cv2.INTER_CUBIC
    )
    assert resized.shape == (expected[1], expected[0], 3)
    np.testing.assert_array_equal(resized.asnumpy(), reference)


def test_transpose_and_flip():
    image = mx.image.imdecode(jpeg(4, (40, 30)))
    reference = pixels(jpeg(4, (40, 30)))
    planes = mx.nd.transpose(image, axes=(2, 0, 1))
    assert planes.shape == (3, 30, 40)
    for channel in range(3):
        np.testing.assert_array_equal(planes.asnumpy()[channel], reference[:, :, channel])
    assert mx.nd.transpose(image).shape == (3, 40, 30)
    flipped = mx.ndarray.flip(data=planes, axis=2)
    for column in range(40):
        np.testing.assert_array_equal(
            flipped.asnumpy()[:, :, column], planes.asnumpy()[:, :, 39 - column]
        )


def test_arrays_go_to_torch_and_share_no_memory():
    image = mx.nd.flip(mx.nd.transpose(mx.image.imdecode(jpeg(5)), axes=(2, 0, 1)), axis=2)
    first = torch.from_numpy(image.asnumpy())  # refuses what is strided backwards
    first.zero_()
    assert image.asnumpy().any()


def test_a_data_set_of_gluon_is_a_base_class():
    class Faces(mx.gluon.data.Dataset):
        def __init__(self, count):
            self.count = count

        def __len__(self):
            return self.count

    assert len(Faces(3)) == 3


@pytest.mark.parametrize("label", [3.0, [3.0, 1.0]])
def test_records_are_read_as_the_host_reads_them(tmp_path, label):
    path = [str(tmp_path / "train.idx"), str(tmp_path / "train.rec")]
    writer = mx.recordio.MXIndexedRecordIO(*path, "w")
    header = mx.recordio.IRHeader(flag=0, label=label, id=1, id2=0)
    writer.write_idx(1, mx.recordio.pack(header, jpeg(6)))
    writer.write_idx(0, mx.recordio.pack(mx.recordio.IRHeader(0, [2.0, 2.0], 0, 0), b""))
    writer.close()

    reader = mx.recordio.MXIndexedRecordIO(*path, "r")
    header, _ = mx.recordio.unpack(reader.read_idx(0))
    assert header.flag > 0 and int(header.label[0]) == 2
    keys = np.array(range(1, int(header.label[0])))  # numpy's integers, as the host's keys
    header, data = mx.recordio.unpack(reader.read_idx(keys[0]))
    np.testing.assert_array_equal(header.label, label)
    assert isinstance(header.label, float) == isinstance(label, float)
    np.testing.assert_array_equal(mx.image.imdecode(data).asnumpy(), pixels(jpeg(6)))
