"""ONNX files that somebody gives: read only where they are a plain network from faces to embeddings.

A file may come from anywhere. Nothing outside it is read (no external data), nothing but the operators below is run (no loops,
functions or custom domains), every tensor holds as many bytes as its shape says, and no intermediate result is larger than
`_MOST_ELEMENTS` for one image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from torch import Tensor

from attfc_train.errors import CheckpointError
from attfc_train.export.weights import METADATA_KEY, settings_in
from attfc_train.profile.profile import ModelSettings

_OPERATORS: Final = {
    *("Conv", "BatchNormalization", "Gemm", "MatMul", "PRelu", "Relu", "LeakyRelu", "Elu", "Clip", "Sigmoid", "HardSigmoid"),
    *("HardSwish", "Tanh", "Erf", "Gelu", "Softmax", "Softplus", "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Reciprocal"),
    *("ReduceMean", "ReduceSum", "ReduceL2", "LpNormalization", "LayerNormalization", "InstanceNormalization"),
    *("AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "Dropout", "Identity", "Cast", "Constant"),
    *("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Split", "Slice", "Gather", "Shape"),
    *("QuantizeLinear", "DequantizeLinear"),
}
_MOST_BYTES: Final = 2**31 - 1
"""Of a file: protobuf's own limit."""
_MOST_NODES: Final = 20_000
_MOST_ELEMENTS: Final = 2**26
"""Of a result for one image: 20 times the largest map of an r200 at 224 pixels."""
_REMEDY: Final = "Export it again as a plain network, or use its .pt file."


def read_onnx(path: Path) -> onnx.ModelProto:
    """Return the model in a file, checked.

    Raises:
        CheckpointError: there is none, it is damaged, or is no plain network from face crops to embeddings.
    """
    if not path.is_file():
        raise CheckpointError(f"'{path}' must exist", "no such file", "Check the path.")
    if path.stat().st_size > _MOST_BYTES:
        raise CheckpointError(f"'{path}' must be below 2 GiB", f"{path.stat().st_size:,} bytes", _REMEDY)
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # protobuf's own, which onnx does not name
        raise CheckpointError(f"'{path}' must be an ONNX model", "other bytes", "Check the file.") from error
    problem = _problem(model)
    if problem is not None:
        raise CheckpointError(f"'{path}' must be an ONNX network from face crops to embeddings", problem, _REMEDY)
    return model


def interface(model: onnx.ModelProto) -> tuple[int, int]:
    """Return S of the input [N, 3, S, S] and D of the output [N, D] of a checked model; D is 0 where it is not said."""
    sides = _dimensions(model.graph.input[_data_input(model)])
    return sides[2], _dimensions(model.graph.output[0])[1]


def named_settings(model: onnx.ModelProto) -> ModelSettings | None:
    """Return what a file of attfc says of its network; None: it is somebody else's."""
    return settings_in(next((prop.value for prop in model.metadata_props if prop.key == METADATA_KEY), ""))


def parameters(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Return the floating-point initializers of a checked model by name, slopes of PReLU as vectors."""
    slopes = {node.input[1] for node in model.graph.node if node.op_type == "PRelu"}
    arrays = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    floats = {name: np.array(array) for name, array in arrays.items() if array.dtype in (np.float32, np.float16)}
    return {name: torch.from_numpy(array.reshape(-1) if name in slopes else array) for name, array in floats.items()}


def _problem(model: onnx.ModelProto) -> str | None:
    """Return what a model has that a plain network has not; None: nothing."""
    graph = model.graph
    if len(graph.node) > _MOST_NODES:
        return f"{len(graph.node):,} nodes"
    if model.functions or graph.sparse_initializer:
        return "functions or sparse tensors"
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _OPERATORS:
            return f"the operator '{node.domain and node.domain + '.'}{node.op_type}'"
    return _problem_of_tensors(model) or _problem_of_interface(model) or _problem_of_shapes(model)


def _problem_of_tensors(model: onnx.ModelProto) -> str | None:
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            return f"the tensor '{tensor.name}' in another file"
        try:
            whole = numpy_helper.to_array(tensor).size == math.prod(tensor.dims)
        except (ValueError, TypeError, KeyError, MemoryError):
            whole = False
        if not whole or any(side < 0 for side in tensor.dims):
            return f"the tensor '{tensor.name}' with other bytes than its shape needs"
    return None


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t


def _problem_of_interface(model: onnx.ModelProto) -> str | None:
    images = _data_input(model)
    if images is None or len(model.graph.output) != 1:
        return f"{len(model.graph.input)} inputs and {len(model.graph.output)} outputs instead of one each"
    sides = _dimensions(model.graph.input[images])
    is_float = model.graph.input[images].type.tensor_type.elem_type == TensorProto.FLOAT
    if not is_float or len(sides) != 4 or sides[1] != 3 or sides[2] != sides[3] or not 32 <= sides[2] <= 512:
        return f"an input {sides} that is not float32 [N, 3, S, S] with S from 32 to 512"
    result = _dimensions(model.graph.output[0])
    if len(result) != 2 or result[1] > 4096 or model.graph.output[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        return f"an output {result} that is not float32 [N, D] with D up to 4096"
    return None


def _data_input(model: onnx.ModelProto) -> Any:
    """Return the place of the one input that is no parameter; None: there are several, or none."""
    known = {each.name for each in model.graph.initializer}  # before IR version 4 initializers were inputs too
    places = [place for place, each in enumerate(model.graph.input) if each.name not in known]
    return places[0] if len(places) == 1 else None


def _problem_of_shapes(model: onnx.ModelProto) -> str | None:
    """Return the result that is too large, as shape inference has it."""
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # both raise several kinds, all about the file
        return f"an invalid graph ({' '.join(str(error).split())[:120]})"
    for value in inferred.graph.value_info:
        if math.prod(side or 1 for side in _dimensions(value)) > _MOST_ELEMENTS:
            return f"the result '{value.name}' of shape {_dimensions(value)}"
    return None


def _dimensions(value: onnx.ValueInfoProto) -> list[int]:
    """Return a shape, with 0 for what is not a number."""
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def float_initializers(model: onnx.ModelProto) -> Iterator[tuple[TensorProto, NDArray[np.float32]]]:
    """Yield the float32 initializers of a model with their values."""
    for tensor in model.graph.initializer:
        if tensor.data_type == helper.np_dtype_to_tensor_dtype(np.dtype("float32")):
            yield tensor, numpy_helper.to_array(tensor)
