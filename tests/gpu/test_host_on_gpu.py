"""The real arcface_torch, patched, by torchrun and nccl, as its users run it.

Skipped where there is no GPU, or ARCFACE_TORCH names no checkout.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.engine_runs import make_faces, save_teacher
from helpers.host import PACKAGE, as_source, free_port

from arcface_cakd import patching
from arcface_cakd.backbones import get_model

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.skipif("ARCFACE_TORCH" not in os.environ, reason="no checkout of arcface_torch"),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("host") / "arcface_torch"
    shutil.copytree(os.environ["ARCFACE_TORCH"], folder)
    patching.revert(folder)
    patching.patch(folder, None, recipes=[])
    make_faces(folder / "faces", identities=8, images=8, pairs=20)
    save_teacher(folder / "teacher.pt", seed=7)
    return folder


def trained(host: Path, name: str, **settings) -> list[float]:
    """The losses of a run of train_v2.py, as its log says them."""
    settings = {
        "rec": host / "faces",
        "output": host / "work_dirs" / name,
        "network": "r10_narrow",
        "embedding_size": 16,
        "num_classes": 8,
        "num_image": 64,
        "batch_size": 16,
        "num_epoch": 3,
        "warmup_epoch": 0,
        "lr": 0.02,
        "num_workers": 1,
        "frequent": 1,
        "verbose": 4,
        "val_targets": ["lfw"],
        "save_all_states": True,
        "cakd": {
            "teacher": {"network": "swin_mini", "weights": host / "teacher.pt"},
            "prompts": {},
        },
        **settings,
    }
    lines = ["from easydict import EasyDict as edict", "config = edict()"]
    lines += [f"config.{key} = {as_source(value)}" for key, value in settings.items()]
    (host / "configs" / f"{name}.py").write_text("\n".join(lines) + "\n")
    command = ["-m", "torch.distributed.run", "--nproc_per_node=1"]
    command += [f"--master_port={free_port()}", "train_v2.py", f"configs/{name}"]
    path = os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=host,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    log = (Path(settings["output"]) / "training.log").read_text()
    return [float(value) for value in re.findall(r"Loss (\d+\.\d+)", log)]


@pytest.mark.parametrize("method", ["plain", "whole"])
def test_it_trains_and_distils_in_half_precision_as_in_full(host, method):
    settings = {"lr": 1e-5} | ({} if method == "whole" else {"cakd": None})
    full = trained(host, f"{method}_full", fp16=False, **settings)
    half = trained(host, f"{method}_half", fp16=True, **settings)
    assert len(full) == len(half) >= 10
    assert np.isfinite(full).all() and np.isfinite(half).all()
    # In float16 the first steps overflow and are left out while the scale is halved: the runs part.
    np.testing.assert_allclose(half[0], full[0], rtol=0.01)
    weights = torch.load(host / "work_dirs" / f"{method}_half" / "model.pt", weights_only=True)
    get_model("r10_narrow", num_features=16).load_state_dict(weights)


def test_a_finished_epoch_is_gone_on_from(host):
    one = trained(host, "resumed", fp16=True, num_epoch=2)
    more = trained(host, "resumed", fp16=True, num_epoch=3, resume=True)
    assert len(more) > len(one)
    assert np.isfinite(more).all()
