"""A foreign ONNX network as a module: its nodes in their order, by torch's operators, on any device and without gradients.

A teacher is part of the train step, which is traced on tensors without data and never waits for the host. So its graph is read
once (`read_graph`), and computed by torch from then on. Shapes are known whenever a graph runs: what it computes of shapes, and
of constants that are no floating-point numbers, stays in NumPy, and no value of the device is ever read. Whether the module is
the network of the file is not believed but compared with ONNX Runtime (`attfc_train.export.teacher`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

Value: TypeAlias = Tensor | NDArray[Any]
Attributes: TypeAlias = Mapping[str, Any]
Operator: TypeAlias = Callable[[Sequence[Any], Attributes], Any]


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of a graph."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Graph:
    """What an ONNX file computes, without ONNX."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, NDArray[Any]]
    data: str
    """Name of the images."""
    result: str


class UnknownOperator(Exception):
    """A node that `OPERATORS` cannot compute; the text says which."""


def read_graph(model: onnx.ModelProto) -> Graph:
    """Return the graph of a checked model (`attfc_train.export.onnx_file.read_onnx`).

    Raises:
        UnknownOperator: no operator of torch stands for one of its nodes.
    """
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
            continue
        if node.op_type not in OPERATORS or attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
            raise UnknownOperator(f"the operator '{node.op_type}'" + (" with auto_pad" if node.op_type in OPERATORS else ""))
        nodes.append(Node(node.op_type, tuple(node.input), tuple(node.output), attributes))
    data = next(each.name for each in model.graph.input if each.name not in constants)
    return Graph(tuple(nodes), constants, data, model.graph.output[0].name)


class OnnxNetwork(nn.Module):
    """The network of a graph: float32 [N, 3, S, S] in [-1, 1] to float32 [N, D].

    Args:
        graph: from `read_graph`.
        device: of its parameters.
        is_empty: whether the parameters keep no values, as for a trace.
    """

    def __init__(self, graph: Graph, device: torch.device, is_empty: bool = False) -> None:
        super().__init__()
        self._graph = graph
        self._uses = _last_uses(graph)
        self._buffer_of: dict[str, str] = {}
        self._constants: dict[str, Value] = {}
        for number, (name, array) in enumerate(graph.constants.items()):
            if not np.issubdtype(array.dtype, np.floating):
                self._constants[name] = array
                continue
            buffer = torch.empty(array.shape, dtype=torch.float32, device=device)
            if not is_empty:
                buffer.copy_(torch.from_numpy(np.array(array, np.float32)))
            self._buffer_of[name] = f"tensor_{number}"  # a buffer's name has no dots
            self.register_buffer(f"tensor_{number}", buffer)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings, not normalised."""
        values: dict[str, Value] = {**self._constants, self._graph.data: images}
        values |= {name: self.get_buffer(buffer) for name, buffer in self._buffer_of.items()}
        for place, node in enumerate(self._graph.nodes):
            results = OPERATORS[node.op]([values[name] if name else None for name in node.inputs], node.attributes)
            several = results if isinstance(results, tuple) else (results,)
            values |= dict(zip(node.outputs, several, strict=False))  # Dropout's mask is not made
            del results, several
            for name in self._uses.get(place, ()):  # else every map of the network would live to the end
                values.pop(name, None)
        return cast(Tensor, values[self._graph.result]).float()


def _last_uses(graph: Graph) -> dict[int, list[str]]:
    """Return what is needed for the last time at each place."""
    last = {name: place for place, node in enumerate(graph.nodes) for name in node.inputs}
    uses: dict[int, list[str]] = {}
    for name, place in last.items():
        if name != graph.result:
            uses.setdefault(place, []).append(name)
    return uses


def _whole(values: Any) -> list[int]:
    """Return whole numbers that a node has as an attribute or as an input."""
    return [int(value) for value in np.asarray(values).reshape(-1)]


def _padded(images: Tensor, attributes: Attributes, value: float = 0.0) -> tuple[Tensor, list[int]]:
    """Return images and the padding that torch's operator can still do: what is not symmetric is done here."""
    pads = list(attributes.get("pads", [0, 0, 0, 0]))
    top, left, bottom, right = pads
    if (top, left) == (bottom, right):
        return images, [top, left]
    return functional.pad(images, (left, right, top, bottom), value=value), [0, 0]


def _convolution(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    images, padding = _padded(inputs[0], attributes)
    bias = inputs[2] if len(inputs) > 2 else None
    strides, dilations = (list(attributes.get(name, [1, 1])) for name in ("strides", "dilations"))
    return functional.conv2d(images, inputs[1], bias, strides, padding, dilations, attributes.get("group", 1))


def _batch_norm(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    images, weight, bias, mean, variance = inputs
    return functional.batch_norm(images, mean, variance, weight, bias, False, 0.0, attributes.get("epsilon", 1e-5))


def _gemm(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    # In full precision, as the last layers of our own networks are.
    with torch.autocast(inputs[0].device.type, enabled=False):
        left, right = (
            matrix.float().t() if attributes.get(name, 0) else matrix.float()
            for matrix, name in zip(inputs[:2], ("transA", "transB"), strict=True)
        )
        product: Tensor = attributes.get("alpha", 1.0) * (left @ right)
        return product if len(inputs) < 3 else product.add(inputs[2], alpha=attributes.get("beta", 1.0))


def _prelu(inputs: Sequence[Any], _: Attributes) -> Tensor:
    return functional.prelu(inputs[0], inputs[1].reshape(-1))


def _clip(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    bounds = [attributes.get("min"), attributes.get("max")]
    for place, bound in enumerate(inputs[1:3]):
        bounds[place] = bound
    return torch.clamp(inputs[0], *bounds)


def _pool(kind: Callable[..., Tensor], outside: float) -> Operator:
    def pooled(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
        images, padding = _padded(inputs[0], attributes, outside)
        keywords = {"ceil_mode": bool(attributes.get("ceil_mode", 0))}
        if kind is functional.avg_pool2d:
            keywords["count_include_pad"] = bool(attributes.get("count_include_pad", 0))
        strides = list(attributes.get("strides", [1, 1]))
        return kind(images, list(attributes["kernel_shape"]), strides, padding, **keywords)

    return pooled


def _reshape(inputs: Sequence[Any], _: Attributes) -> Any:
    shape = [inputs[0].shape[place] if side == 0 else side for place, side in enumerate(_whole(inputs[1]))]
    return inputs[0].reshape(shape)


def _axes(inputs: Sequence[Any], attributes: Attributes) -> list[int]:
    """Return axes, which older files have as an attribute and newer ones as an input."""
    return _whole(inputs[1] if len(inputs) > 1 and inputs[1] is not None else attributes.get("axes", []))


def _squeeze(inputs: Sequence[Any], attributes: Attributes) -> Any:
    axes = tuple(_axes(inputs, attributes)) or tuple(place for place, side in enumerate(inputs[0].shape) if side == 1)
    return np.squeeze(inputs[0], axes) if isinstance(inputs[0], np.ndarray) else inputs[0].squeeze(axes)


def _unsqueeze(inputs: Sequence[Any], attributes: Attributes) -> Any:
    result = inputs[0]
    for axis in sorted(_axes(inputs, attributes)):
        result = np.expand_dims(result, axis) if isinstance(result, np.ndarray) else result.unsqueeze(axis)
    return result


def _concat(inputs: Sequence[Any], attributes: Attributes) -> Any:
    if all(isinstance(each, np.ndarray) for each in inputs):
        return np.concatenate([np.atleast_1d(each) for each in inputs], attributes["axis"])
    return torch.cat(list(inputs), attributes["axis"])


def _split(inputs: Sequence[Any], attributes: Attributes) -> tuple[Tensor, ...]:
    axis = attributes.get("axis", 0)
    sizes = _whole(inputs[1]) if len(inputs) > 1 else _whole(attributes["split"])
    return tuple(inputs[0].split(sizes, axis))


def _gather(inputs: Sequence[Any], attributes: Attributes) -> Any:
    axis = attributes.get("axis", 0)
    if isinstance(inputs[0], np.ndarray):
        return np.asarray(np.take(inputs[0], inputs[1], axis))
    if np.ndim(inputs[1]) == 0:
        return inputs[0].select(axis, int(inputs[1]))
    return torch.cat([inputs[0].narrow(axis, place, 1) for place in _whole(inputs[1])], axis)


def _slice(inputs: Sequence[Any], attributes: Attributes) -> Any:
    starts, ends = (
        _whole(inputs[place] if len(inputs) > 2 else attributes[name]) for place, name in ((1, "starts"), (2, "ends"))
    )
    axes = _whole(inputs[3]) if len(inputs) > 3 else _whole(attributes.get("axes", range(len(starts))))
    steps = _whole(inputs[4]) if len(inputs) > 4 else [1] * len(starts)
    parts = [slice(None)] * inputs[0].ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        parts[axis] = slice(start, end, step)
    return inputs[0][tuple(parts)]


def _cast(inputs: Sequence[Any], attributes: Attributes) -> Any:
    kind = helper.tensor_dtype_to_np_dtype(attributes["to"])
    if isinstance(inputs[0], np.ndarray):
        return inputs[0].astype(kind)
    return inputs[0]  # floating point to another of it: autocast decides


def _reduced(kind: str) -> Operator:
    def reduced(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
        axes = _axes(inputs, attributes) or list(range(inputs[0].dim()))
        keep = bool(attributes.get("keepdims", 1))
        match kind:
            case "mean":
                return cast(Tensor, inputs[0].mean(axes, keep))
            case "sum":
                return cast(Tensor, inputs[0].sum(axes, keep))
        norm: Tensor = torch.linalg.vector_norm(inputs[0], 2, axes, keep)
        return norm

    return reduced


def _flatten(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    axis = attributes.get("axis", 1)
    first = int(np.prod(inputs[0].shape[:axis], dtype=np.int64))
    return cast(Tensor, inputs[0].reshape(first, -1))


def _quotient(one: Any, other: Any) -> Any:
    is_of_shapes = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
    return one // other if is_of_shapes else one / other


def _of_one(function: Callable[[Any], Any]) -> Operator:
    return lambda inputs, _: function(inputs[0])


def _of_two(function: Callable[[Any, Any], Any]) -> Operator:
    def computed(inputs: Sequence[Any], _: Attributes) -> Any:
        result = function(inputs[0], inputs[1])
        return result if isinstance(result, Tensor) else np.asarray(result)  # NumPy makes numbers of arrays without sides

    return computed


OPERATORS: dict[str, Operator] = {
    "Conv": _convolution,
    "BatchNormalization": _batch_norm,
    "Gemm": _gemm,
    "MatMul": _of_two(torch.matmul),
    "PRelu": _prelu,
    "Relu": _of_one(functional.relu),
    "LeakyRelu": lambda inputs, attributes: functional.leaky_relu(inputs[0], attributes.get("alpha", 0.01)),
    "Elu": lambda inputs, attributes: functional.elu(inputs[0], attributes.get("alpha", 1.0)),
    "Clip": _clip,
    "Sigmoid": _of_one(torch.sigmoid),
    "HardSwish": _of_one(functional.hardswish),
    "Tanh": _of_one(torch.tanh),
    "Erf": _of_one(torch.erf),
    "Softplus": _of_one(functional.softplus),
    "Sqrt": _of_one(torch.sqrt),
    "Reciprocal": _of_one(torch.reciprocal),
    "Add": _of_two(lambda one, other: one + other),
    "Sub": _of_two(lambda one, other: one - other),
    "Mul": _of_two(lambda one, other: one * other),
    "Div": _of_two(_quotient),
    "Pow": _of_two(lambda one, other: one**other),
    "ReduceMean": _reduced("mean"),
    "ReduceSum": _reduced("sum"),
    "ReduceL2": _reduced("norm"),
    "AveragePool": _pool(functional.avg_pool2d, 0.0),
    "MaxPool": _pool(functional.max_pool2d, -np.inf),
    "GlobalAveragePool": _of_one(lambda images: images.mean((2, 3), True)),
    "GlobalMaxPool": _of_one(lambda images: images.amax((2, 3), True)),
    "Dropout": _of_one(lambda images: images),
    "Identity": _of_one(lambda images: images),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": lambda inputs, attributes: inputs[0].permute(list(attributes["perm"])),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Split": _split,
    "Shape": _of_one(lambda images: np.array(images.shape, np.int64)),
    "Gather": _gather,
    "Slice": _slice,
    "Cast": _cast,
}
"""ONNX operators by torch's; what is not here is refused."""
