"""Whose items are timed, and by which reader."""

import sys
from types import ModuleType

import pytest

from arcface_cakd.bench import BenchError, Report, data
from arcface_cakd.synthesis import dataset

DATASET = """
import mxnet
import numpy as np

from arcface_cakd.arcface_torch.fast_items import FaceItems


class MXFaceDataset:
    def __init__(self, root_dir, local_rank):
        self.items = FaceItems(root_dir, np.arange(1, 5))

    def __getitem__(self, index):
        image, label = self.items[index]
        return image + getattr(mxnet, "brighter", 0), label
"""


@pytest.fixture(autouse=True)
def no_pairs(monkeypatch):
    """Faces to train with alone: what they are verified by takes seconds to draw."""
    monkeypatch.setattr(dataset, "PROTOCOLS", ())


def measured(folder):
    (folder / "dataset.py").write_text(DATASET)
    report = Report("", {})
    data.measure_data(report, images=4, batch_size=4, rounds=1, arcface_torch=folder)
    return report


def test_where_mxnet_does_not_import_the_report_says_who_stands_in(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mxnet", None)
    report = measured(tmp_path)
    assert report.notes and "stand-in for mxnet: ModuleNotFoundError" in report.notes[0]
    assert len(report.ratios["arcface_torch's items / built-in loader"].rounds) == 1


def test_mxnet_itself_reads_where_it_imports_and_what_is_not_equal_is_not_compared(
    tmp_path, monkeypatch
):
    real = ModuleType("mxnet")
    real.brighter = 1
    monkeypatch.setitem(sys.modules, "mxnet", real)
    with pytest.raises(BenchError, match="item 0 of arcface_torch's is not that of fast_items"):
        measured(tmp_path)
