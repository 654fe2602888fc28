"""ONNX files as teachers."""

import dataclasses
import logging

import numpy as np
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
from arcface_cakd.engine.fingerprint import weights_digest
from arcface_cakd.export import export_model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A network with BatchNorm statistics of its own, and its ONNX file."""
    torch.manual_seed(1)
    network = get_model("r10_narrow", num_features=24)
    with torch.no_grad():
        network.train()(images(6))
    path = tmp_path_factory.mktemp("onnx") / "teacher.onnx"
    export_model(network, path)
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


@pytest.mark.parametrize("kind", ["FLOAT16", "DOUBLE"])
def test_inputs_of_other_precisions_run(tmp_path, kind):
    dtype = {"FLOAT16": torch.float16, "DOUBLE": torch.float64}[kind]
    value, out = (
        helper.make_tensor_value_info(name, getattr(TensorProto, kind), shape)
        for name, shape in (("x", ("N", 3, 112, 112)), ("mean", None))
    )
    model = helper.make_model(
        helper.make_graph([mean()], "test", [value], [out]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "m.onnx")
    faces = images(3)
    found = teacher_of(tmp_path / "m.onnx")(faces)
    assert found.dtype == torch.float32
    expected = faces.to(dtype).double().mean(dim=(2, 3)).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


class Normalising(torch.nn.Module):
    """Takes 0..255, under names that say nothing of it."""

    def __init__(self, network, offset, factor):
        super().__init__()
        self.network, self.offset, self.factor = network, offset, factor

    def forward(self, pixels):
        return self.network((pixels - self.offset) * self.factor)


@pytest.fixture(scope="module", params=["r10_narrow", "vit_mini"])
def by_range(request, tmp_path_factory):
    """A network, and files of it that take [-1, 1], 0..255, and 0..255 by way of [0, 1]."""
    torch.manual_seed(2)
    network = get_model(request.param, num_features=24)
    with torch.no_grad():
        network.train()(images(6))
    network.eval()
    folder = tmp_path_factory.mktemp("ranges")
    for name, model in {
        "plain": network,
        "inside": Normalising(network, 127.5, 1 / 127.5),
        "unit": Normalising(network, 0.0, 1 / 255),
    }.items():
        torch.onnx.export(
            model.eval(), (images(2),), folder / f"{name}.onnx", dynamo=False, input_names=["x"],
            output_names=["y"], dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
        )  # fmt: skip
    return network, folder


@pytest.mark.filterwarnings("ignore")  # torch's, of its older exporter
class TestPixels:
    def test_a_plain_graph_is_silent(self, by_range, caplog):
        teacher = teacher_of(by_range[1] / "plain.onnx")
        assert caplog.text == "" and not teacher.state_dict()

    @pytest.mark.parametrize("name", ["inside", "unit"])
    def test_one_that_normalises_is_noticed_and_the_setting_mends_it(self, by_range, name, caplog):
        network, folder = by_range
        path = folder / f"{name}.onnx"
        wrong = teacher_of(path)
        (message,) = caplog.messages
        assert message.startswith(f"{path}: its embeddings say that it takes pixels as 0..255")
        assert "set pixels (of cakd.teacher, or --pixels) to raw" in message
        caplog.clear()
        teacher = teacher_of(path, pixels="raw")
        assert caplog.text == ""
        faces = images(3, seed=5)
        with torch.no_grad():
            expected = network(faces if name == "inside" else (faces + 1) / 2)
        torch.testing.assert_close(teacher(faces), expected, rtol=1e-3, atol=1e-3)
        assert (wrong(faces) - expected).abs().max() > 0.05
        # The same file with another setting is another teacher for checkpoints and caches.
        assert weights_digest(teacher) != weights_digest(wrong)
        teacher_of(path, pixels="normalised")
        assert caplog.text == ""

    def test_names_that_promise_what_the_graph_does_not_do(self, by_range, tmp_path, caplog):
        network, folder = by_range
        model = onnx.load(folder / "plain.onnx")
        for node, name in zip(model.graph.node, ("Sub_0", "Mul_0"), strict=False):
            node.name = name
        onnx.save(model, tmp_path / "m.onnx")
        teacher_of(tmp_path / "m.onnx")
        assert (
            "takes pixels as [-1, 1], and by the names of its nodes it gets 0..255" in caplog.text
        )
        caplog.clear()
        teacher = teacher_of(tmp_path / "m.onnx", pixels="normalised")
        faces = images(2)
        with torch.no_grad():
            torch.testing.assert_close(teacher(faces), network(faces), rtol=1e-3, atol=1e-3)
        assert caplog.text == ""

    def test_a_graph_that_tells_nothing_is_silent(self, tmp_path, caplog):
        """Its embedding is the same for every picture."""
        zero = helper.make_node("Mul", ["mean0", "nought"], ["mean"], "scale")
        node = helper.make_node("ReduceMean", ["x"], ["mean0"], "reduce", axes=[2, 3], keepdims=0)
        teacher_of(write(tmp_path / "m.onnx", [node, zero], constants=[("nought", 0.0)]))
        assert caplog.text == ""

    def test_other_networks_have_no_such_setting(self):
        with pytest.raises(WeightsError, match=r"cakd\.teacher\.pixels 'raw' is for ONNX files"):
            build_teacher(512, network="r10_narrow", weights="random", pixels="raw")


def keeps_dimensions(path):
    node = helper.make_node("ReduceMean", ["x"], ["mean"], "reduce", axes=[2, 3], keepdims=1)
    return write(path, [node])


def of_integers(path):
    value = helper.make_tensor_value_info("x", TensorProto.UINT8, ("N", 3, 112, 112))
    out = helper.make_tensor_value_info("mean", TensorProto.FLOAT, None)
    cast = helper.make_node("Cast", ["x"], ["y"], "cast", to=TensorProto.FLOAT)
    model = helper.make_model(
        helper.make_graph([cast, mean("y")], "test", [value], [out]),
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
        (of_integers, "(uint8) ['N', 3, 112, 112]"),
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


def test_its_precision_is_that_of_its_file(exported):
    with pytest.raises(BackboneError, match=r"cakd\.teacher\.bf16.*in the precision of its file"):
        teacher_of(exported[1], bf16=True)


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


def test_it_teaches_in_the_loop(exported, tmp_path, caplog, monkeypatch):
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
    # From a cache its file is closed before the first step, and the run ends as well.
    known = {**config.cakd.teacher, "cache": str(tmp_path / "cache")}
    closed, close = [], OnnxTeacher.close

    def closing(teacher):
        close(teacher)
        closed.append(teacher)

    with monkeypatch.context() as patch:
        patch.setattr(OnnxTeacher, "close", closing)
        cached = dataclasses.replace(config.cakd, teacher=known)
        again = train(dataclasses.replace(config, cakd=cached, output=str(tmp_path / "cached")))
    assert len(closed) == 1 and "_model" not in vars(closed[0])
    closed[0].close()
    losses = [[line["loss"] for line in r.history if "loss" in line] for r in (result, again)]
    np.testing.assert_allclose(*losses, rtol=2e-3)
    (line,) = {m for m in caplog.messages if m.startswith("teacher: ")}
    assert line.startswith("teacher: lfw ") and line.endswith(" %")
    demanding = {**config.cakd.teacher, "min_accuracy": 1.0}
    cakd = dataclasses.replace(config.cakd, teacher=demanding)
    with pytest.raises(TeacherError, match=r"teacher\.onnx' has an accuracy of 0\.\d+ on lfw"):
        train(dataclasses.replace(config, cakd=cakd, force=True))
