"""Writes an encoder to the formats that others read, and compares what was written with the original."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn

from attfc_train.errors import AttfcError, UsageError
from attfc_train.export.model_file import ONNX, SAFETENSORS, Encoder, require
from attfc_train.export.program import exported_program, least_cosine
from attfc_train.export.weights import METADATA_KEY, facts
from attfc_train.files import write_atomically
from attfc_train.profile.profile import ModelSettings
from attfc_train.run.checkpoint import save_model

ExportPrecision: TypeAlias = Literal["fp32", "fp16", "int8"]
LEAST_COSINE: Final[dict[str, float]] = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.9}
"""Between an embedding of the export and of the original; below it nothing is written."""
PROGRAM, STATE = ".pt2", ".pt"
FORMATS: Final = {
    ONNX: "an ONNX model, as InsightFace's package takes it",
    SAFETENSORS: "the parameters by name, as safetensors",
    PROGRAM: "a program of torch.export",
    STATE: "the parameters by name, as the field's model.pt",
}
"""Ending of a file -> what it is."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    path: Path
    size: int
    """Bytes."""
    network: nn.Module
    """What runs the file."""
    cosine: float | None
    """The least, over all batch sizes, between its embeddings and the original's; None: the parameters are the same bits."""


def export(encoder: Encoder, path: Path, precision: ExportPrecision, images: Tensor) -> Exported:
    """Write an encoder in the format that the ending of `path` names.

    Args:
        encoder: on the CPU, with settings (`attfc_train.export.model_file.open_network`).
        precision: of an ONNX file's parameters.
        images: float32 [N, 3, S, S] in [-1, 1], N >= 32: an int8 file's ranges are measured on them, and what is written is
            compared on 32 of them.

    Raises:
        UsageError: the format is unknown, has no such precision, or needs a package that is not installed.
        AttfcError: the file would give other embeddings.
        StorageError: it cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError("--output must end in the name of a format", f"'{path.name}'", f"Choose one of: {', '.join(FORMATS)}.")
    if suffix != ONNX and precision != "fp32":
        raise UsageError("--precision is for .onnx files", f"{precision} for '{path.name}'", "Write an .onnx file.")
    assert encoder.settings is not None, "only a network with known settings can be written"
    return _WRITERS[suffix](encoder, path, precision, images)


def _write_onnx(encoder: Encoder, path: Path, precision: ExportPrecision, images: Tensor) -> Exported:
    require("onnx", "onnxruntime")
    from attfc_train.export.onnx_graph import onnx_model
    from attfc_train.export.session import OnnxEncoder
    from attfc_train.export.variants import in_8_bits, in_half_precision

    model = onnx_model(encoder.network, _settings(encoder))
    if precision == "fp16":
        model = in_half_precision(model)
    elif precision == "int8":
        model = in_8_bits(model, images)
    content = model.SerializeToString()
    network = OnnxEncoder(content, str(path))
    cosine = _compared(encoder.network, network, images, path, precision)
    write_atomically(path, lambda file: file.write(content))
    return Exported(path, len(content), network, cosine)


def _write_safetensors(encoder: Encoder, path: Path, *_: Any) -> Exported:
    require("safetensors")
    from safetensors.torch import save

    state = {name: tensor.contiguous() for name, tensor in encoder.network.state_dict().items()}
    content = save(state, {METADATA_KEY: facts(_settings(encoder))})
    write_atomically(path, lambda file: file.write(content))
    return Exported(path, len(content), encoder.network, None)


def _write_state(encoder: Encoder, path: Path, *_: Any) -> Exported:
    save_model(path, encoder.network)
    return Exported(path, path.stat().st_size, encoder.network, None)


def _write_program(encoder: Encoder, path: Path, precision: ExportPrecision, images: Tensor) -> Exported:
    buffer = io.BytesIO()
    torch.export.save(exported_program(encoder.network, encoder.image_size), buffer)
    buffer.seek(0)
    network = torch.export.load(buffer).module()
    cosine = _compared(encoder.network, network, images, path, precision)
    write_atomically(path, lambda file: file.write(buffer.getvalue()))
    return Exported(path, len(buffer.getvalue()), network, cosine)


def _settings(encoder: Encoder) -> ModelSettings:
    assert encoder.settings is not None
    return encoder.settings


def _compared(encoder: nn.Module, network: nn.Module, images: Tensor, path: Path, precision: ExportPrecision) -> float:
    """Return the least cosine between the embeddings of both.

    Raises:
        AttfcError: it is too low.
    """
    cosine = least_cosine(encoder, network, images[:32])
    least = LEAST_COSINE[precision]
    if not cosine >= least:  # so written, a NaN fails too
        rule = f"'{path}' must give the embeddings of the original, with a cosine of at least {least:g}"
        remedy = "Give images like those that it is for as --calibrate, or take --precision fp32."
        raise AttfcError(rule, f"{cosine:.6f}; nothing was written", remedy if precision == "int8" else "Take another format.")
    return cosine


_WRITERS: dict[str, Callable[[Encoder, Path, ExportPrecision, Tensor], Exported]] = {
    ONNX: _write_onnx,
    SAFETENSORS: _write_safetensors,
    PROGRAM: _write_program,
    STATE: _write_state,
}
