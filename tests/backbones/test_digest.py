"""What digests of teachers are of."""

import functools

import onnx
import torch
from onnx import helper
from torch import nn

from arcface_cakd.backbones import get_model
from arcface_cakd.backbones.digest import onnx_files, source_digest
from arcface_cakd.registry import BACKBONES


def outside(features=4):
    return nn.Linear(features, 1)


class Outside:
    def __call__(self):
        return nn.Linear(4, 1)


def test_a_factory_of_another_package_counts_and_one_of_ours_does_not():
    """Else caches of its networks would not be what they were."""
    with torch.device("meta"):
        ours = get_model("swinv2_t")  # whose classes are in other files than its factory
    assert source_digest(ours, BACKBONES.get("swinv2_t")) == source_digest(ours)
    network = outside()
    with_file = source_digest(network, outside)
    assert with_file != source_digest(network)
    assert source_digest(network, Outside()) == with_file  # of the same file
    few, many = (functools.partial(outside, features=number) for number in (4, 8))
    assert source_digest(network, few) == source_digest(network, few)
    assert len({with_file, source_digest(network, few), source_digest(network, many)}) == 3


def test_tensors_of_attributes_branches_and_functions_may_lie_beside_a_file_too(tmp_path):
    def outside(name):
        tensor = helper.make_tensor(name, onnx.TensorProto.FLOAT, [1], [0.0])
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{name}.data")
        (tmp_path / f"{name}.data").write_bytes(bytes(4))
        return tensor

    make = helper.make_node
    branch = helper.make_graph([make("Constant", [], ["b"], value=outside("branch"))], "b", [], [])
    nodes = [
        make("Constant", [], ["a"], value=outside("attribute")),
        make("If", ["a"], ["c"], then_branch=branch, else_branch=branch),
    ]
    graph = helper.make_graph(nodes, "g", [], [], [outside("initializer")])
    model = helper.make_model(graph)
    model.functions.add(name="f").node.append(
        make("Constant", [], ["d"], value=outside("function"))
    )
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    names = ("attribute", "branch", "function", "initializer")
    wanted = [tmp_path / "a.onnx", *(tmp_path / f"{name}.data" for name in names)]
    assert onnx_files(tmp_path / "a.onnx") == wanted
