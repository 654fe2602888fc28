"""The way from a record to a training item: ours, arcface_torch's, and the decoder's alone."""

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from arcface_cakd.arcface_torch import mxnet as stand_in
from arcface_cakd.arcface_torch.fast_items import FaceItems
from arcface_cakd.bench.checkouts import importable
from arcface_cakd.bench.errors import BenchError
from arcface_cakd.bench.report import Report
from arcface_cakd.bench.timing import take_turns
from arcface_cakd.data import get_dataloader
from arcface_cakd.data.images import decode_crop
from arcface_cakd.recordio import MXIndexedRecordIO, unpack
from arcface_cakd.synthesis import synthesize

OURS, FAST, HOSTS, FLOOR = "built-in loader", "fast_items", "arcface_torch's items", "decoding"


def measure_data(
    report: Report,
    *,
    images: int = 500,
    batch_size: int = 50,
    rounds: int = 15,
    arcface_torch: Path | None = None,
) -> None:
    """Items of one thread, read, decoded, flipped, scaled, and stacked to batches in every side.

    Args:
        report: where the figures go.
        images: made faces to read.
        batch_size: items of a turn.
        rounds: that are counted.
        arcface_torch: a checkout, whose own data set reads through mxnet where it imports
            (1.9.1 does beside numpy 1.23.5), else through our stand-in for it, as a note says.
    """
    with tempfile.TemporaryDirectory() as folder:
        faces = Path(folder) / "faces"
        synthesize(faces, 2, -(-images // 2), seed=1, pairs=20, workers=1)
        order = np.random.default_rng(0).permutation(images)
        fast = FaceItems(faces, np.arange(1, images + 1))
        sides: dict[str, Callable[[], object]] = {
            OURS: _batches(faces, batch_size),
            FAST: _items(fast, order, batch_size),
            FLOOR: _payloads(faces, order, batch_size),
        }
        if arcface_torch is not None:
            stand_ins = {} if (reason := _mxnet_misses()) is None else {"mxnet": stand_in}
            if reason is not None:
                report.notes.append(f"{HOSTS} are read by our stand-in for mxnet: {reason}")
            with importable(arcface_torch, **stand_ins):
                host = importlib.import_module("dataset").MXFaceDataset(str(faces), 0)
            _check_equal(host, fast, batch_size)
            sides[HOSTS] = _items(host, order, batch_size)
        times = take_turns(sides, rounds)
    report.add_times(times)
    for side in (OURS, FAST):
        report.ratios[f"{side} / {FLOOR}"] = times.ratio(side, FLOOR)
        if arcface_torch is not None:
            report.ratios[f"{HOSTS} / {side}"] = times.ratio(HOSTS, side)
    for side in sides:
        report.amounts[f"{side}, items a second"] = batch_size / times.median(side)


def _mxnet_misses() -> str | None:
    """Why mxnet does not import; None where it does."""
    try:
        importlib.import_module("mxnet")
    except Exception as error:  # beside a later numpy it fails on names that are gone
        return " ".join(f"{type(error).__name__}: {error}".split())
    return None


def _batches(faces: Path, batch_size: int) -> Callable[[], object]:
    loader = get_dataloader(str(faces), batch_size, seed=0, num_workers=0)
    endless = (batch for epoch in range(10**6) for batch in _epoch(loader, epoch))
    return lambda: next(endless)


def _epoch(loader, epoch: int):
    loader.set_epoch(epoch)
    yield from loader


def _items(dataset, order: np.ndarray, batch_size: int) -> Callable[[], object]:
    """What a worker of a DataLoader does: items one by one, then stacked."""
    turns = _turns(order, batch_size)

    def batch():
        images, labels = zip(*(dataset[index] for index in next(turns)), strict=True)
        return torch.stack(images), torch.stack(labels)

    return batch


def _payloads(faces: Path, order: np.ndarray, batch_size: int) -> Callable[[], object]:
    """Decoding alone, of images that are in memory."""
    records = MXIndexedRecordIO(str(faces / "train.idx"), str(faces / "train.rec"), "r")
    payloads = [unpack(records.read_idx(int(index) + 1))[1] for index in order]
    turns = _turns(np.arange(len(order)), batch_size)
    return lambda: [decode_crop(payloads[index]) for index in next(turns)]


def _turns(order: np.ndarray, batch_size: int):
    while True:
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield order[start : start + batch_size].tolist()


def _check_equal(host, fast: FaceItems, count: int) -> None:
    """What is compared gives the same, to the bit."""
    for index in range(count):
        torch.manual_seed(index)
        image, label = host[index]
        torch.manual_seed(index)
        fast_image, fast_label = fast[index]
        if not (torch.equal(image, fast_image) and torch.equal(label, fast_label)):
            raise BenchError(
                f"item {index} of arcface_torch's is not that of fast_items: has its dataset.py "
                "transforms of its own?"
            )
