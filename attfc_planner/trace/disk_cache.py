"""Traces on disk: one compressed JSON file each, named after everything that the trace depends on.

A file that is damaged or of another version counts as missing (`attfc_train.cache_folder`); a folder that cannot be
written makes plans slower, nothing else. No torch here: a plan whose traces are cached never imports it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import attfc_train
from attfc_planner.gpu.versions import installed_version
from attfc_planner.trace.affine import AffineTrace, HeadModel
from attfc_planner.trace.evaluation import EvaluationModel
from attfc_planner.trace.history import HeadBytes, Trace
from attfc_train.cache_folder import read_kept, write_kept
from attfc_train.errors import StorageError
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import OpCost

_FORMAT = 1

Stored = TypeVar("Stored", Trace, HeadModel, AffineTrace, EvaluationModel, HeadBytes)


class TraceCache:
    """A folder of traces by kind and profile.

    Args:
        folder: created when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, kind: type[Stored], profile: TrainProfile) -> Stored | None:
        """Return what was stored for this profile under this very code, or None."""
        decode: Callable[[Any], Stored] = _DECODERS[kind]
        return read_kept(self._path(kind, profile), decode, gzip.decompress)

    def store(self, value: Trace | HeadModel | AffineTrace | EvaluationModel | HeadBytes, profile: TrainProfile) -> None:
        """Keep a trace, if the folder can be written."""
        with suppress(StorageError):
            write_kept(self._path(type(value), profile), _ENCODERS[type(value)](value), partial(gzip.compress, compresslevel=1))

    def _path(self, kind: type[object], profile: TrainProfile) -> Path:
        key = json.dumps([kind.__name__, profile.model_dump(mode="json"), _code_version()], sort_keys=True)
        return self.folder / f"{kind.__name__.lower()}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.json.gz"


@cache
def _code_version() -> str:
    """Return a digest of the trainer's and this room's sources, with the versions of torch and Python."""
    digest = hashlib.sha256()
    for folder in (Path(attfc_train.__file__).parent, Path(__file__).parent):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return f"{_FORMAT} {installed_version('torch') or 'none'} {sys.version_info[:2]} {digest.hexdigest()}"


def _encode_trace(trace: Trace) -> dict[str, Any]:
    return {
        "events": trace.events,
        "nbytes": trace.nbytes.tolist(),
        "ops": trace.ops,
        "phases": trace.phases,
        "categories": trace.categories,
        "steps": trace.steps,
        "costs": [_encode_costs(step) for step in trace.costs],
    }


def _decode_trace(document: dict[str, Any]) -> Trace:
    trace = Trace(
        events=tuple(document["events"]),
        nbytes=np.array(document["nbytes"], np.int64),
        ops=tuple(document["ops"]),
        phases=tuple(document["phases"]),
        categories=tuple(document["categories"]),
        steps=tuple(document["steps"]),
        costs=tuple(_decode_costs(step) for step in document["costs"]),
    )
    num = len(trace.nbytes)
    assert {len(trace.ops), len(trace.phases), len(trace.categories)} == {num}
    assert all(-num <= event < num for event in trace.events)
    return trace


def _encode_head(head: HeadModel) -> dict[str, Any]:
    return {
        "names": head.names,
        "coefficients": head.coefficients.tolist(),
        "cost_keys": _encode_costs(head.cost_keys),
        "cost_coefficients": head.cost_coefficients.tolist(),
    }


def _decode_head(document: dict[str, Any]) -> HeadModel:
    names = tuple((op, phase) for op, phase in document["names"])
    coefficients = np.array(document["coefficients"], np.int64)
    assert len(coefficients) == len(names)
    cost_keys = _decode_costs(document["cost_keys"])
    return HeadModel(names, coefficients, cost_keys, np.array(document["cost_coefficients"], np.float64))


def _encode_affine(affine: AffineTrace) -> dict[str, Any]:
    return {
        "skeleton": _encode_trace(affine.skeleton),
        "coefficients": affine.coefficients.tolist(),
        "cost_keys": _encode_costs(affine.cost_keys),
        "cost_coefficients": affine.cost_coefficients.tolist(),
    }


def _decode_affine(document: dict[str, Any]) -> AffineTrace:
    skeleton = _decode_trace(document["skeleton"])
    coefficients = np.array(document["coefficients"], np.int64)
    assert len(coefficients) == len(skeleton.nbytes)
    cost_keys = _decode_costs(document["cost_keys"])
    return AffineTrace(skeleton, coefficients, cost_keys, np.array(document["cost_coefficients"], np.float64))


def _encode_evaluation(model: EvaluationModel) -> dict[str, Any]:
    return {"skeleton": _encode_trace(model.skeleton), "coefficients": model.coefficients.tolist()}


def _decode_evaluation(document: dict[str, Any]) -> EvaluationModel:
    skeleton = _decode_trace(document["skeleton"])
    coefficients = np.array(document["coefficients"], np.int64)
    assert coefficients.shape == (len(skeleton.nbytes), 2)
    return EvaluationModel(skeleton, coefficients)


def _encode_head_bytes(kept: HeadBytes) -> dict[str, Any]:
    return {"num_bytes": kept.num_bytes}


def _decode_head_bytes(document: dict[str, Any]) -> HeadBytes:
    return HeadBytes(int(document["num_bytes"]))


def _encode_costs(costs: Sequence[OpCost]) -> list[list[Any]]:
    return [[cost.name, cost.kind, cost.phase, cost.flops, cost.bytes_read_written, cost.count] for cost in costs]


def _decode_costs(rows: list[list[Any]]) -> tuple[OpCost, ...]:
    return tuple(OpCost(*row) for row in rows)


_ENCODERS: dict[type, Any] = {
    Trace: _encode_trace,
    HeadModel: _encode_head,
    AffineTrace: _encode_affine,
    EvaluationModel: _encode_evaluation,
    HeadBytes: _encode_head_bytes,
}
_DECODERS: dict[type, Any] = {
    Trace: _decode_trace,
    HeadModel: _decode_head,
    AffineTrace: _decode_affine,
    EvaluationModel: _decode_evaluation,
    HeadBytes: _decode_head_bytes,
}
