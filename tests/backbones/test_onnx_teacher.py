"""ONNX files as teachers."""

import dataclasses
import logging

import onnx
import pytest
import torch
from helpers.engine_runs import make_faces, small_cakd, small_config
from helpers.onnx_files import images, mean, two_outputs, write
from onnx import TensorProto, helper

from arcface_cakd.backbones import (
    BackboneError,
    OnnxTeacher,
    WeightsError,
    build_teacher,
    get_model,
)
from arcface_cakd.engine import TeacherError, train
from arcface_cakd.export import export_onnx


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network with BatchNorm statistics of its own, and its ONNX file."""
    torch.manual_seed(1)
    network = get_model("r10_narrow", num_features=24)
    with torch.no_grad():
        network.train()(images(6))
    path = tmp_path_factory.mktemp("onnx") / "teacher.onnx"
    export_onnx(network, path)
    return network.eval(), path


def teacher_of(path, **settings):
    return build_teacher(512, network=f"onnx:{path}", **settings)


def test_an_export_teaches_what_its_network_computes(exported):
    network, path = exported
    teacher = teacher_of(path)
    assert teacher.embedding_size == 24 and teacher.batch is None
    assert teacher.token_dim is None and teacher.grid is None and teacher.stage_dims == ()
    with pytest.raises(BackboneError, match="OnnxTeacher gives embeddings only"):
        _ = teacher.map_shape
    assert not list(teacher.parameters()) and not teacher.state_dict() and not teacher.training
    for count in (1, 3, 8):
        faces = images(count, seed=count)
        with torch.no_grad():
            expected = network(faces)
        features = teacher.forward_features(faces)
        torch.testing.assert_close(features.embedding, expected, rtol=1e-4, atol=1e-4)
        assert features.tokens is None and features.grid is None and features.stages == ()
        assert torch.equal(teacher(faces), features.embedding)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(teacher(faces.double()), features.embedding)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_file_of_one_batch_size_takes_any(tmp_path, batch):
    path = write(tmp_path / "m.onnx", [mean()], shape=(batch, 3, 112, 112))
    teacher = teacher_of(path)
    assert teacher.batch == batch and teacher.embedding_size == 3
    for count in (1, 3, 4, 5, 8):
        faces = images(count)
        torch.testing.assert_close(teacher(faces), faces.mean(dim=(2, 3)))


def one_at_a_time(path):
    """A graph that declares any batch, and makes one image of whatever comes."""
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "shape"], ["flat"]),
            helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[2], keepdims=0),
        ],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, 112, 112))],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, None)],
        [helper.make_tensor("shape", TensorProto.INT64, [3], [1, 3, -1])],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_a_graph_that_declares_what_it_cannot_do_is_run_image_by_image(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "arcface_cakd"):
        teacher = teacher_of(one_at_a_time(tmp_path / "m.onnx"))
    assert teacher.batch == 1 and "one image at a time" in caplog.text
    faces = images(3)
    torch.testing.assert_close(teacher(faces), faces.mean(dim=(2, 3)))


def test_a_graph_that_normalises_itself_gets_pixels(tmp_path):
    nodes = [
        helper.make_node("Sub", ["x", "offset"], ["centred"], "Sub_1"),
        helper.make_node("Mul", ["centred", "factor"], ["scaled"], "Mul_1"),
        mean("scaled"),
    ]
    constants = (("offset", 127.5), ("factor", 1 / 128))
    teacher = teacher_of(write(tmp_path / "m.onnx", nodes, constants=constants))
    faces = images(2)
    expected = faces.mean(dim=(2, 3)) * 127.5 / 128
    torch.testing.assert_close(teacher(faces), expected, rtol=0, atol=1e-5)


def keeps_dimensions(path):
    node = helper.make_node("ReduceMean", ["x"], ["mean"], "reduce", axes=[2, 3], keepdims=1)
    return write(path, [node])


def in_half(path):
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ("N", 3, 112, 112))
    out = helper.make_tensor_value_info("mean", TensorProto.FLOAT16, None)
    model = helper.make_model(
        helper.make_graph([mean()], "test", [value], [out]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path, "no such file"),
        (lambda path: path.write_bytes(b"no graph") and path, "not an ONNX file"),
        (lambda path: write(path, [mean()], shape=(1, 3, 224, 224)), "(N, 3, 112, 112)"),
        (two_outputs, "2 outputs"),
        (keeps_dimensions, "must be (N, E), and is (1, 3, 1, 1)"),
        (in_half, "(float16) ['N', 3, 112, 112]"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, make, said, capfd):
    path = make(tmp_path / "m.onnx")
    with pytest.raises(BackboneError) as caught:
        teacher_of(path)
    line = str(caught.value)
    assert line.startswith(f"cakd.teacher, network 'onnx:{path}': ")
    assert said in line and "\n" not in line
    assert not capfd.readouterr().err  # nothing of onnxruntime's own beside it


@pytest.mark.parametrize("weights", ["random", "model.pt"])
def test_weights_beside_an_onnx_file_are_a_mistake(exported, weights):
    with pytest.raises(WeightsError, match=r"brings its weights; drop cakd\.teacher\.weights"):
        teacher_of(exported[1], weights=weights)


def test_no_random_numbers_are_drawn(exported):
    before = torch.get_rng_state()
    teacher_of(exported[1])(images(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_it_cannot_be_a_student(exported):
    with pytest.raises(BackboneError, match=r"can be a teacher, .* but not be trained"):
        get_model(f"onnx:{exported[1]}")
    teacher = teacher_of(exported[1])
    for part in (teacher.body, teacher.head):
        with pytest.raises(BackboneError, match="gives embeddings only"):
            part(images(1))


def test_a_gpu_that_onnxruntime_cannot_use_is_said(exported, monkeypatch, caplog):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    teacher = OnnxTeacher(exported[1])
    expected = teacher(images(2))
    teacher._move(torch.device("cuda", 1))
    assert "runs on the CPU, which is slow" in caplog.text
    assert torch.equal(teacher._embed(images(2)), expected)


def test_it_teaches_in_the_loop(exported, tmp_path, caplog):
    faces = make_faces(tmp_path / "faces")
    teacher = dict(network=f"onnx:{exported[1]}")
    config = small_config(
        faces,
        tmp_path / "out",
        embedding_size=24,
        cakd=small_cakd(teacher=teacher, prompts=None, urfm=None),
        val_targets=("lfw",),
        num_epoch=1,
    )
    with caplog.at_level(logging.INFO, "arcface_cakd"):
        result = train(config)
    assert result.history[0]["terms"].keys() == {"embedding_cosine"}
    (line,) = [m for m in caplog.messages if m.startswith("teacher: ")]
    assert line.startswith("teacher: lfw ") and line.endswith(" %")
    demanding = {**config.cakd.teacher, "min_accuracy": 1.0}
    cakd = dataclasses.replace(config.cakd, teacher=demanding)
    with pytest.raises(TeacherError, match=r"teacher\.onnx' has an accuracy of 0\.\d+ on lfw"):
        train(dataclasses.replace(config, cakd=cakd, force=True))
