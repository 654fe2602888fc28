"""BatchNorm folded into the weights beside it, in an ONNX graph."""

import numpy as np


def fold_batch_norms(model) -> int:
    """Fold each BatchNorm of a graph where that is exact, in place.

    y = a x + b of a BatchNorm goes into the convolution or linear layer (Gemm) before it, where
    nothing else reads that one's output, or into the linear layer or unpadded convolution after
    it, through a Flatten. Weights are computed in float64 and rounded once. What is left stands
    between a sum and a padded convolution: the padding is zero after the BatchNorm, so that its
    shift is no bias at the border.

    Args:
        model: an ``onnx.ModelProto`` whose weights are initialisers; changed.

    Returns:
        how many BatchNorms are left.
    """
    graph = _Graph(model.graph)
    for node in _batch_norms(model):
        if not _into_former(graph, node):
            _into_next(graph, node)
    graph.drop_unused()
    return len(_batch_norms(model))


def _batch_norms(model) -> list:
    return [node for node in model.graph.node if node.op_type == "BatchNormalization"]


class _Graph:
    """Nodes by what they make and read, and weights by name."""

    def __init__(self, graph):
        self.graph = graph
        self.weights = {tensor.name: tensor for tensor in graph.initializer}

    def maker(self, name: str):
        return next((node for node in self.graph.node if name in node.output), None)

    def readers(self, name: str) -> list:
        found = [node for node in self.graph.node if name in node.input]
        return [*found, *(out for out in self.graph.output if out.name == name)]

    def only_reader(self, name: str):
        readers = self.readers(name)
        one = readers[0] if len(readers) == 1 else None
        return one if hasattr(one, "op_type") else None

    def value(self, name: str) -> np.ndarray | None:
        """A weight in float64; None where it is no initialiser."""
        from onnx import numpy_helper

        tensor = self.weights.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor).astype(np.float64)

    def put(self, near: str, value: np.ndarray) -> str:
        """Add a float32 weight; its name."""
        from onnx import numpy_helper

        name = f"{near}_folded"
        while name in self.weights:
            name += "_"
        tensor = numpy_helper.from_array(value.astype(np.float32), name)
        self.graph.initializer.append(tensor)
        self.weights[name] = self.graph.initializer[-1]
        return name

    def remove(self, node) -> None:
        """Take out a node of one input and one output that does nothing any more."""
        source, target = node.input[0], node.output[0]
        self.graph.node.remove(node)
        if any(out.name == target for out in self.graph.output):
            maker = self.maker(source)
            for i, name in enumerate(maker.output):
                if name == source:
                    maker.output[i] = target
            return
        for reader in self.graph.node:
            for i, name in enumerate(reader.input):
                if name == target:
                    reader.input[i] = source

    def drop_unused(self) -> None:
        used = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)


def _scale_and_shift(graph: _Graph, node) -> tuple[np.ndarray, np.ndarray] | None:
    """a and b of y = a x + b, by channel."""
    values = [graph.value(name) for name in node.input[1:5]]
    if any(value is None for value in values):
        return None
    gamma, beta, mean, variance = values
    scale = gamma / np.sqrt(variance + _attribute(node, "epsilon", 1e-5))
    return scale, beta - scale * mean


def _into_former(graph: _Graph, node) -> bool:
    former = graph.maker(node.input[0])
    affine = _scale_and_shift(graph, node)
    if former is None or affine is None or graph.only_reader(node.input[0]) is None:
        return False
    weight, bias = _layer(graph, former)
    if weight is None:
        return False
    scale, shift = affine
    outputs = _output_axis(former)
    shape = [1] * weight.ndim
    shape[outputs] = -1
    _replace(graph, former, weight * scale.reshape(shape), bias * scale + shift)
    graph.remove(node)
    return True


def _into_next(graph: _Graph, node) -> bool:
    affine = _scale_and_shift(graph, node)
    following = graph.only_reader(node.output[0])
    if following is not None and following.op_type == "Flatten":
        following = graph.only_reader(following.output[0])
    if following is None or affine is None:
        return False
    weight, bias = _layer(graph, following)
    if weight is None or any(_attribute(following, "pads", [])):
        return False
    if following.op_type == "Conv" and _attribute(following, "group", 1) != 1:
        return False
    if following.op_type == "Conv" and _attribute(following, "auto_pad", b"NOTSET") != b"NOTSET":
        return False
    scale, shift = affine
    inputs = 1 - _output_axis(following)
    size = weight.shape[inputs]
    # A Flatten puts the pixels of a channel side by side.
    scale, shift = (np.repeat(value, size // len(value)) for value in (scale, shift))
    shape = [1] * weight.ndim
    shape[inputs] = -1
    axes = tuple(axis for axis in range(weight.ndim) if axis != _output_axis(following))
    more = (weight * shift.reshape(shape)).sum(axis=axes)
    _replace(graph, following, weight * scale.reshape(shape), bias + more)
    graph.remove(node)
    return True


def _layer(graph: _Graph, node) -> tuple[np.ndarray | None, np.ndarray]:
    """Weight and bias of a convolution or linear layer; None for anything else."""
    nothing = None, np.zeros(0)
    if node.op_type not in ("Conv", "Gemm") or len(node.input) < 2:
        return nothing
    if node.op_type == "Gemm" and (
        _attribute(node, "alpha", 1.0) != 1
        or _attribute(node, "beta", 1.0) != 1
        or _attribute(node, "transA", 0)
    ):
        return nothing
    weight = graph.value(node.input[1])
    if weight is None:
        return nothing
    outputs = weight.shape[_output_axis(node)]
    if len(node.input) < 3:
        return weight, np.zeros(outputs)
    bias = graph.value(node.input[2])
    return nothing if bias is None else (weight, np.broadcast_to(bias, outputs))


def _output_axis(node) -> int:
    """The axis of a layer's weight that is its outputs'."""
    return 0 if node.op_type == "Conv" or _attribute(node, "transB", 0) else 1


def _replace(graph: _Graph, node, weight: np.ndarray, bias: np.ndarray) -> None:
    near = node.input[1]
    names = [graph.put(near, weight), graph.put(f"{near}_bias", bias)]
    kept = node.input[0]
    del node.input[:]
    node.input.extend([kept, *names])


def _attribute(node, name: str, default):
    from onnx import helper

    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
