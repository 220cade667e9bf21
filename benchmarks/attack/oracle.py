"""What counts as right, format by format, in one place: which refusals are promised, and when an input may be taken.

A judge sees the clean input, the damaged one and what attfc made of it; it returns the kind of a right outcome, or raises
`Silent`. Formats with checksums (checkpoints, models, caches) may be taken only as they were written. The others cannot tell a
flipped bit from what somebody meant: of them only what the damage touched may differ, and what is missing must be said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attfc_train.errors import (
    AttfcError,
    CheckpointError,
    DataError,
    ProfileError,
    StorageError,
    UsageError,
    VerificationSetError,
)
from benchmarks.attack.documents import difference, parsed
from benchmarks.attack.outcome import Kind, Silent

Item = tuple[int, bytes]
"""A label and the bytes of an image."""


@dataclass(frozen=True, slots=True)
class Oracle:
    """The promise about a format."""

    refusals: tuple[type[AttfcError], ...]
    right: str
    """In words, for the table."""

    @property
    def codes(self) -> set[int]:
        """Exit codes of the refusals."""
        return {error.exit_code for error in self.refusals}


ORACLES: Mapping[str, Oracle] = {
    "records": Oracle((DataError,), "refused, or every untouched image is read under its label or counted as passed over"),
    "index": Oracle((DataError,), "refused, or every image is read under its label, once, or counted as passed over"),
    "folder": Oracle((DataError, UsageError), "refused, or every image of a plain file is read, or counted as passed over"),
    "images": Oracle((DataError,), "refused, or 32 x 32 pixels of 8 bits, within the time and the memory"),
    "tar": Oracle((DataError,), "refused, or every untouched image is read under its label or counted as passed over"),
    "parquet": Oracle((DataError,), "refused, or as many images as before, or those that are missing are counted"),
    "lmdb": Oracle((DataError,), "refused, or every untouched image is read under its label or counted as passed over"),
    "list": Oracle((DataError,), "refused, or every line that is whole is read, or counted as passed over"),
    "subset": Oracle((DataError, UsageError), "refused, or the same images and labels; forged, only images of its source"),
    "kept index": Oracle((), "missing, or the same numbers"),
    "bin": Oracle(
        (VerificationSetError,), "refused, or as many pairs as before, each untouched image in its place; nothing runs"
    ),
    "profile": Oracle((ProfileError,), "refused, or taken with every value that the text gives, each key once"),
    "gpu profile": Oracle((ProfileError, UsageError), "refused, or taken with every value that the text gives, each key once"),
    "checkpoint": Oracle((CheckpointError,), "refused, or the same bits; or the one before, which a line says"),
    "checkpoint content": Oracle((CheckpointError,), "refused, or loaded without an exception, within the memory"),
    "model": Oracle((CheckpointError,), "refused, or the same bits"),
    "model content": Oracle((CheckpointError,), "refused, or every tensor with the real numbers that are in the file"),
    "journal": Oracle((StorageError, UsageError), "refused, or the same trials but for those of lines that were cut off"),
    "sqlite study": Oracle((StorageError, UsageError), "refused, or read without an exception"),
    "trace cache": Oracle((), "missing, or the same trace"),
    "measurement cache": Oracle((), "missing, or the same measurements"),
    "log": Oracle((ProfileError,), "every whole line is read, in order; no exception in what is made of them"),
    "report": Oracle((ProfileError, StorageError), "refused, or a page without foreign markup, control characters, nan or inf"),
}


def judge_images(clean: Sequence[Item], frames: Sequence[bytes], content: bytes, taken: Sequence[Item], is_said: bool) -> Kind:
    """Judge what was read from a file of records.

    Args:
        clean: the items of the undamaged file.
        frames: the bytes of each one's record.
        content: the damaged file.
        is_said: whether anything was counted or said.
    """
    whole = [content.find(frame) >= 0 for frame in frames]
    untouched = Counter(item for item, is_whole in zip(clean, whole, strict=True) if is_whole)
    labels: dict[bytes, set[int]] = {}
    for (label, image), is_whole in zip(clean, whole, strict=True):
        if is_whole:
            labels.setdefault(image, set()).add(label)
    found = Counter(taken)
    for label, image in found:
        if image in labels and label not in labels[image] and content.count(image) == 1:
            raise Silent(f"an untouched image of label {sorted(labels[image])} was read with label {label}")
    missing = untouched - found
    if missing and not is_said:
        raise Silent(f"{sum(missing.values())} untouched images were passed over without a word")
    for (label, image), number in found.items():
        if number > max(content.count(image), 1):
            raise Silent(f"an image of label {label} was read {number} times and is {content.count(image)} times in the file")
    if found == Counter(clean) and not is_said:
        return "same"
    return "said" if is_said else "other"


def judge_listed(clean: Mapping[bytes, Item], content: bytes, taken: Sequence[Item], is_said: bool) -> Kind:
    """Judge what was read of images that a text lists.

    Args:
        clean: line -> the image of it.
        content: the damaged text.
        is_said: whether anything was counted or said.
    """
    lines = set(content.split(b"\n"))
    whole = [item for line, item in clean.items() if line in lines]
    found = Counter(taken)
    missing = [item for item in whole if item not in found]
    if missing and not is_said:
        raise Silent(f"{len(missing)} images whose lines are whole were passed over without a word")
    known = {image for _, image in clean.values()}
    for (label, image), number in found.items():
        if image not in known or number > 1:
            raise Silent(f"an image of label {label} was read {number} times")
    if found == Counter(clean.values()) and not is_said:
        return "same"
    return "said" if is_said else "other"


def judge_document(content: bytes, taken: Any) -> Kind:
    """Judge a JSON document that was taken: it must say what was taken, once.

    Args:
        content: the file.
        taken: what it was taken for, as JSON.
    """
    try:
        given = parsed(content)
    except (ValueError, RecursionError) as error:
        raise Silent(f"no plain JSON, but taken: {error}") from error
    found = difference(given, taken)
    if found:
        raise Silent(found)
    return "other"


def judge_missing(clean: Any, taken: Any, same: Callable[[Any, Any], bool]) -> Kind:
    """Judge what a cache gave: nothing, or what was stored."""
    if taken is None:
        return "refused"
    if not same(clean, taken):
        raise Silent("a damaged file was believed")
    return "same"


def judge_tensors(clean: Any, taken: Any) -> Kind:
    """Judge a file with checksums."""
    if not same_bits(clean, taken):
        raise Silent("other bits than were written were loaded")
    return "same"


def same_bits(left: Any, right: Any) -> bool:
    """Return whether two nests of dicts, lists, tensors and plain values are the same to the bit."""
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        same_form = left.dtype == right.dtype and left.shape == right.shape
        return same_form and _memory(left) == _memory(right)
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same_bits(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same_bits, left, right))
    return bool(type(left) is type(right) and (left == right or left != left))


def _memory(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()
