"""What the trials of each stage must hold, beyond `attfc_planner.tune.studies.notes`: what the stages read without asking.

Each check takes a trial as plain data, and raises ValueError or LookupError for one that the stage cannot have written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attfc_planner.tune.question import Question
from attfc_planner.tune.studies.claim import Indices, Record
from attfc_planner.tune.verdict.trained import SEED, without_seed

_OBSERVED = ("ran", "out of memory")
"""Outcomes of real steps that predictions are corrected by."""


def check_steps(question: Question, record: Record) -> None:
    """Check a trial of real steps."""
    _check_setting(question, record.indices)
    notes = record.notes
    if record.state == "complete" or notes.get("outcome") in _OBSERVED:
        _require(notes, "kind", "predicted_bytes")
    if record.state == "complete":
        _require(notes, "outcome", "wall_seconds", "peak_bytes")
        _check_rate(record)
        if notes.get("reserved_bytes", 1) > notes["peak_bytes"]:
            raise ValueError(f"reserved_bytes = {notes['reserved_bytes']}, more than peak_bytes = {notes['peak_bytes']}")


def check_training(question: Question, record: Record) -> None:
    """Check a short training, or one of the finals."""
    _check_setting(question, without_seed(record).indices)
    _check_accuracy(record)


def check_baseline(question: Question, record: Record) -> None:
    """Check a training of the full FC layer; the first has the scale for all of them."""
    _require(record.indices, SEED)
    _check_accuracy(record)
    if record.number:
        return
    _require(record.notes, "num_ids", "epochs", "beside")
    _check_setting(question, record.notes["beside"])
    scale = record.notes["num_ids"], record.notes["epochs"]
    if not (2 <= scale[0] <= question.split.num_trainable and scale[1] <= question.request.epochs):
        raise ValueError(f"{scale[0]} identities and {scale[1]:g} epochs")


def _check_setting(question: Question, indices: Indices) -> None:
    spaces = question.spaces
    if spaces.indices(spaces.at(indices)) != dict(indices):
        raise ValueError(f"the setting {dict(indices)!r:.100}")


def _check_accuracy(record: Record) -> None:
    if record.state == "complete":
        _require(record.notes, "wall_seconds", "checks")
    if record.values and not 0 <= record.values[0] <= 1:
        raise ValueError(f"the accuracy {record.values[0]:g}")


def _check_rate(record: Record) -> None:
    if len(record.values) < 2 or not 0 < record.values[1] < 1e15:
        raise ValueError(f"the values {record.values} of accuracy and images/s")


def _require(notes: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if name not in notes:
            raise ValueError(f"nothing for {name}")
