"""The probes of host_breakages.py: what exercises each place where arcface_torch breaks.

    python eval/host_probes.py PROBE DATA

runs one in the current folder, a copy of the host, on the data that host_breakages.py made, and
prints what it raises in one line. Where several breakages lie on one way, a probe mends the
others for itself, so that each shows alone. Those of Python 3.14 need none: they set what it
made the default, forkserver.
"""

import argparse
import ast
import io
import multiprocessing
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from arcface_cakd.recordio import MXIndexedRecordIO

FACES = 12
LANDMARKS = "38.3 51.7 73.5 51.5 56.0 71.7 41.5 92.4 70.7 92.2"


@dataclass(frozen=True)
class Probe:
    """A breakage: where it is, what happens, what exercises the place (in a copy of the host, given
    a folder of made data), and why the set leaves it, if it does."""

    where: str
    what: str
    run: Callable[[Path], None]
    left: str | None = None


def requirements(data: Path) -> None:
    names = {"cv2": "opencv-python", "skimage": "scikit-image", "sklearn": "scikit-learn"}
    own = {path.stem for path in Path().iterdir()} | set(sys.stdlib_module_names)
    imported = set()
    for path in [*Path().glob("*.py"), *Path().glob("*/*.py")]:
        nodes = [ast.parse(path.read_text())]
        while nodes:  # what a function or a try imports is not needed by everyone
            node = nodes.pop()
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
            elif not isinstance(node, (ast.FunctionDef, ast.Try)):
                nodes.extend(ast.iter_child_nodes(node))
    lines = {line.strip() for line in Path("requirement.txt").read_text().splitlines()}
    assert "sklearn" not in lines, "sklearn refuses to install"
    missing = {names.get(name, name) for name in imported - own} - lines
    assert not missing, f"not listed: {', '.join(sorted(missing))}"


def reads_records(data: Path) -> None:
    import dataset

    image, _ = dataset.MXFaceDataset(data / "scalar", 0)[0]
    assert image.shape == (3, 112, 112)


def reads_bins(data: Path) -> None:
    from eval import verification

    (images, flipped), same = verification.load_bin(data / "lfw.bin", (112, 112))
    assert len(same) == FACES // 2 and (images.flip(3) == flipped).all()


def shuffles_records(data: Path) -> None:
    command = [sys.executable, "scripts/shuffle_rec.py", str(data / "array")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
    with MXIndexedRecordIO(
        data / "shuffled_array/train.idx", data / "shuffled_array/train.rec", "r"
    ) as reader:
        assert len(reader.keys) == FACES


def array_labels(data: Path) -> None:
    isolate()
    import dataset

    labels = [int(label) for _, label in dataset.MXFaceDataset(data / "array", 0)]
    assert labels == [key % 4 for key in range(1, FACES + 1)]


def schedules(data: Path) -> None:
    import torch
    from lr_scheduler import PolynomialLRWarmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = PolynomialLRWarmup(optimizer, 2, 4)
    rates = []
    for _ in range(4):
        optimizer.step()
        scheduler.step()
        rates += scheduler.get_last_lr()
    np.testing.assert_allclose(rates, [0.5, 1.0, 0.5, 0.0])


def validates(data: Path) -> None:
    isolate()
    from eval import verification

    embeddings = np.random.default_rng(0).normal(size=(80, 8))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    figures = verification.evaluate(embeddings, [True, False] * 20)
    assert np.isfinite(figures[3:]).all()


def converts(data: Path) -> None:
    import torch2onnx

    convert(torch2onnx, data)


def converts_any_batch(data: Path) -> None:
    isolate()
    import onnxruntime
    import torch
    import torch2onnx

    for name in ("mbf", "r18", "vit_t"):
        net = convert(torch2onnx, data, name)
        session = onnxruntime.InferenceSession(
            data / "out.onnx", providers=["CPUExecutionProvider"]
        )
        for batch in (1, 4):
            images = torch.randn(batch, 3, 112, 112)
            (found,) = session.run(None, {"data": images.numpy()})
            with torch.no_grad():
                wanted = net(images).numpy()
            np.testing.assert_allclose(found, wanted, atol=1e-4 * abs(wanted).max())


def evaluates_ijbc(data: Path) -> None:
    run_eval_ijbc(data)


def evaluates_ijbc_by_onnx(data: Path) -> None:
    isolate("mxnet")
    run_onnx_ijbc(data)


def plots(data: Path) -> None:
    (data / "files.txt").write_text(f"{data / 'scores.npy'}\n")
    sys.argv = ["plot.py", str(data / "files.txt")]
    code = Path("utils/plot.py").read_text().replace("/train_tmp/IJB_release/IJBC", str(data))
    exec(compile(code, "plot.py", "exec"), {"__name__": "__main__"})


def compares_with_literals(data: Path) -> None:
    warnings.simplefilter("error", SyntaxWarning)
    compile(Path("utils/utils_callbacks.py").read_text(), "utils_callbacks.py", "exec")


def backbone_deprecations(data: Path) -> None:
    import timm  # noqa: F401
    import torch
    from torch import distributed

    torch.Tensor.cuda = lambda self: self
    warnings.simplefilter("error", FutureWarning)
    from backbones import get_model
    from partial_fc_v2 import PartialFC_V2

    for name in ("mbf", "r18", "vit_t"):
        get_model(name, fp16=False, num_features=512).eval()(torch.zeros(1, 3, 112, 112))
    distributed.init_process_group("gloo", f"file://{data / 'store'}", rank=0, world_size=1)
    PartialFC_V2(lambda logits, labels: logits, 8, 4)(torch.randn(2, 8), torch.tensor([0, 1]))


def checkpoints_activations(data: Path) -> None:
    import torch
    from backbones.vit import VisionTransformer

    warnings.filterwarnings("error", ".*use_reentrant.*")
    net = VisionTransformer(
        112, 28, num_classes=4, embed_dim=8, depth=1, num_heads=1, using_checkpoint=True
    )
    net.train()(torch.zeros(2, 3, 112, 112)).sum().backward()


def decorates_classes(data: Path) -> None:
    isolate()
    warnings.filterwarnings("error", "Decorating classes.*")
    import dataset  # noqa: F401
    import onnx_ijbc  # noqa: F401


def aligns(data: Path) -> None:
    isolate()
    import onnx_ijbc

    warnings.filterwarnings("error", ".*estimate.*", FutureWarning)
    warnings.filterwarnings = lambda *args, **kwargs: None  # eval_ijbc.py silences everything
    face = f"0.jpg {LANDMARKS} 0.9"
    assert onnx_ijbc.AlignedDataSet(data / "loose_crop", [face])[0].shape == (2, 3, 112, 112)
    run_eval_ijbc(data)


def starts_workers(data: Path) -> None:
    isolate()
    import dataset
    import torch

    multiprocessing.set_start_method("forkserver", force=True)  # the default from 3.14 on
    torch.cuda.Stream = lambda device: None
    dataset.ImageFolder = lambda root, transform: Reruns()
    loader = dataset.get_dataloader(str(data), 0, 2, num_workers=1)
    batches = super(dataset.DataLoaderX, loader).__iter__()
    assert not any(next(batches)), "every worker runs the training script again"


def starts_workers_of_ijbc(data: Path) -> None:
    isolate()
    multiprocessing.set_start_method("forkserver", force=True)
    run_onnx_ijbc(data)


def scales(data: Path) -> None:
    import torch  # noqa: F401

    calls = (node for node in ast.walk(ast.parse(Path("train_v2.py").read_text())))
    calls = (ast.unparse(node) for node in calls if isinstance(node, ast.Call))
    scaler = next(call for call in calls if call.startswith("torch.cuda.amp"))
    warnings.simplefilter("error", FutureWarning)
    eval(scaler, {"torch": sys.modules["torch"]})


def trains_on_cpu(data: Path) -> None:
    isolate()
    sys.argv = ["train_v2.py", "configs/ms1mv3_r50_onegpu"]
    runpy.run_path("train_v2.py", run_name="__main__")


PROBES = [
    Probe("requirement.txt", "`sklearn` refuses to install, half is not listed", requirements),
    Probe("dataset.py", "`import mxnet` fails beside numpy >= 1.24: no `.rec`", reads_records),
    Probe("eval/verification.py", "`import mxnet`: no `.bin`", reads_bins),
    Probe("scripts/shuffle_rec.py", "`import mxnet`", shuffles_records),
    Probe("dataset.py", "labels that are arrays: TypeError from torch 2.13 on", array_labels),
    Probe("lr_scheduler.py", "`verbose=`: from torch 2.7 on nothing trains", schedules),
    Probe(
        "eval/verification.py", "`interp1d`, scipy >= 1.9: the first validation fails", validates
    ),
    Probe("torch2onnx.py", "`np.float`, gone from numpy 1.24 on", converts),
    Probe("torch2onnx.py", "torch >= 2.9: the graph takes batch 1 alone", converts_any_batch),
    Probe("eval_ijbc.py", "`np.int`, gone from numpy 1.24 on", evaluates_ijbc),
    Probe("onnx_ijbc.py", "`import mxnet`, `np.int`", evaluates_ijbc_by_onnx),
    Probe("utils/plot.py", "`np.int`", plots),
    Probe("utils/utils_callbacks.py", "`is` with a literal: warning", compares_with_literals),
    Probe(
        "backbones/, partial_fc_v2.py",
        "`torch.cuda.amp.autocast`, `timm.models.layers`: warnings",
        backbone_deprecations,
    ),
    Probe("backbones/", "checkpoints without `use_reentrant`: warning", checkpoints_activations),
    Probe("dataset.py, onnx_ijbc.py", "`no_grad` around a class: warning", decorates_classes),
    Probe("eval_ijbc.py, onnx_ijbc.py", "scikit-image 0.26, `estimate`: warning", aligns),
    Probe(
        "dataset.py",
        "forkserver, Python 3.14's default: each worker runs `train_v2.py` again",
        starts_workers,
    ),
    Probe(
        "onnx_ijbc.py",
        "forkserver, Python 3.14's default: workers do not start",
        starts_workers_of_ijbc,
    ),
    Probe("train_v2.py", "`torch.cuda.amp.GradScaler`: warning", scales, "only a warning"),
    Probe(
        "train_v2.py", "nccl and `.cuda()` throughout", trains_on_cpu, "use `arcface-cakd train`"
    ),
]


class Reruns:
    """A data set whose items say whether their worker ran the main script again."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return int(__name__ == "__mp_main__")


def isolate(*left: str) -> None:
    """Mend for this process what hides other breakages, but what is to be left."""
    if "mxnet" not in left:
        from arcface_cakd.arcface_torch import mxnet

        sys.modules["mxnet"] = mxnet
        np.int = int
    np.float = float


def network(data: Path, name: str = "mbf"):
    import torch
    from backbones import get_model

    torch.manual_seed(0)
    net = get_model(name, fp16=False, num_features=512).eval()
    torch.save(net.state_dict(), data / "model.pt")
    return net


def convert(torch2onnx, data: Path, name: str = "mbf"):
    net = network(data, name)
    torch2onnx.convert_onnx(net, data / "model.pt", str(data / "out.onnx"))
    return net


def run_eval_ijbc(data: Path) -> None:
    import torch

    network(data)
    torch.nn.Module.cuda = torch.Tensor.cuda = lambda self: self
    sys.argv = ["eval_ijbc.py", "--model-prefix", str(data / "model.pt"), "--network", "mbf"]
    sys.argv += ["--image-path", str(data), "--result-dir", str(data), "--batch-size", "5"]
    runpy.run_path("eval_ijbc.py", run_name="__main__")
    assert np.isfinite(np.load(data / "insightface/ijbc.npy")).all()


def run_onnx_ijbc(data: Path) -> None:
    import onnx_ijbc
    import torch

    torch.onnx.export(
        network(data),
        torch.zeros(1, 3, 112, 112),
        str(data / "z.onnx"),
        input_names=["data"],
        dynamic_axes={"data": {0: "batch"}},
        dynamo=False,
    )
    loader = onnx_ijbc.DataLoader
    onnx_ijbc.DataLoader = lambda *args, **kwargs: loader(*args, **{**kwargs, "num_workers": 1})
    onnx_ijbc.main(argparse.Namespace(model_root=str(data), image_path=str(data), target="IJBC"))
    assert np.isfinite(np.load(data / "IJBC_result/IJBC.npy")).all()


def main(name: str, data: str) -> None:
    sys.path.insert(0, os.getcwd())
    probe = next(probe for probe in PROBES if probe.run.__name__ == name)
    try:
        with redirect_stdout(io.StringIO()):
            probe.run(Path(data))
    except BaseException as error:
        kind = "" if type(error) in (AssertionError, SyntaxError) else f"{type(error).__name__}: "
        sys.exit(f"{kind}{error}".strip().splitlines()[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
