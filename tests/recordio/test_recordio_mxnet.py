"""mxnet itself reads what we write. Needs a Python that has it, which ours need not be.

ARCFACE_CAKD_MXNET_PYTHON names one with mxnet 1.9.1, numpy 1.23.5 and OpenCV.
"""

import json
import os
import subprocess

import pytest
from helpers.record_sets import jpeg, pixels, write_records

from arcface_cakd.data import write_identity_records

PYTHON = os.environ.get("ARCFACE_CAKD_MXNET_PYTHON")
pytestmark = pytest.mark.skipif(not PYTHON, reason="ARCFACE_CAKD_MXNET_PYTHON is not set")

# arcface_torch's own item path, as far as it is mxnet's.
READ = """
import json, sys, zlib
import numpy as np
import mxnet as mx
folder = sys.argv[1]
reader = mx.recordio.MXIndexedRecordIO(folder + "/train.idx", folder + "/train.rec", "r")
header, _ = mx.recordio.unpack(reader.read_idx(0))
label = [float(x) for x in np.atleast_1d(header.label)]
keys = range(1, int(label[0])) if header.flag > 0 else list(reader.keys)
images = {}
for key in keys:
    item, image = mx.recordio.unpack(reader.read_idx(key))
    images[key] = [float(item.label), zlib.crc32(mx.image.imdecode(image).asnumpy().tobytes())]
print(json.dumps([header.flag, label, images]))
"""


def read_with_mxnet(folder):
    done = subprocess.run(
        [PYTHON, "-c", READ, str(folder)], capture_output=True, text=True, check=True, timeout=300
    )
    flag, label, images = json.loads(done.stdout.splitlines()[-1])
    return flag, label, {int(key): tuple(value) for key, value in images.items()}


def shown(label: float, image: bytes) -> tuple[float, int]:
    from zlib import crc32

    return label, crc32(pixels(image).tobytes())


def test_mxnet_reads_an_insightface_set(tmp_path):
    identities = [[jpeg(10 * i + j) for j in range(i + 1)] for i in range(5)]
    write_identity_records(tmp_path, identities)
    flag, label, images = read_with_mxnet(tmp_path)
    assert (flag, label) == (2, [16, 21])
    pairs = [shown(float(i), image) for i, group in enumerate(identities) for image in group]
    assert images == dict(enumerate(pairs, start=1))


def test_mxnet_reads_an_im2rec_set(tmp_path):
    # Each JPEG ends in the magic, where the record must be split.
    padded = {key: jpeg(key) + bytes(-len(jpeg(key)) % 4) for key in (3, 0, 9)}
    records = {k: (float(k), image + bytes.fromhex("0a23d7ce")) for k, image in padded.items()}
    write_records(tmp_path, records)
    flag, _, images = read_with_mxnet(tmp_path)
    assert flag == 0
    assert images == {key: shown(float(key), image) for key, (_, image) in records.items()}
