"""Smaller forms of an ONNX model: 16-bit floats, and 8-bit integers; both keep the float32 interface."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

from attfc_train.export.onnx_file import float_initializers
from attfc_train.export.onnx_graph import INPUT, OUTPUT
from attfc_train.scratch import scratch

CALIBRATION_IMAGES = 256
"""From which the ranges of an 8-bit model are measured."""
_BATCH = 32
_MULTIPLYING = ("Conv", "Gemm")
"""The layers that are computed with 8-bit integers; what lies between them keeps float32, at little cost."""


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with float16 parameters and arithmetic, between two casts.

    Values beyond float16's largest become the largest.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    largest = np.finfo(np.float16).max
    for tensor, values in float_initializers(half):
        tensor.CopyFrom(numpy_helper.from_array(values.clip(-largest, largest).astype(np.float16), tensor.name))
    for node in half.graph.node:
        for attribute in node.attribute:
            if attribute.t.data_type == TensorProto.FLOAT:  # a constant; an attribute of another type has no tensor
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float16)))
        node.input[:] = [f"{INPUT}_half" if name == INPUT else name for name in node.input]
        node.output[:] = [f"{OUTPUT}_half" if name == OUTPUT else name for name in node.output]
    first = helper.make_node("Cast", [INPUT], [f"{INPUT}_half"], name="cast_in", to=TensorProto.FLOAT16)
    last = helper.make_node("Cast", [f"{OUTPUT}_half"], [OUTPUT], name="cast_out", to=TensorProto.FLOAT)
    nodes = [first, *half.graph.node, last]
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    return half


def in_8_bits(model: onnx.ModelProto, images: Tensor) -> onnx.ModelProto:
    """Return the model with 8-bit weights, a scale per channel, and 8-bit inputs of its convolutions and last layer.

    Args:
        images: float32 [N, 3, S, S] in [-1, 1]: real ones, from which the ranges of the inputs are measured.
    """
    with scratch() as place, _without_advice():
        plain, folded, quantised = (place.folder / name for name in ("plain.onnx", "folded.onnx", "quantised.onnx"))
        onnx.save(model, plain)
        quant_pre_process(plain, folded, skip_symbolic_shape=True)  # folds BatchNorm into the convolution before it
        quantize_static(
            folded,
            quantised,
            _Batches(images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_MULTIPLYING),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
        )
        small = onnx.load(quantised)
    del small.metadata_props[:]
    small.metadata_props.extend(model.metadata_props)
    return small


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """Gives the images to the calibration."""

    def __init__(self, images: Tensor) -> None:
        self._batches: Iterator[Tensor] = iter(images.split(_BATCH))

    def get_next(self) -> dict[str, Any] | None:
        """Return the next batch; None: there is none."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch.numpy()}


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence what the quantiser writes to the root logger about steps that were taken."""
    former = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(former)
