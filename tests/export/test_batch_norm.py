"""BatchNorm in the weights beside it: fewer nodes, and the same function in float64."""

import numpy as np
import onnx
import pytest
import torch
from helpers.small_networks import SmallNetwork
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from arcface_cakd.export.batch_norm import fold_batch_norms

random = np.random.default_rng(0)


def graph_of(nodes, weights, channels=4, size=6):
    shape = ["batch", channels, size, size]
    made = ["batch", "E"] if any(node.op_type == "Gemm" for node in nodes) else [None] * 4
    return helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, made)],
            [
                numpy_helper.from_array(value.astype(np.float32), name)
                for name, value in weights.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )


def norm(source, target, name="n", epsilon=1e-3):
    inputs = [source, *(f"{name}{part}" for part in "gbmv")]
    return helper.make_node("BatchNormalization", inputs, [target], epsilon=epsilon)


def statistics(channels, name="n"):
    values = random.normal(size=(4, channels))
    return {f"{name}{part}": value for part, value in zip("gbmv", values, strict=True)} | {
        f"{name}v": np.abs(values[3]) + 0.1
    }


def conv(source, target, **settings):
    return helper.make_node("Conv", [source, "w", "c"], [target], **settings)


CASES = {
    "after a padded convolution": (
        [conv("x", "h", pads=[1, 1, 1, 1]), norm("h", "y")],
        {"w": random.normal(size=(5, 4, 3, 3)), "c": random.normal(size=5), **statistics(5)},
        0,
    ),
    "after a convolution without bias, in groups": (
        [helper.make_node("Conv", ["x", "w"], ["h"], group=4), norm("h", "y")],
        {"w": random.normal(size=(4, 1, 3, 3)), **statistics(4)},
        0,
    ),
    "before an unpadded convolution": (
        [norm("x", "h"), conv("h", "y", strides=[2, 2])],
        {"w": random.normal(size=(5, 4, 2, 2)), "c": random.normal(size=5), **statistics(4)},
        0,
    ),
    "before a padded convolution": (
        [norm("x", "h"), conv("h", "y", pads=[1, 1, 1, 1])],
        {"w": random.normal(size=(5, 4, 3, 3)), "c": random.normal(size=5), **statistics(4)},
        1,
    ),
    "before an unpadded convolution in groups": (
        [norm("x", "h"), helper.make_node("Conv", ["h", "w"], ["y"], group=2)],
        {"w": random.normal(size=(4, 2, 3, 3)), **statistics(4)},
        1,
    ),
    "before a convolution that something else reads with": (
        [
            norm("x", "h"),
            helper.make_node("Conv", ["h", "w"], ["k"]),
            helper.make_node("Add", ["h", "k"], ["y"]),
        ],
        {"w": random.normal(size=(4, 4, 1, 1)), **statistics(4)},
        1,
    ),
    "after a convolution that something else reads": (
        [
            helper.make_node("Conv", ["x", "w"], ["k"]),
            norm("k", "h"),
            helper.make_node("Add", ["h", "k"], ["y"]),
        ],
        {"w": random.normal(size=(4, 4, 1, 1)), **statistics(4)},
        1,
    ),
    "before and after a linear layer": (
        [
            norm("x", "h"),
            helper.make_node("Flatten", ["h"], ["f"]),
            helper.make_node("Gemm", ["f", "w", "c"], ["l"], transB=1),
            norm("l", "y", "m"),
        ],
        {
            "w": random.normal(size=(3, 4 * 36)),
            "c": random.normal(size=3),
            **statistics(4),
            **statistics(3, "m"),
        },
        0,
    ),
    "around a linear layer that is not transposed": (
        [
            norm("x", "h"),
            helper.make_node("Flatten", ["h"], ["f"]),
            helper.make_node("Gemm", ["f", "w"], ["l"]),
            norm("l", "y", "m"),
        ],
        {"w": random.normal(size=(4 * 36, 3)), **statistics(4), **statistics(3, "m")},
        0,
    ),
    "a linear layer with a factor": (
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node("Gemm", ["f", "w"], ["l"], alpha=2.0),
            norm("l", "y", "m"),
        ],
        {"w": random.normal(size=(4 * 36, 3)), **statistics(3, "m")},
        1,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_function_stays_and_the_node_goes_where_that_is_exact(case):
    nodes, weights, left = CASES[case]
    model = graph_of(nodes, weights)
    images = random.normal(size=(2, 4, 6, 6)).astype(np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"x": images})
    assert fold_batch_norms(model) == left
    onnx.checker.check_model(model, full_check=True)
    assert sum(node.op_type == "BatchNormalization" for node in model.graph.node) == left
    (found,) = ReferenceEvaluator(model).run(None, {"x": images})
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used


def test_a_whole_network_is_folded_but_before_padding(tmp_path):
    from arcface_cakd.export import export_model

    model = SmallNetwork()
    report = export_model(model, tmp_path / "model.onnx")
    # `before`, whose shift the padding leaves out, and none of the other five
    assert report.batch_norms_left == 1
    assert report.relative_error < 1e-5
    graph = onnx.load(tmp_path / "model.onnx").graph
    names = [node.op_type for node in graph.node]
    assert names.count("BatchNormalization") == 1
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected = model.double()(images.double()).numpy()
    (found,) = ReferenceEvaluator(onnx.load(tmp_path / "model.onnx")).run(
        None, {"data": images.numpy()}
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
