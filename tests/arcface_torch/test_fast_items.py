"""The faster item path against torchvision's transforms on images that Pillow decoded."""

import io
import logging
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from easydict import EasyDict as edict
from helpers.host_items import (
    COUNT,
    SETS,
    DataLoaderX,
    MXFaceDataset,
    host_transform,
    loader_over,
)
from helpers.record_sets import encoded, jpeg, write_records
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from arcface_cakd.arcface_torch import faster_items
from arcface_cakd.arcface_torch.fast_items import FaceItems
from arcface_cakd.data import DataError
from arcface_cakd.recordio import RecordIOError

FAST = edict(fast_items=True)


@pytest.fixture(params=SETS)
def dataset(request, tmp_path):
    return SETS[request.param](tmp_path)


def test_items_are_the_hosts_to_the_bit(dataset):
    fast = FaceItems(dataset.root_dir, dataset.imgidx)
    assert len(fast) == COUNT
    flips = 0
    for seed in range(3):
        for index in range(COUNT):
            torch.manual_seed(1000 * seed + index)
            flips += bool(torch.rand(1) < 0.5)
            torch.manual_seed(1000 * seed + index)
            image, label = dataset[index]
            state = torch.get_rng_state()
            torch.manual_seed(1000 * seed + index)
            fast_image, fast_label = fast[index]
            assert torch.equal(torch.get_rng_state(), state)
            assert fast_image.dtype == image.dtype and fast_image.is_contiguous()
            assert torch.equal(fast_image, image)
            assert fast_label.dtype == label.dtype and fast_label.shape == label.shape
            assert torch.equal(fast_label, label)
    assert COUNT < flips < 2 * COUNT  # of 3 * COUNT: both sides of the coin were seen


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_hosts_to_the_bit(dataset, workers):
    def epochs(loader):
        torch.manual_seed(5)
        return [batch for _ in range(2) for batch in loader]

    expected = epochs(loader_over(dataset, workers))
    loader = faster_items(loader_over(dataset, workers), FAST)
    assert type(loader) is DataLoaderX and isinstance(loader.dataset, FaceItems)
    batches = epochs(loader)
    assert len(batches) == 2 * (COUNT // 6) == len(expected)
    for (images, labels), (expected_images, expected_labels) in zip(batches, expected, strict=True):
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)


def test_all_256_levels_are_rounded_as_by_the_host(tmp_path):
    """In a PNG, which keeps every level; flipped and not."""
    ramp = np.arange(112 * 112 * 3, dtype=np.uint32).reshape(112, 112, 3).astype(np.uint8)
    image = encoded(Image.fromarray(ramp), "PNG")
    write_records(tmp_path, {0: (1.0, image)})
    slow, fast = MXFaceDataset(tmp_path, {0: (1, image)}, [0]), FaceItems(tmp_path, np.array([0]))
    for seed in range(4):
        torch.manual_seed(seed)
        expected = slow[0][0]
        torch.manual_seed(seed)
        assert torch.equal(fast[0][0], expected)
        assert len(expected.unique()) == 256


def test_the_loader_keeps_its_settings(tmp_path):
    slow = loader_over(
        SETS["scalar"](tmp_path),
        workers=2,
        timeout=30,
        persistent_workers=True,
        prefetch_factor=3,
        multiprocessing_context="spawn",
        generator=torch.Generator(),
    )
    fast = faster_items(slow, FAST)
    kept = """
        local_rank batch_size sampler num_workers collate_fn pin_memory drop_last timeout generator
        worker_init_fn multiprocessing_context prefetch_factor persistent_workers
    """
    for name in kept.split():
        assert getattr(fast, name) == getattr(slow, name), name


def test_items_survive_pickling(tmp_path):
    dataset = SETS["array"](tmp_path)
    fast = pickle.loads(pickle.dumps(FaceItems(dataset.root_dir, dataset.imgidx)))
    torch.manual_seed(0)
    expected = dataset[3]
    torch.manual_seed(0)
    image, label = fast[3]
    assert torch.equal(image, expected[0]) and label == expected[1]


def test_many_threads_read_at_once(tmp_path):
    dataset = SETS["scalar"](tmp_path)
    fast = FaceItems(dataset.root_dir, dataset.imgidx)
    wrong = []

    def read():
        for index in range(COUNT):
            image, label = fast[index]
            plain = transforms.functional.normalize(
                transforms.functional.to_tensor(
                    Image.open(io.BytesIO(dataset.images[index + 1][1])).convert("RGB")
                ),
                [0.5] * 3,
                [0.5] * 3,
            )
            either = torch.equal(image, plain) or torch.equal(image, plain.flip(2))
            if not either or label != dataset.images[index + 1][0]:
                wrong.append(index)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class TestWithoutEffect:
    @pytest.fixture
    def loader(self, tmp_path):
        return loader_over(SETS["scalar"](tmp_path))

    @pytest.mark.parametrize("cfg", [edict(), edict(fast_items=False), edict(fast_items=None)])
    def test_off_says_nothing(self, loader, cfg, caplog):
        assert faster_items(loader, cfg) is loader
        assert caplog.text == ""

    def unchanged(self, loader, message, caplog):
        with caplog.at_level(logging.WARNING, logger="arcface_cakd"):
            assert faster_items(loader, FAST) is loader
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        said = record.getMessage()
        assert said.startswith("config.fast_items has no effect: ") and "\n" not in said
        assert message in said

    def test_other_data(self, caplog):
        class SyntheticDataset(list):
            pass

        loader = loader_over(SyntheticDataset([1, 2, 3]))
        self.unchanged(loader, "SyntheticDataset reads other data", caplog)

    def test_dali(self, caplog):
        class DALIWarper:
            pass

        self.unchanged(DALIWarper(), "a DALIWarper is not the host's DataLoaderX", caplog)

    def test_a_plain_loader(self, loader, caplog):
        plain = DataLoader(loader.dataset)
        self.unchanged(plain, "a DataLoader is not the host's DataLoaderX", caplog)

    @pytest.mark.parametrize(
        "transform",
        [
            None,
            transforms.ToTensor(),
            transforms.Compose(host_transform().transforms[:3]),
            transforms.Compose([*host_transform().transforms, transforms.RandomErasing()]),
            transforms.Compose(
                [
                    transforms.ToPILImage(),
                    transforms.RandomHorizontalFlip(0.2),
                    *host_transform().transforms[2:],
                ]
            ),
            transforms.Compose(
                [*host_transform().transforms[:3], transforms.Normalize([0.4] * 3, [0.5] * 3)]
            ),
        ],
    )
    def test_a_forks_own_transforms(self, loader, transform, caplog):
        loader.dataset.transform = transform
        self.unchanged(loader, "transforms of this MXFaceDataset are not arcface_torch's", caplog)

    def test_a_forks_own_data_set(self, loader, caplog):
        del loader.dataset.imgidx
        self.unchanged(loader, "has no root_dir and imgidx", caplog)


@pytest.mark.parametrize(
    ("image", "message"),
    [(jpeg(1, (96, 112)), "96 x 112, not 112 x 112"), (b"no image", "does not decode")],
)
def test_a_bad_image_is_named(tmp_path, image, message):
    write_records(tmp_path, {0: (0.0, jpeg(0)), 1: (0.0, image)})
    items = FaceItems(tmp_path, np.array([0, 1]))
    with pytest.raises(DataError, match=rf"train\.rec, key 1: .*{message}"):
        items[1]


def test_a_missing_set_is_said(tmp_path):
    with pytest.raises(RecordIOError, match=r"no such file.*train\.rec|train\.rec.*no such file"):
        FaceItems(tmp_path, np.array([0]))


REAL_HOST = """
import sys
import torch
from arcface_cakd.arcface_torch import faster_items, mxnet

# As after `patch --only current-stack`, where mxnet does not import.
sys.modules["mxnet"] = mxnet
from helpers.arcface_torch_on_cpu import _emulate_cuda
_emulate_cuda()
import dataset

torch.set_num_threads(1)
runs = []
for cfg in ({}, {"fast_items": True}):
    for workers in (0, 2):
        torch.manual_seed(1)
        loader = dataset.get_dataloader(sys.argv[1], 0, 6, seed=7, num_workers=workers)
        loader = faster_items(loader, cfg)
        batches = []
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            batches += [(image.clone(), label.clone()) for image, label in loader]
        runs.append((type(loader.dataset).__name__, batches))
torch.save(runs, sys.argv[2])
"""


@pytest.mark.parametrize("kind", ["scalar", "flag 0"])
def test_the_real_hosts_batches(checkout, tmp_path, kind):
    SETS[kind](tmp_path)
    tests = Path(__file__).parent.parent
    paths = [str(checkout), str(tests), str(tests.parent)]
    done = subprocess.run(
        [sys.executable, "-B", "-c", REAL_HOST, str(tmp_path), str(tmp_path / "runs.pt")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    runs = torch.load(tmp_path / "runs.pt")
    assert [name for name, _ in runs] == ["MXFaceDataset"] * 2 + ["FaceItems"] * 2
    for (_, slow), (_, fast) in zip(runs[:2], runs[2:], strict=True):
        assert len(slow) == len(fast) == 2 * (COUNT // 6)
        for (images, labels), (fast_images, fast_labels) in zip(slow, fast, strict=True):
            assert torch.equal(images, fast_images) and torch.equal(labels, fast_labels)
