"""What digests of teachers are of."""

import functools
import os
import subprocess
import sys

import onnx
from helpers.recipes import on_meta
from onnx import helper
from torch import nn

from arcface_cakd.backbones.digest import onnx_files, source_digest
from arcface_cakd.registry import BACKBONES


def outside(features=4):
    return nn.Linear(features, 1)


class Outside:
    def __call__(self):
        return nn.Linear(4, 1)


def test_a_factory_of_another_package_counts_and_one_of_ours_does_not():
    """Else caches of its networks would not be what they were."""
    ours = on_meta("swinv2_t", 512)  # whose classes are in other files than its factory
    assert source_digest(ours, BACKBONES.get("swinv2_t")) == source_digest(ours)
    network = outside()
    with_file = source_digest(network, outside)
    assert with_file != source_digest(network)
    assert source_digest(network, Outside()) == with_file  # of the same file
    few, many = (functools.partial(outside, features=number) for number in (4, 8))
    assert source_digest(network, few) == source_digest(network, few)
    assert len({with_file, source_digest(network, few), source_digest(network, many)}) == 3


def test_networks_of_the_package_are_told_as_before():
    """Caches hold these: where a network's file changes its numbers, they are to be refused, and
    the changelog says so; where it does not, nobody should compute 150 GB anew."""
    found = {name: source_digest(on_meta(name, 512)) for name in ("mbf", "vit_t", "r18")}
    assert found == {
        "mbf": "b5f9099132c6e279a231bba9714e76399ff462f44ab03e917c4dd110fccec4c6",
        "vit_t": "13ea00b8996f26d38b09201a06b223ae2d8cf584741fae8b0124b47188bea5c9",
        "r18": "94aa0599fdc00cbba14222a7e7c016b1c1e99fb9d6a83da5eb80d3039dd9b2a9",
    }


def test_what_a_partial_holds_is_the_same_in_every_process(tmp_path):
    (tmp_path / "factories.py").write_text(
        "import functools\n"
        "from torch import nn\n"
        "from arcface_cakd.backbones import source_digest\n"
        "def build(act, widths=(), **more): return nn.Sequential(act())\n"
        "made = functools.partial(build, nn.ReLU, widths=[4, (8,)], norm=len, at=object())\n"
        "other = functools.partial(build, nn.GELU, widths=[4, (8,)], norm=len, at=object())\n"
        "print(source_digest(nn.ReLU(), made), source_digest(nn.ReLU(), other))\n"
    )
    command = [sys.executable, str(tmp_path / "factories.py")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first, second = (
        subprocess.run(command, capture_output=True, check=True, env=environment).stdout.split()
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == 2


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
