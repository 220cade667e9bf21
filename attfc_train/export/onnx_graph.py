"""An encoder as an ONNX model, one node per layer, written from what ``torch.export`` traced.

Written here and not by ``torch.onnx``, for properties that its exporters do not have together: parameters keep their names and
every bit, so the file can be trained on; BatchNorm stays a layer; no warning and no further package; the same graph with every
version of torch; and no node's name begins with ``Sub`` or ``Mul``, by which InsightFace's package would take it for a network
that scales pixels itself. What a new backbone needs beyond `TRANSLATIONS` is a line there.

The interface is the field's: input ``data``, float32 [N, 3, S, S], RGB in [-1, 1]; output ``embedding``, float32 [N, D], not
normalised; N is symbolic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from attfc_train.errors import UsageError
from attfc_train.export.program import exported_program
from attfc_train.export.weights import METADATA_KEY, facts
from attfc_train.profile.profile import ModelSettings

INPUT = "data"
OUTPUT = "embedding"
BATCH = "None"
"""The symbolic batch size, called as in InsightFace's own files."""
OPSET = 13
"""The oldest in which weights can be quantised channel by channel."""
IR_VERSION = 7

Translation: TypeAlias = Callable[["_Writer", list[Any]], str | list[str]]


def onnx_model(encoder: nn.Module, settings: ModelSettings) -> onnx.ModelProto:
    """Return an encoder as an ONNX model.

    Args:
        encoder: on the CPU.
        settings: its architecture, which the file's metadata name.

    Raises:
        UsageError: the encoder has an operator that `TRANSLATIONS` lacks.
    """
    size = settings.image_size
    program = exported_program(encoder, size)
    writer = _Writer(program)
    writer.name_output(writer.write(program.graph_module, {}))
    graph = helper.make_graph(
        writer.nodes,
        "attfc",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [BATCH, 3, size, size])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [BATCH, settings.embedding_size])],
        list(writer.initializers.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    model.producer_name = "attfc"
    helper.set_model_props(model, {METADATA_KEY: facts(settings)})
    return model


class _Writer:
    """The nodes and initializers of an ONNX graph that is being written."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        signature = program.graph_signature
        self.shape: list[int] = []
        """Of the result that is being translated; 0 where it is the number of images."""
        self._names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._tensors: Mapping[str, Tensor] = program.state_dict

    def write(self, module: fx.GraphModule, values: dict[str, Any]) -> str:
        """Translate a graph of ATen operators and return the name of its first result.

        Args:
            values: the ONNX names of its inputs, by its own; those of a whole program are found out.
        """
        result = ""
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values.setdefault(node.name, self._names.get(node.name, INPUT))
            elif node.op == "get_attr":  # the graph of the layers that autocast does not touch
                values[node.name] = getattr(module, node.target)
            elif node.op == "call_function":
                values[node.name] = self._call(node, values)
            else:
                result = values[node.args[0][0].name]
        return result

    def _call(self, node: fx.Node, values: dict[str, Any]) -> str | list[str]:
        name = str(node.target)
        arguments: list[Any] = list(fx.map_arg(node.args, lambda argument: values[argument.name]))
        if name == "wrap_with_autocast":
            inner = next(argument for argument in arguments if isinstance(argument, fx.GraphModule))
            given = arguments[arguments.index(inner) + 1 :]
            inputs = (each.name for each in inner.graph.nodes if each.op == "placeholder")
            return self.write(inner, dict(zip(inputs, given, strict=True)))
        if name not in TRANSLATIONS:
            remedy = "Write .safetensors or .pt, or give it a line in attfc_train/export/onnx_graph.py."
            raise UsageError("an ONNX file is for backbones whose operators it has", f"'{name}'", remedy)
        result = node.meta.get("val")
        self.shape = [side if isinstance(side, int) else 0 for side in result.shape] if isinstance(result, Tensor) else []
        # Later nodes name the result of an operator that works in place, and not what it overwrote, so nothing is special here.
        return TRANSLATIONS[name](self, arguments)

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node and return the name of its result."""
        return self.add_all(operator, inputs, 1, **attributes)[0]

    def add_all(self, operator: str, inputs: list[str], num_results: int, **attributes: Any) -> list[str]:
        """Append a node with several results and return their names."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        names = [name] + [f"{name}_{place}" for place in range(1, num_results)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=name, **attributes))
        return names

    def constant(self, value: Any, dtype: str) -> str:
        """Append a node that holds a number or a list of them: no parameter, so no initializer."""
        return self.add("Constant", [], value=numpy_helper.from_array(np.array(value, dtype)))

    def parameter(self, name: str, *shape: int) -> str:
        """Add a parameter to the initializers, in another shape where one is given, and return its name."""
        tensor = self._tensors[name].detach()
        array = (tensor.reshape(shape) if shape else tensor).contiguous().numpy()
        self.initializers[name] = numpy_helper.from_array(array, name)
        return name

    def channels(self, name: str) -> int:
        """Return the length of a parameter."""
        return self._tensors[name].numel()

    def name_output(self, result: str) -> None:
        """Call a result `OUTPUT` wherever it stands."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [OUTPUT if name == result else name for name in names]


def _conv(writer: _Writer, arguments: list[Any]) -> str:
    defaults: list[Any] = [None, [1, 1], [0, 0], [1, 1], 1]
    x, weight, *given = arguments
    bias, stride, padding, dilation, groups = [*given, *defaults[len(given) :]]
    inputs = [x, writer.parameter(weight), *([writer.parameter(bias)] if bias is not None else [])]
    # ONNX pads top, left, bottom, right.
    return writer.add("Conv", inputs, strides=stride, pads=[*padding, *padding], dilations=dilation, group=groups)


def _batch_norm(writer: _Writer, arguments: list[Any]) -> str:
    x, *parameters, _, _, epsilon, _ = arguments  # is training, momentum; cuDNN
    return writer.add("BatchNormalization", [x, *map(writer.parameter, parameters)], epsilon=epsilon)


def _linear(writer: _Writer, arguments: list[Any]) -> str:
    x, *parameters = (argument for argument in arguments if argument is not None)
    return writer.add("Gemm", [x, *map(writer.parameter, parameters)], transB=1)


def _prelu(writer: _Writer, arguments: list[Any]) -> str:
    x, slope = arguments
    # ONNX aligns shapes at their ends: [C] would be the width of the image.
    return writer.add("PRelu", [x, writer.parameter(slope, writer.channels(slope), 1, 1)])


def _flatten(writer: _Writer, arguments: list[Any]) -> str:
    x, axis, *last = arguments
    return _reshape(writer, arguments) if last else writer.add("Flatten", [x], axis=axis)


def _reshape(writer: _Writer, arguments: list[Any]) -> str:
    # ONNX takes a 0 as "as before": the number of images is the first side before and after.
    return writer.add("Reshape", [arguments[0], writer.constant(writer.shape, "int64")])


def _transpose(writer: _Writer, arguments: list[Any]) -> str:
    x, first, second = arguments
    order = list(range(len(writer.shape)))
    order[first], order[second] = second, first
    return writer.add("Transpose", [x], perm=order)


def _mean(writer: _Writer, arguments: list[Any]) -> str:
    x, axes, keeps = arguments
    return writer.add("ReduceMean", [x], axes=axes, keepdims=int(keeps))


def _multiply(writer: _Writer, arguments: list[Any]) -> str:
    return writer.add("Mul", [each if isinstance(each, str) else writer.constant(each, "float32") for each in arguments])


def _silu(writer: _Writer, arguments: list[Any]) -> str:
    return writer.add("Mul", [arguments[0], writer.add("Sigmoid", arguments[:1])])


def _concatenate(writer: _Writer, arguments: list[Any]) -> str:
    return writer.add("Concat", arguments[0], axis=arguments[1])


def _split(writer: _Writer, arguments: list[Any]) -> list[str]:
    x, sizes, axis = arguments
    return writer.add_all("Split", [x, writer.constant(sizes, "int64")], len(sizes), axis=axis)


def _item(_: _Writer, arguments: list[Any]) -> str:
    """Return one of several results, or the only one."""
    results, place = arguments
    return str(results[place] if isinstance(results, list) else results)


def _plain(operator: str, num_inputs: int) -> Translation:
    return lambda writer, arguments: writer.add(operator, arguments[:num_inputs])


def _same(_: _Writer, arguments: list[Any]) -> str:
    """Translate what changes only where or how a tensor is kept."""
    return str(arguments[0])


TRANSLATIONS: dict[str, Translation] = {
    "aten._assert_tensor_metadata.default": _same,
    "aten.add.Tensor": _plain("Add", 2),
    "aten.add_.Tensor": _plain("Add", 2),
    "aten.batch_norm.default": _batch_norm,
    "aten.cat.default": _concatenate,
    "aten.contiguous.default": _same,
    "aten.conv2d.default": _conv,
    "aten.flatten.using_ints": _flatten,
    "aten.linear.default": _linear,
    "aten.mean.dim": _mean,
    "aten.mul.Tensor": _multiply,
    "aten.prelu.default": _prelu,
    "aten.relu.default": _plain("Relu", 1),
    "aten.relu_.default": _plain("Relu", 1),
    "aten.sigmoid.default": _plain("Sigmoid", 1),
    "aten.silu.default": _silu,
    "aten.split_with_sizes.default": _split,
    "aten.to.dtype": _same,  # float32 already: the last layers' own conversion
    "aten.transpose.int": _transpose,
    "aten.unflatten.int": _reshape,
    "<built-in function getitem>": _item,
}
"""ATen operator -> the ONNX nodes that it becomes; every export is compared with torch before it is written."""
