"""The built-in loop beside arcface_torch's own and AdaDistill's, each as it is."""

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch

from arcface_cakd.arcface_torch import mxnet
from arcface_cakd.bench.checkouts import importable
from arcface_cakd.bench.errors import BenchError
from arcface_cakd.bench.faces import (
    CLASSES,
    images_and_labels,
    make_faces,
    random_weights,
    train_config,
)
from arcface_cakd.bench.held_loop import HeldLoop
from arcface_cakd.bench.on_cpu import cuda_calls_on_cpu
from arcface_cakd.bench.report import Report
from arcface_cakd.bench.timing import take_turns
from arcface_cakd.config import CakdConfig, TrainConfig
from arcface_cakd.data import FaceLoader
from arcface_cakd.engine import loop
from arcface_cakd.engine.checkpoint import Position
from arcface_cakd.patching import patch

STEPS = 10**6  # more than anybody will wait for


def compare_with_arcface_torch(
    report: Report, checkout: Path, network: str, *, batch_size: int = 16, rounds: int = 7
) -> None:
    """``train_v2.py`` and the built-in loop, both plain, from the same batch.

    Reading the data is left out of both: see ``bench data``. arcface_torch runs from a copy, with
    what current versions of its dependencies need (``patch --only current-stack``).
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        faces = make_faces(folder, 2 * batch_size)
        host = folder / "arcface_torch"
        shutil.copytree(checkout, host, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        patch(host, "current-stack")
        (host / "configs" / "bench_loop.py").write_text(
            _HOST_CONFIG.format(
                network=network,
                output=str(folder / "host"),
                batch_size=batch_size,
                classes=CLASSES,
                images=STEPS * batch_size,
            )
        )
        sides = {
            "arcface_torch's loop": (arcface_torchs, host, batch_size),
            "built-in loop": (built_in, _plain_config(faces, folder, network, batch_size)),
        }
        _compare(report, sides, rounds)


def compare_with_adadistill(
    report: Report, checkout: Path, *, batch_size: int = 4, rounds: int = 7
) -> None:
    """AdaDistill's ``train_AdaDistill.py`` and the built-in loop with the same loss, ``r18``
    learning from ``r50`` in both, the teacher's weights random; and ours from the cache.

    That script has no CPU run: its calls for a GPU are made to land on the CPU. And as published
    it stops at once, for it calls a setting of its loss by another name than the loss does.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        faces = make_faces(folder, 2 * batch_size)
        weights = random_weights(folder, "r50")
        cache = {"cache": str(folder / "cache")}
        sides = {
            "AdaDistill's loop": (adadistills, checkout, folder / "theirs", weights, batch_size),
            "built-in loop": (built_in, _adadistill_config(faces, folder, batch_size, weights)),
            "built-in loop, from cache": (
                built_in,
                _adadistill_config(faces, folder, batch_size, weights, **cache),
            ),
        }
        _compare(report, sides, rounds)
    report.notes.append(
        "AdaDistill has no CPU run: its calls for a GPU and nccl landed on the CPU and gloo; and "
        "its loss was told adaptive_weighted_alpha, which the script calls adaptive_alpha"
    )


def _compare(report: Report, sides: dict[str, tuple[Any, ...]], rounds: int) -> None:
    """Steps of each side's loop by turns; ratios of the first side to the others."""
    with contextlib.ExitStack() as stack:
        held = {}
        for name, told in sides.items():
            held[name] = HeldLoop(*told)
            stack.callback(held[name].close)
        times = take_turns(
            {name: one.step for name, one in held.items()},
            rounds,
            warm_up=2,
            clock=lambda: sum(one.seconds for one in held.values()),
        )
    report.add_times(times)
    theirs, *ours = sides
    for name in ours:
        report.ratios[f"{theirs} / {name}"] = times.ratio(theirs, name)


def arcface_torchs(turns: Iterator[None], host: Path, batch_size: int) -> None:
    """arcface_torch's loop, by the config that stands in its checkout."""
    with importable(host), cuda_calls_on_cpu():
        script = _imported("train_v2")
        batches = _batches(turns, batch_size)
        with mock.patch.object(script, "get_dataloader", lambda *args: batches):
            script.main(SimpleNamespace(config="configs/bench_loop.py"))


def adadistills(
    turns: Iterator[None], checkout: Path, output: Path, weights: Path, batch_size: int
) -> None:
    """AdaDistill's loop."""
    with importable(checkout, mxnet=mxnet), cuda_calls_on_cpu():
        script = _imported("train.train_AdaDistill")
        script.cfg.update(
            network="iresnet18",
            teacher="iresnet50",
            pretrained_teacher_path=str(weights),
            output=str(output),
            batch_size=batch_size,
            num_classes=CLASSES,
            val_targets=[],
        )
        losses = SimpleNamespace(AdaptiveAArcFace=_renaming(script.losses.AdaptiveAArcFace))
        batches = _batches(turns, batch_size)
        with (
            mock.patch.object(script, "losses", losses),
            mock.patch.object(script, "MXFaceDataset", lambda **_: range(STEPS)),
            mock.patch.object(script, "DataLoaderX", lambda **_: batches),
        ):
            script.main(SimpleNamespace(local_rank=0))


def built_in(turns: Iterator[None], config: TrainConfig) -> None:
    """The built-in loop; every batch is the first that its loader reads."""

    def placed(loader: FaceLoader, *others: Any) -> Iterator[tuple[Position, Any]]:
        batch = next(iter(loader))
        for number, _ in enumerate(turns, 1):
            yield Position(0, 1, number), batch

    with mock.patch.object(loop, "_batches", placed):
        loop.train(config)


def _batches(turns: Iterator[None], batch_size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same batch each time; labels as a copy, for there are loops that write to them."""
    images, labels = images_and_labels(batch_size)
    for _ in turns:
        yield images, labels.clone()


def _plain_config(faces: Path, folder: Path, network: str, batch_size: int) -> TrainConfig:
    return _config(faces, network, batch_size, output=str(folder / "ours"))


def _adadistill_config(
    faces: Path, folder: Path, batch_size: int, weights: Path, **teacher: Any
) -> TrainConfig:
    cakd = CakdConfig.from_entry(
        {
            "teacher": {"network": "r50", "weights": str(weights), **teacher},
            "losses": [{"name": "adadistill"}],
            "margin_weight": 0.0,
        }
    )
    output = str(folder / ("cached" if teacher else "ours"))
    return _config(faces, "r18", batch_size, output=output, cakd=cakd)


def _config(faces: Path, network: str, batch_size: int, **settings: Any) -> TrainConfig:
    ends = {"num_epoch": STEPS, "verbose": STEPS, "val_targets": (), "frequent": 50}
    return train_config(faces, network, batch_size, **ends, **settings)


def _renaming(head: Callable[..., Any]) -> Callable[..., Any]:
    """AdaDistill's loss, taking its setting by the name that its script has for it."""
    return lambda adaptive_alpha, **settings: head(
        adaptive_weighted_alpha=adaptive_alpha, **settings
    )


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BenchError(
            f"{name} does not import ({error}): install what it needs, pip install {error.name}"
        ) from error


_HOST_CONFIG = """from easydict import EasyDict as edict

config = edict()
config.network = {network!r}
config.output = {output!r}
config.rec = "."
config.batch_size = {batch_size}
config.num_classes = {classes}
config.num_image = {images}
config.num_epoch = 1
config.warmup_epoch = 0
config.lr = 1e-5
config.embedding_size = 512
config.margin_list = (1.0, 0.5, 0.0)
config.sample_rate = 1.0
config.fp16 = False
config.val_targets = []
config.frequent = 50
config.verbose = 10**9
config.save_all_states = False
"""
