"""Small ONNX graphs over face crops, for tests."""

import onnx
import torch
from onnx import TensorProto, helper


def write(path, nodes, shape=("batch", 3, 112, 112), outputs=("mean",), constants=()):
    """A graph over one input "x"; every output is taken as float32 of any shape."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def mean(of="x"):
    """The mean of each channel, as an embedding of three values."""
    return helper.make_node("ReduceMean", [of], ["mean"], "reduce", axes=[2, 3], keepdims=0)


def images(count, seed=0):
    return torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def two_outputs(path):
    copy = helper.make_node("Identity", ["mean"], ["copy"])
    return write(path, [mean(), copy], outputs=("mean", "copy"))
