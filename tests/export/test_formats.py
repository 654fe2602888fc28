"""Every format against torch, in its own runtime, where converter and runtime are installed."""

import os
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from helpers.small_networks import SmallNetwork

from arcface_cakd.data import write_bin
from arcface_cakd.export import FORMATS, ExportError, check_place, export_model, formats
from arcface_cakd.extras import MissingPackageError, is_installed
from arcface_cakd.runtimes import ENDINGS, RuntimeProblem, files_of, installed, open_exported


def pictures(count, seed=0):
    """Coarse ones, uint8 (N, 112, 112, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 14, 14, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def images(count, seed=1):
    return torch.from_numpy(pictures(count, seed)).permute(0, 3, 1, 2).float() / 127.5 - 1


def by_torch(model, batch):
    with torch.no_grad():
        return model.double()(batch.double()).numpy()


RUN_HERE = [form for form in FORMATS if form.runs_here]
FLOATS = [
    (form.ending, precision, 1e-4 if precision == "fp32" else 1e-2)
    for form in RUN_HERE
    for precision in form.precisions
    if precision != "int8"
]


def needs(ending):
    (form,) = [form for form in FORMATS if form.ending == ending]
    for package in (form.converter, ENDINGS[ending].PACKAGE):
        if not is_installed(package):  # not imported yet: what that prints is export's to keep back
            pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize(("ending", "precision", "tolerance"), FLOATS)
def test_a_file_gives_torchs_embeddings(tmp_path, capfd, ending, precision, tolerance):
    needs(ending)
    path = tmp_path / f"model{ending}"
    report = export_model(SmallNetwork(), path, precision, about={"license": "MIT"})
    assert capfd.readouterr() == ("", "")
    batch = images(3)
    expected = by_torch(SmallNetwork(), batch)
    found = open_exported(path, threads=1)(batch).numpy()
    assert found.dtype == np.float32
    error = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert 0 < error.max() < tolerance
    assert report.cosine > 1 - tolerance**2
    assert report.runtime == ENDINGS[ending].RUNTIME
    files = files_of(path)
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert report.size == sum(file.stat().st_size for file in files)
    if precision == "fp16":
        parameters = sum(p.numel() for p in SmallNetwork().parameters())
        assert 1.8 * parameters < files[-1].stat().st_size < 3 * parameters + 8000


# Of files that others belong to.
BEGINNINGS = {
    ".xml": b'<?xml version="1.0"?>\n<net name="Model0" version="11">\n',
    ".ncnn.param": b"7767517\n75 83\n",
}


@pytest.mark.parametrize("ending", [form.ending for form in RUN_HERE])
def test_a_converter_that_fails_leaves_what_was_there(tmp_path, monkeypatch, ending):
    needs(ending)
    (form,) = [form for form in FORMATS if form.ending == ending]

    def write(model, file, request):
        for part in files_of(file):
            part.write_bytes(b"damaged")
        return {}

    broken = formats.Format(ending, form.precisions, form.converter, write)
    monkeypatch.setattr("arcface_cakd.export.exporting.FORMATS", (broken,))
    path = tmp_path / f"model{ending}"
    for file in files_of(path):
        file.write_bytes(BEGINNINGS.get(ending, b"former"))
    with pytest.raises(ExportError, match="cannot be exported to") as caught:
        export_model(SmallNetwork(), path)
    assert "\n" not in str(caught.value)
    assert all(file.read_bytes() == BEGINNINGS.get(ending, b"former") for file in files_of(path))
    assert sorted(tmp_path.iterdir()) == sorted(files_of(path))


def test_a_file_of_another_network_is_refused(tmp_path, monkeypatch):
    (form,) = [form for form in FORMATS if form.ending == ".onnx"]

    export_model(SmallNetwork(seed=1), tmp_path / "other.onnx")
    former = (tmp_path / "other.onnx").read_bytes()

    def copied(model, file, request):
        file.write_bytes(former)
        return {}

    wrong = replace(form, write=copied)
    monkeypatch.setattr("arcface_cakd.export.exporting.FORMATS", (wrong,))
    with pytest.raises(ExportError, match="differ from torch"):
        export_model(SmallNetwork(), tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["other.onnx"]


def test_what_is_not_there_is_said(tmp_path, monkeypatch):
    model = SmallNetwork()
    with pytest.raises(ExportError, match=r"\.ncnn\.param files have no precision 'int8'"):
        export_model(model, tmp_path / "m.ncnn.param", "int8")
    with pytest.raises(ExportError, match=r"no precision 'fp23'.*fp32"):
        export_model(model, tmp_path / "m.onnx", "fp23")
    with pytest.raises(ExportError, match=r"must end in one of \.onnx, \.tflite, \.ncnn\.param"):
        export_model(model, tmp_path / "m.mnn")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"needs the package pnnx: pip install 'arc"):
        export_model(model, tmp_path / "m.ncnn.param")
    for ending in ENDINGS:
        for file in files_of(tmp_path / f"m{ending}"):
            file.write_bytes(b"")
        if ending != ".onnx":
            with pytest.raises(MissingPackageError, match=r"runs, needs the package \w+: pip"):
                open_exported(tmp_path / f"m{ending}")
    assert installed() == []


@pytest.mark.parametrize("ending", BEGINNINGS)
def test_a_file_that_nobody_named_is_not_written_over(tmp_path, ending):
    model, further = files_of(tmp_path / f"lfw{ending}")
    write_bin(further, [b"one", b"other"], [True])
    before = further.read_bytes()
    for former in (False, True):
        if former:
            model.write_bytes(BEGINNINGS[ending])
        with pytest.raises(ExportError, match=rf"{further.name} is there, belongs to no model"):
            export_model(SmallNetwork(), model)
    assert further.read_bytes() == before
    further.write_bytes(bytes(8))  # as weights are
    check_place(model)
    for other in (b"<annotation>\n<folder>faces</folder>", b"<network>", b"77675170\n", b""):
        model.write_bytes(other)
        with pytest.raises(ExportError, match=rf"{further.name} is there, belongs to no model"):
            check_place(model)
    model.unlink()
    with pytest.raises(ExportError, match="choose another name"):
        check_place(model)
    model.mkdir()
    with pytest.raises(ExportError, match="is there and is no file: choose another name"):
        export_model(SmallNetwork(), model)
    assert further.read_bytes() == bytes(8)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_of_the_files_name_is_said_before_any_work(tmp_path, ending):
    (tmp_path / f"m{ending}").mkdir()
    with pytest.raises(ExportError, match="is there and is no file: choose another name"):
        check_place(tmp_path / f"m{ending}")


@pytest.mark.parametrize("ending", BEGINNINGS)
def test_what_it_writes_may_be_replaced_and_is_never_half_of_two(tmp_path, monkeypatch, ending):
    needs(ending)
    (form,) = [form for form in FORMATS if form.ending == ending]
    path, kept = tmp_path / f"m{ending}", tmp_path / f"kept{ending}"
    export_model(SmallNetwork(), kept)

    def copied(model, file, request):
        for source, target in zip(files_of(kept), files_of(file), strict=True):
            target.write_bytes(source.read_bytes())
        return {}

    copies = (replace(form, write=copied),)
    monkeypatch.setattr("arcface_cakd.export.exporting.FORMATS", copies)
    export_model(SmallNetwork(), path)
    path.chmod(0o640)
    export_model(SmallNetwork(), path)
    assert path.stat().st_mode & 0o777 == 0o640
    assert [file.read_bytes() for file in files_of(path)] == [
        file.read_bytes() for file in files_of(kept)
    ]
    renamed = []

    class Killed(BaseException):
        pass

    def rename_one(source, target):
        if renamed:
            raise Killed
        renamed.append(target)
        os.rename(source, target)

    monkeypatch.setattr("arcface_cakd.files.os.replace", rename_one)
    with pytest.raises(Killed):
        export_model(SmallNetwork(), path)
    assert renamed == files_of(path)[1:] and not path.exists()


def test_a_layer_that_ncnn_lacks_is_named(tmp_path, monkeypatch, capfd):
    needs(".ncnn.param")
    (form,) = [form for form in FORMATS if form.ending == ".ncnn.param"]
    lines = ["7767517", "3 3", "Input in0 0 1 in0", "Tensor.reshape t 1 1 in0 1"]
    lines += ["torch.unbind u 1 1 1 out0"]

    def write(model, file, request):
        file.write_text("\n".join(lines))
        file.with_suffix(".bin").write_bytes(b"")
        return {}

    monkeypatch.setattr("arcface_cakd.export.exporting.FORMATS", (replace(form, write=write),))
    said = (
        r"model m\.ncnn\.param has layers that ncnn does not \(Tensor\.reshape, torch\.unbind\), "
        r"as Transformers do: take an \.onnx or \.xml file of the same weights"
    )
    with pytest.raises(ExportError, match=said):
        export_model(SmallNetwork(), tmp_path / "m.ncnn.param")
    assert not list(tmp_path.iterdir())
    lines[0] = "<html>"  # a page that says that there is no such file
    with pytest.raises(ExportError, match=r"m\.ncnn\.param is not a pair of files that ncnn loads"):
        export_model(SmallNetwork(), tmp_path / "m.ncnn.param")
    lines[0] = "7767517"
    lines[3:] = ["ReLU t 1 1 in0 1"]  # fewer than the second line says
    with pytest.raises(ExportError, match=r"m\.ncnn\.param"):
        export_model(SmallNetwork(), tmp_path / "m.ncnn.param")
    assert capfd.readouterr() == ("", "")


def test_a_name_in_capitals_runs(tmp_path):
    export_model(SmallNetwork(), tmp_path / "m.onnx")
    model = (tmp_path / "m.onnx").rename(tmp_path / "M.ONNX")
    assert open_exported(model)(images(1)).shape == (1, 12)


def test_files_that_are_no_models_are_said(tmp_path):
    with pytest.raises(RuntimeProblem, match=r"its name must end in \.onnx"):
        open_exported(tmp_path / "m.pt")
    for ending, model in ENDINGS.items():
        path = tmp_path / f"m{ending}"
        with pytest.raises(RuntimeProblem, match="no such file"):
            open_exported(path)
        if model.installed():
            for file in files_of(path):
                file.write_bytes(b"nothing of the kind")
            with pytest.raises(RuntimeProblem) as caught:
                open_exported(path)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_file_says_what_it_is(tmp_path):
    about = {"network": "small", "license": "MIT"}
    for precision in ("fp32", "fp16"):
        export_model(SmallNetwork(), tmp_path / "m.onnx", precision, about=about)
        found = onnx.load(tmp_path / "m.onnx").metadata_props
        assert {entry.key: entry.value for entry in found} == about


@pytest.mark.parametrize("opset", [13, 18])
def test_the_opset_is_that_asked_for(tmp_path, opset):
    report = export_model(SmallNetwork(), tmp_path / "m.onnx", opset=opset)
    graph = onnx.load(tmp_path / "m.onnx")
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", opset)]
    assert report.opset == opset


def test_a_judge_may_stop_it(tmp_path):
    seen = []

    def judge(exported):
        seen.append(exported(images(2)).shape)
        raise ExportError("too bad")

    path = tmp_path / "m.onnx"
    path.write_bytes(b"former")
    with pytest.raises(ExportError, match=r"^too bad$"):
        export_model(SmallNetwork(), path, judge=judge)
    assert seen == [(2, 12)]
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"former"]
