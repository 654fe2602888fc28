"""Core ML's packages, which do not run here: their operations, evaluated one by one in float64."""

import json

import numpy as np
import pytest
import torch
from helpers.small_networks import SmallNetwork
from torch.nn import functional

from arcface_cakd import cli
from arcface_cakd.backbones import get_model, save_weights
from arcface_cakd.export import ExportError, export_model
from arcface_cakd.export.formats import Format


def tensor(value):
    return torch.from_numpy(np.asarray(value, dtype=np.float64))


def convolution(x, weight, bias, strides, pad_type, pad, dilations, groups):
    assert pad_type in ("custom", "valid")
    top, bottom, left, right = pad if pad_type == "custom" else (0, 0, 0, 0)
    x = functional.pad(x, (int(left), int(right), int(top), int(bottom)))
    steps = [tuple(int(n) for n in values) for values in (strides, dilations)]
    return functional.conv2d(
        x, tensor(weight), tensor(bias), steps[0], 0, steps[1], groups=int(groups)
    )


def batch_norm(x, mean, variance, gamma, beta, epsilon):
    statistics = [tensor(value) for value in (mean, variance, gamma, beta)]
    return functional.batch_norm(x, *statistics, eps=float(epsilon))


OPERATIONS = {
    "conv": convolution,
    "batch_norm": batch_norm,
    "leaky_relu": lambda x, alpha: torch.where(x > 0, x, float(alpha) * x),
    "prelu": lambda x, alpha: functional.prelu(x, tensor(alpha)),
    "add": lambda x, y: x + y,
    "abs": lambda x: x.abs(),
    "reshape": lambda x, shape: x.reshape([int(n) for n in shape]),
    "linear": lambda x, weight, bias: x @ tensor(weight).T + tensor(bias),
    "expand_dims": lambda x, axes: x.unsqueeze(int(axes[0])),
    "squeeze": lambda x, axes: x.squeeze(int(axes[0])),
    "cast": lambda x, dtype: x,
}


def evaluated(path, image):
    """The embedding that a package's program gives, and the package."""
    import coremltools
    from coremltools.converters.mil.frontend.milproto.load import load

    package = coremltools.models.MLModel(str(path), skip_model_load=True)
    spec = package.get_spec()
    program = load(spec, spec.specificationVersion, package.weights_dir)
    found = {"data": image.double()}
    for operation in program.functions["main"].operations:
        if operation.op_type != "const":
            given = {
                name: found.get(value.name, value.val)
                for name, value in operation.inputs.items()
                if value is not None
            }
            (made,) = operation.outputs
            found[made.name] = OPERATIONS[operation.op_type](**given)
    return found["embedding"], package


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("fp16", 1e-2)])
def test_its_program_gives_torchs_embedding(tmp_path, capfd, precision, tolerance):
    pytest.importorskip("coremltools")
    path = tmp_path / "m.mlpackage"
    report = export_model(SmallNetwork(), path, precision, about={"license": "MIT"})
    assert capfd.readouterr() == ("", "")
    assert (report.runtime, report.cosine) == (None, None)
    parts = [part for part in path.rglob("*") if part.is_file()]
    assert report.size == sum(part.stat().st_size for part in parts)
    image = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1
    found, package = evaluated(path, image)
    with torch.no_grad():
        expected = SmallNetwork().double()(image.double())
    assert float((found - expected).norm() / expected.norm()) < tolerance
    assert package.user_defined_metadata["license"] == "MIT"
    described = package.get_spec().description
    (given,), (made,) = described.input, described.output
    assert (given.name, made.name) == ("data", "embedding")
    float32 = given.type.multiArrayType.FLOAT32
    assert given.type.multiArrayType.dataType == made.type.multiArrayType.dataType == float32
    assert list(given.type.multiArrayType.shape) == [1, 3, 112, 112]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.fixture
def packages(monkeypatch):
    """Core ML's place taken by a writer of folders; ``packages[0]`` is what it writes next."""
    written = [b"first"]

    def write(model, file, request):
        (file / "Data").mkdir(parents=True)
        (file / "Manifest.json").write_bytes(b"")
        (file / "Data" / "weights.bin").write_bytes(written[0])
        if written[0] == b"broken":
            raise ValueError("the converter\nfails")
        return {}

    form = Format(".mlpackage", ("fp32",), "torch", write, runs_here=False)
    monkeypatch.setattr("arcface_cakd.export.exporting.FORMATS", (form,))
    return written


def held(folder):
    return {part.name: part.read_bytes() for part in folder.rglob("*") if part.is_file()}


def test_a_folder_is_replaced_whole_or_left(packages, tmp_path):
    path = tmp_path / "m.mlpackage"
    assert export_model(SmallNetwork(), path).size == len(b"first")
    (path / "Data" / "former.bin").write_bytes(b"of a former one")
    former = held(path)
    packages[0] = b"broken"
    with pytest.raises(ExportError, match="the converter fails"):
        export_model(SmallNetwork(), path)
    assert held(path) == former and former["former.bin"] == b"of a former one"
    packages[0] = b"second"
    (path / ".DS_Store").write_bytes(b"of macOS")
    export_model(SmallNetwork(), path)
    assert held(path) == {"weights.bin": b"second", "Manifest.json": b""}
    assert [p.name for p in tmp_path.iterdir()] == ["m.mlpackage"]


def test_what_is_no_package_is_not_replaced(packages, tmp_path):
    path = tmp_path / "m.mlpackage"
    export_model(SmallNetwork(), path)
    (path / "thesis.tex").write_text("years of work")
    (tmp_path / "notes.mlpackage").mkdir()
    (tmp_path / "notes.mlpackage" / "Data").mkdir()
    (tmp_path / "file.mlpackage").write_bytes(b"a file")
    (tmp_path / "link.mlpackage").symlink_to(path)
    there = sorted(tmp_path.rglob("*"))
    for name in ("m", "notes", "file", "link"):
        with pytest.raises(ExportError, match="no folder of Data and Manifest"):
            export_model(SmallNetwork(), tmp_path / f"{name}.mlpackage")
    assert sorted(tmp_path.rglob("*")) == there


def test_faces_for_what_is_not_run_are_refused(packages, tmp_path):
    faces = np.zeros((80, 112, 112, 3), dtype=np.uint8)
    with pytest.raises(ExportError, match="nothing to compare on faces: drop --calibrate"):
        export_model(SmallNetwork(), tmp_path / "m.mlpackage", faces=faces)
    assert not list(tmp_path.iterdir())


def test_that_it_was_not_run_is_said(packages, tmp_path, capsys):
    weights, path = tmp_path / "model.pt", tmp_path / "m.mlpackage"
    save_weights(get_model("r10_narrow", num_features=16), weights)
    command = ["export", str(weights), "--network", "r10_narrow", "--output", str(path)]
    assert cli.main([*command, "--json", str(tmp_path / "figures.json")]) == 0
    printed = capsys.readouterr().out
    assert "not run, and not compared with torch" in printed
    assert f"hf upload OWNER/NAME {path} m.mlpackage && " in printed
    card = (tmp_path / "m.mlpackage.md").read_text(encoding="utf-8")
    assert "| against torch in float32 | not compared: it was not run |" in card
    assert "library_name: coreml" in card and "| files | `m.mlpackage` (0.0 MB) |" in card
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["runtime"] is figures["cosine"] is None


def test_it_cannot_be_judged(packages, tmp_path):
    with pytest.raises(ExportError, match=r"cannot be judged: judge an \.onnx file"):
        export_model(SmallNetwork(), tmp_path / "m.mlpackage", judge=lambda exported: None)
    assert list(tmp_path.iterdir()) == []
