"""Face detectors as ONNX files that answer what they were made to answer, whatever they see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

STRIDES = {6: (8, 16, 32), 9: (8, 16, 32), 10: (8, 16, 32, 64, 128), 15: (8, 16, 32, 64, 128)}


def known_detector(
    path: Path,
    faces: Sequence[tuple[ArrayLike, ArrayLike, float]],
    *,
    outputs: int = 9,
    batched: bool = False,
    side: int = 64,
    cut: int = 0,
    weights: Sequence[float] = (0.0, 0.0, 0.0),
) -> Path:
    """Write a detector that finds `faces` (box, five points, score) in its picture of `side` x `side`.

    Args:
        cut: rows that its first output lacks.
        weights: of red, green and blue, as the network sees them, in what is added to every number.
    """
    from onnx import TensorProto, checker, helper, numpy_helper, save

    tables = _tables(faces, outputs, side)
    tables[0] = tables[0][: len(tables[0]) - cut]
    # All numbers grow by the mean of the picture's colours as the network sees them, weighted.
    constants = [numpy_helper.from_array(np.array(weights, np.float32).reshape(1, 3, 1, 1) / side**2, "weights")]
    nodes = [
        helper.make_node("Mul", ["data", "weights"], ["weighted"], name="weighted"),
        helper.make_node("ReduceSum", ["weighted"], ["seen"], name="seen", keepdims=0),
    ]
    infos = []
    for place, table in enumerate(tables):
        values = (table[None] if batched else table).astype(np.float32)
        constants.append(numpy_helper.from_array(values, f"table{place}"))
        nodes.append(helper.make_node("Add", [f"table{place}", "seen"], [f"out{place}"], name=f"add{place}"))
        infos.append(helper.make_tensor_value_info(f"out{place}", TensorProto.FLOAT, list(values.shape)))
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, side, side])
    graph = helper.make_graph(nodes, "detector", [data], infos, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    checker.check_model(model)
    save(model, str(path))
    return path


def _tables(faces: Sequence[tuple[ArrayLike, ArrayLike, float]], outputs: int, side: int) -> list[np.ndarray]:
    """Scores of all strides, then boxes, then landmarks; face i is told by the last places of the i-th stride in turn."""
    if outputs == 1:
        return [np.zeros((1, 512))]
    strides = STRIDES[outputs]
    repeats = 2 if len(strides) == 3 else 1
    kinds = outputs // len(strides)
    widths = (1, 4, 10)[:kinds]
    counts = [(side // stride) ** 2 * repeats for stride in strides]
    tables = [np.zeros((count, width)) for width in widths for count in counts]
    for number, (box, points, score) in enumerate(faces):
        stride_place = number % 2  # strides 8 and 16: in a small picture 64 and 128 have no places
        stride = strides[stride_place]
        row = counts[stride_place] - 1 - number
        place = row // repeats
        center = np.array([place % (side // stride), place // (side // stride)]) * stride
        left_top, right_bottom = np.array(box[:2]), np.array(box[2:])
        tables[stride_place][row] = score
        tables[len(strides) + stride_place][row] = [*(center - left_top) / stride, *(right_bottom - center) / stride]
        if kinds == 3:
            tables[2 * len(strides) + stride_place][row] = ((np.array(points) - center) / stride).reshape(-1)
    return tables
