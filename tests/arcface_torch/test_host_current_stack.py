"""The real host with `current-stack` alone, on the packages installed here.

Needs a checkout, which ARCFACE_TORCH names. References are computed by our own networks, whose
weights are the host's.
"""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from helpers.ijbc import embed, face_image, wanted_scores
from helpers.template_sets import make_templates

import arcface_cakd
from arcface_cakd import patching
from arcface_cakd.backbones import get_model
from arcface_cakd.evaluation import Embedder
from arcface_cakd.evaluation.protocols.ijb import FARS, TemplatePairs, embed_templates
from arcface_cakd.evaluation.templates import pair_scores
from arcface_cakd.export import export_model
from arcface_cakd.runtimes import open_exported

EVAL = Path(__file__).parents[2] / "eval"
ON_CPU = Path(__file__).parents[1] / "helpers" / "arcface_torch_on_cpu.py"
PROBES = {
    probe.run.__name__: probe
    for probe in runpy.run_path(str(EVAL / "host_probes.py"))["PROBES"]
    if not probe.left
}


@pytest.fixture(scope="module")
def mended(checkout, tmp_path_factory) -> Path:
    """A copy of the host with current-stack alone."""
    copy = tmp_path_factory.mktemp("mended") / "arcface_torch"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns("work_dirs", "__pycache__"))
    patching.revert(copy)
    patching.patch(copy, only="current-stack")
    return copy


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> torch.nn.Module:
    """An mbf that tells images apart; ``net.path`` is its model.pt."""
    torch.manual_seed(0)
    net = get_model("mbf", num_features=512)
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # statistics of what follows; as built, all images look alike
    embed(net.train(), np.stack([face_image(seed) for seed in range(32)]))
    net.eval()
    net.path = tmp_path_factory.mktemp("model") / "model.pt"
    torch.save(net.state_dict(), net.path)
    return net


def run(host: Path, *command, **environment) -> str:
    """Standard output of a Python process in the host's folder."""
    paths = [str(host), str(Path(arcface_cakd.__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=host,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", PROBES)
def test_every_breakage_is_mended(mended, name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EVAL))
    script = runpy.run_path(str(EVAL / "host_breakages.py"))
    script["make_data"](tmp_path / "data")
    assert script["raised"](PROBES[name], mended, tmp_path / "data") is None


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("image = ndarray = None", "mxnet"),
        ("raise AttributeError('bool')", "arcface_cakd.arcface_torch.mxnet"),  # as 1.9.1
    ],
)
def test_mxnet_itself_is_used_where_it_imports(mended, tmp_path, source, used):
    (tmp_path / "mxnet.py").write_text(source)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.path.insert(0, 'scripts')\n"
    code += "import dataset, shuffle_rec; from eval import verification\n"
    code += "for module in (dataset, shuffle_rec, verification): print(module.mx.__name__)"
    assert run(mended, "-c", code).split() == [used] * 3


def test_thresholds_are_those_of_linear_interpolation(mended):
    calculate_val = runpy.run_path(str(mended / "eval" / "verification.py"))["calculate_val"]
    rng = np.random.default_rng(3)
    same = np.arange(200) % 2 == 0
    first = rng.normal(size=(200, 16))
    second = np.where(same[:, None], first + rng.normal(size=(200, 16)), rng.normal(size=(200, 16)))
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
    thresholds, target = np.arange(0, 4, 0.001), 0.0175
    found = calculate_val(thresholds, first, second, same, target, nrof_folds=10)

    dist, val, far = ((first - second) ** 2).sum(1), [], []
    for held in np.split(np.arange(200), 10):
        kept = np.setdiff1d(np.arange(200), held)
        rate = [(dist[kept][~same[kept]] < threshold).mean() for threshold in thresholds]
        low = max(i for i, r in enumerate(rate) if r <= target)  # of those equal, the last
        slope = (target - rate[low]) / (rate[low + 1] - rate[low])
        threshold = thresholds[low] + slope * (thresholds[low + 1] - thresholds[low])
        val.append((dist[held][same[held]] < threshold).mean())
        far.append((dist[held][~same[held]] < threshold).mean())
    np.testing.assert_allclose(found, (np.mean(val), np.std(val), np.mean(far)), atol=1e-12)
    assert 0 < np.mean(val) < 1


def test_ijbc_is_scored(mended, net, ijbc, tmp_path):
    run(
        mended,
        *(ON_CPU, "--model-prefix", net.path, "--network", "mbf", "--image-path", ijbc),
        *("--result-dir", tmp_path, "--batch-size", 4),
        ARCFACE_TORCH=str(mended),
        SCRIPT="eval_ijbc.py",
    )
    scores = np.load(tmp_path / "insightface" / "ijbc.npy")
    wanted = wanted_scores(net)
    assert wanted.std() > 1e-3  # else any would do
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    np.testing.assert_allclose(scores_of_ours(ijbc, net), scores, atol=1e-5)
    assert (tmp_path / "insightface" / "ijbc.pdf").stat().st_size


def scores_of_ours(folder: Path, net: torch.nn.Module) -> np.ndarray:
    """The scores of a set's pairs, in order, as ``evaluate --protocol ijb`` takes them."""
    protocol = TemplatePairs([folder])
    numbers, units = embed_templates(protocol.images, Embedder(net))
    return pair_scores(units, np.searchsorted(numbers, protocol.pairs))


def test_evaluate_gives_what_the_host_gives_on_ijbc(mended, net, tmp_path):
    """Pictures to align, videos, detector scores: the host's scores, and the table it prints."""
    folder = make_templates(tmp_path / "set", people=5, probes=2).folder
    printed = run(
        mended,
        *(ON_CPU, "--model-prefix", net.path, "--network", "mbf", "--image-path", folder),
        *("--result-dir", tmp_path, "--batch-size", 4),
        ARCFACE_TORCH=str(mended),
        SCRIPT="eval_ijbc.py",
    )
    scores = scores_of_ours(folder, net)
    assert scores.std() > 0.05  # else any would do
    theirs = np.load(tmp_path / "insightface" / "ijbc.npy")
    # It aligns in float32: some pixels come out one level apart.
    np.testing.assert_allclose(scores, theirs, atol=2e-3)
    tars = re.search(r"ijbc-IJBC *\|(.*)\|", printed).group(1).split("|")
    result = TemplatePairs([folder]).judge(Embedder(net), draws=0)["ijbc"]
    wanted = [100 * result.nearest_tar[far] for far in FARS]
    assert [float(tar) for tar in tars] == pytest.approx(wanted, abs=0.006)
    assert min(wanted) > 0


def test_the_onnx_model_takes_any_batch_and_scores_ijbc(mended, net, ijbc, tmp_path):
    model = tmp_path / "model.onnx"
    run(mended, "torch2onnx.py", net.path, "--network", "mbf", "--output", model)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for batch in (1, 4):
        images = np.stack([face_image(seed) for seed in range(batch)])
        blob = np.ascontiguousarray((images / 127.5 - 1).transpose(0, 3, 1, 2), dtype=np.float32)
        (found,) = session.run(None, {"data": blob})
        wanted = embed(net, images)
        np.testing.assert_allclose(found, wanted, atol=1e-5 * abs(wanted).max())

    run(mended, "onnx_ijbc.py", "--model-root", tmp_path, "--image-path", ijbc)
    scores = np.load(tmp_path / "IJBC_result" / "IJBC.npy")
    np.testing.assert_allclose(scores, wanted_scores(net), atol=1e-5)


def test_onnx_ijbc_takes_an_exported_file(mended, net, tmp_path):
    """The scores and the table of the host on our .onnx are ours of the student."""
    folder = make_templates(tmp_path / "set", people=5, probes=2).folder
    model = tmp_path / "student"
    export_model(net, model / "student.onnx")
    printed = run(mended, "onnx_ijbc.py", "--model-root", model, "--image-path", folder)
    scores = scores_of_ours(folder, net)
    assert scores.std() > 0.05  # else any would do
    # It aligns in float32: some pixels come out one level apart.
    np.testing.assert_allclose(
        scores, np.load(model / "IJBC_result" / "IJBC.npy"), rtol=0, atol=2e-3
    )
    tars = re.search(r"IJBC.npy-IJBC *\|(.*)\|", printed).group(1).split("|")
    exported = Embedder(open_exported(model / "student.onnx"))
    result = TemplatePairs([folder]).judge(exported, draws=0)["ijbc"]
    wanted = [100 * result.nearest_tar[far] for far in FARS]
    assert [float(tar) for tar in tars] == pytest.approx(wanted, abs=0.006)
    assert min(wanted) > 0


def test_inference_prints_the_embedding(mended, net, tmp_path):
    image = face_image(11)
    cv2.imwrite(str(tmp_path / "face.png"), image[:, :, ::-1])
    printed = run(
        mended,
        *("inference.py", "--network", "mbf", "--weight", net.path),
        *("--img", tmp_path / "face.png"),
    )
    numbers = np.array(re.findall(r"-?\d[\d.]*(?:e[-+]\d+)?", printed), dtype=np.float64)
    wanted = embed(net, image[None])[0]
    np.testing.assert_allclose(numbers, wanted, rtol=1e-4, atol=1e-4 * abs(wanted).max())
