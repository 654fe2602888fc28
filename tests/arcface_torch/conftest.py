"""Patched copies of the checkout that ARCFACE_TORCH names, and data sets for them."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.host import Host, HostRun, patched, side_by_side
from helpers.ijbc import make_ijbc
from helpers.record_sets import jpeg

from arcface_cakd.backbones import get_model
from arcface_cakd.data import write_bin
from arcface_cakd.recordio import IRHeader, MXIndexedRecordIO, pack

IDENTITIES, IMAGES = 8, 7


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The checkout's recognition/arcface_torch, for reading only."""
    if not os.environ.get("ARCFACE_TORCH"):
        pytest.skip("ARCFACE_TORCH names no checkout's recognition/arcface_torch")
    return Path(os.environ["ARCFACE_TORCH"]).resolve()


def _records(folder: Path, identities: int, images: int) -> Path:
    """An insightface set whose images' labels are arrays, and lfw.bin of 20 pairs."""
    count = identities * images
    with MXIndexedRecordIO(folder / "train.idx", folder / "train.rec", "w") as writer:
        for key in range(1, count + 1):
            label = IRHeader(2, [(key - 1) // images, 1.0], key, 0)
            writer.write_idx(key, pack(label, jpeg(key)))
        for identity in range(identities):
            first = 1 + identity * images
            extent = IRHeader(2, [first, first + images], 0, 0)
            writer.write_idx(count + 1 + identity, pack(extent, b""))
        writer.write_idx(0, pack(IRHeader(2, [count + 1, count + 1 + identities], 0, 0), b""))
    (folder / "property").write_text(f"{identities},112,112\n")
    seeds = np.random.default_rng(0).permutation(1000)[:40]
    seeds[0::4] = seeds[1::4]  # every other pair is one image twice
    write_bin(folder / "lfw.bin", [jpeg(int(seed)) for seed in seeds], [True, False] * 10)
    return folder


@pytest.fixture(scope="session")
def records(tmp_path_factory) -> Path:
    """56 images of 8 identities: 7 steps of 8, an odd number."""
    return _records(tmp_path_factory.mktemp("host_data"), IDENTITIES, IMAGES)


@pytest.fixture(scope="session")
def few_records(tmp_path_factory) -> Path:
    """12 images of 3 identities: 3 steps of 4."""
    return _records(tmp_path_factory.mktemp("host_few"), 3, 4)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> Path:
    """The weights of a swin_mini, embedding 64."""
    path = tmp_path_factory.mktemp("host_teacher") / "model.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        torch.save(get_model("swin_mini", num_features=64).state_dict(), path)
    return path


def _patched(checkout: Path, folder: Path, records: Path, only: str | None) -> Host:
    return patched(
        checkout,
        folder / "arcface_torch",
        only,
        rec=records,
        network="r10_narrow",
        num_classes=IDENTITIES,
        num_image=IDENTITIES * IMAGES,
        val_targets=["lfw"],
    )


@pytest.fixture(scope="session")
def host(checkout, records, tmp_path_factory) -> Host:
    """With both sets of patches."""
    return _patched(checkout, tmp_path_factory.mktemp("patched"), records, None)


@pytest.fixture(scope="session")
def mended_host(checkout, records, tmp_path_factory) -> Host:
    """With ``current-stack`` alone."""
    return _patched(checkout, tmp_path_factory.mktemp("mended"), records, "current-stack")


@pytest.fixture(scope="session")
def ijbc(tmp_path_factory) -> Path:
    return make_ijbc(tmp_path_factory.mktemp("made") / "ijbc")


@dataclass(frozen=True)
class StoppedAndResumed:
    """Two epochs at a stretch, and the same with a stop in between.

    Attributes:
        straight: at a stretch.
        first: stopped after one epoch.
        resumed: gone on from there.
    """

    straight: HostRun
    first: HostRun
    resumed: HostRun


@pytest.fixture(scope="session")
def distil(host, teacher):
    """``distil(processes, **settings)``: both ways of two epochs of distillation, with prompts too,
    run once."""
    done = {}

    def both_ways(processes: int, **settings) -> StoppedAndResumed:
        key = (processes, *sorted(settings.items()))
        if key not in done:
            name = f"distil_{len(done)}"
            settings = {
                "processes": processes,
                "num_epoch": 2,
                "batch_size": 8 // processes,
                "cakd": {"teacher": {"network": "swin_mini", "weights": teacher}, "prompts": {}},
                **settings,
            }

            def interrupted():
                stop = {"STOP_BEFORE_EPOCH": "1"}
                first = host.train(f"{name}_first", env=stop, **settings)
                kept = shutil.copytree(first.output, host.folder / "work_dirs" / f"{name}_resumed")
                return first, host.train(f"{name}_resumed", output=kept, resume=True, **settings)

            straight, (first, resumed) = side_by_side(
                lambda: host.train(name, **settings), interrupted
            )
            done[key] = StoppedAndResumed(straight, first, resumed)
        return done[key]

    return both_ways
