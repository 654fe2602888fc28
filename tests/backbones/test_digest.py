"""What a digest of an ONNX teacher is of."""

import onnx
from onnx import helper

from arcface_cakd.backbones.digest import onnx_files


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
