"""A detector's file for tests: SCRFD's outputs, which say where a face is that the test knows."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 128  # of the square that insightface scales the photograph to
_STRIDES, _ANCHORS = (8, 16, 32), 2


def write_detector(path, landmarks, photograph, with_landmarks=True):
    """SCRFD's nine outputs as constants: one face, at five landmarks of a photograph.

    Real packs' detectors are not for redistribution. Of the real one this has names, shapes and
    units: at each of two anchors of each cell the score, the distances to the box's sides and the
    way to each landmark, in strides.

    Args:
        path: where to.
        landmarks: (5, 2) in pixels of the photograph.
        photograph: its shape, (H, W, 3).
        with_landmarks: whether the outputs for them are there, or the six others alone.
    """
    height, width = photograph[:2]
    # The detector's picture has whole pixels; insightface goes back by the height's scale.
    scale = (SIDE if height > width else int(SIDE * height / width)) / height
    points = np.asarray(landmarks, dtype=np.float64) * scale
    left, top, right, bottom = (*(points.min(0) - 10), *(points.max(0) + 10))
    outputs = {}
    for stride in _STRIDES:
        cells = SIDE // stride
        count = cells * cells * _ANCHORS
        scores, boxes, ways = np.zeros((count, 1)), np.zeros((count, 4)), np.zeros((count, 10))
        if stride == 16:
            x, y = (points.mean(0) // stride).astype(int)
            row, anchor = (y * cells + x) * _ANCHORS, np.array([x, y]) * stride
            scores[row] = 0.875
            boxes[row] = np.array([anchor[0] - left, anchor[1] - top, 0, 0]) / stride
            boxes[row, 2:] = np.array([right - anchor[0], bottom - anchor[1]]) / stride
            ways[row] = ((points - anchor) / stride).ravel()
        for name, values in (("score", scores), ("bbox", boxes), ("kps", ways)):
            outputs[f"{name}_{stride}"] = values.astype(np.float32)
    kinds = ("score", "bbox", "kps") if with_landmarks else ("score", "bbox")
    names = [f"{kind}_{stride}" for kind in kinds for stride in _STRIDES]
    nodes = [helper.make_node("ReduceMax", ["input.1"], ["most"], keepdims=0)]
    nodes.append(helper.make_node("Mul", ["most", "nothing"], ["zero"]))  # so that it is read
    nodes += [helper.make_node("Add", [f"of_{name}", "zero"], [name]) for name in names]
    constants = [numpy_helper.from_array(outputs[name], f"of_{name}") for name in names]
    constants.append(numpy_helper.from_array(np.zeros((), np.float32), "nothing"))
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "?", "?"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, outputs[name].shape)
            for name in names
        ],
        constants,
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path
