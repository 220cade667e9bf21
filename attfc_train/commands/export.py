"""``attfc-train export``: a trained model in the format that somebody else reads, compared with the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from attfc_train.api.faces import pixels_of
from attfc_train.data.batch import normalised
from attfc_train.data.reading import persistently
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError
from attfc_train.evaluate.embed import evaluate
from attfc_train.evaluate.load import load_verification_sets
from attfc_train.export.model_file import ONNX, Encoder, Which, open_network
from attfc_train.export.program import BATCH_SIZES
from attfc_train.export.variants import CALIBRATION_IMAGES
from attfc_train.export.write import LEAST_COSINE, Exported, ExportPrecision, export
from attfc_train.units import format_bytes

_COMPARED = max(BATCH_SIZES)
_STAND_IN = f"synthetic:{_COMPARED}x1"
"""Faces for a comparison where no data are there."""
_LEAST_SIZE = 112
"""Of the crops that InsightFace's package takes for a recognition model."""
_OTHER_SIZES = (192,)
"""By which it takes a model for one of landmarks."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of the command."""

    which: str = "best"
    precision: str = "fp32"
    calibrate: str | None = None
    """Data set for the ranges of int8, and for the comparison."""
    val: Sequence[str] = ()


def export_model(model: Path, output: Path | None, options: ExportOptions, say: Callable[[str], None]) -> None:
    """Write the model in `model` to `output`, by default ``model.onnx`` beside it, and say how alike both are.

    Raises:
        UsageError, CheckpointError, DataError, VerificationSetError, StorageError, AttfcError: see `attfc_train.errors`.
    """
    which, precision = checked_which(options.which), _checked_precision(options.precision)
    encoder = open_network(model, which)
    for note in encoder.notes:
        say(note)
    path = output or (model if model.is_dir() else model.parent) / _default_name(precision)
    if path.absolute() == encoder.source.absolute():
        raise UsageError("--output must be another file than the model", f"'{path}'", "Choose another --output.")
    spec, images = _images(encoder, options, precision)
    written = export(encoder, path, precision, images)
    say(_headline(encoder, written, precision, spec))
    if path.suffix.lower() == ONNX and (encoder.image_size < _LEAST_SIZE or encoder.image_size in _OTHER_SIZES):
        say(f"note: InsightFace's package takes no recognition model for {encoder.image_size} pixels; other runtimes do")
    _compare_accuracy(encoder, written, options.val, say)


def checked_which(which: str) -> Which:
    """Return the value of ``--which``.

    Raises:
        UsageError: it is neither best nor last.
    """
    if which not in ("best", "last"):
        raise UsageError("--which must be best or last", f"'{which}'", "'best' needs a run that had --val.")
    return cast(Which, which)


def _checked_precision(precision: str) -> ExportPrecision:
    if precision not in LEAST_COSINE:
        raise UsageError("--precision must be known", f"'{precision}'", f"Choose one of: {', '.join(LEAST_COSINE)}.")
    return cast(ExportPrecision, precision)


def _default_name(precision: ExportPrecision) -> str:
    return f"model{ONNX}" if precision == "fp32" else f"model.{precision}{ONNX}"


def _images(encoder: Encoder, options: ExportOptions, precision: ExportPrecision) -> tuple[str, Tensor]:
    """Return a data set's name and images of it, float32 [N, 3, S, S] in [-1, 1].

    Raises:
        UsageError: int8 needs real images, and none are known.
        DataError: ``--calibrate`` cannot be read.
    """
    of_run = encoder.profile.data.path if encoder.profile is not None else None
    count = CALIBRATION_IMAGES if precision == "int8" else _COMPARED
    read = partial(drawn, size=encoder.image_size, count=count)
    if options.calibrate is not None:
        return options.calibrate, read(options.calibrate)
    try:
        if of_run is not None:
            return of_run, read(of_run)
    except (DataError, UsageError):  # a model outlives its data
        pass
    if precision == "int8":
        got = "none" if of_run is None else f"none, and the run's own data, '{of_run}', cannot be read"
        raise UsageError("--calibrate must name images for int8", got, "Example: --calibrate faces/train.rec.")
    return _STAND_IN, read(_STAND_IN)


def drawn(spec: str, *, size: int, count: int) -> Tensor:
    """Return `count` random images of a data set, always the same ones; those of a smaller one repeat."""
    dataset = open_dataset(spec)
    order = np.random.default_rng(0).permutation(dataset.index.num_images)
    places = np.resize(order, count).tolist()
    pixels = torch.stack([pixels_of(persistently(partial(dataset.encoded, place)), size) for place in places])
    return normalised(pixels, torch.zeros(count, dtype=torch.bool))


def _headline(encoder: Encoder, written: Exported, precision: ExportPrecision, spec: str) -> str:
    alike = "the same bits" if written.cosine is None else f"least cosine with the original {written.cosine:.7f}"
    sizes = ", ".join(map(str, BATCH_SIZES))
    how = "" if written.cosine is None else f" (batches of {sizes}; {_COMPARED} images of {spec})"
    size = encoder.image_size
    shape = f"{size} x {size} -> {encoder.embedding_size}"
    return f"{written.path}: {format_bytes(written.size)}, {precision}, {shape}, {alike}{how}"


def _compare_accuracy(encoder: Encoder, written: Exported, val: Sequence[str], say: Callable[[str], None]) -> None:
    """Say the accuracy of the original and of what was written, on each verification set."""
    if not val:
        return
    sets = load_verification_sets(val, encoder.image_size)
    before, after = (
        evaluate(network, sets, image_size=encoder.image_size, batch_size=_COMPARED, device=torch.device("cpu"))
        for network in (encoder.network, written.network)
    )
    for name, result in before.items():
        other = after[name]
        error = f"standard error {result.standard_error:.2%}"
        say(f"{name}: accuracy {result.accuracy:.2%} -> {other.accuracy:.2%} ({error}, {result.num_pairs:,} pairs)")
