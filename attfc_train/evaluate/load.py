"""Opens whatever ``--val`` names: a ``.bin`` file, or a data set from which pairs are drawn."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from attfc_train.data.reading import existing_path
from attfc_train.data.remote.places import clean_url
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, UsageError, VerificationSetError
from attfc_train.evaluate.bins import read_bin
from attfc_train.evaluate.drawn_pairs import pairs_from_dataset
from attfc_train.evaluate.kinds_of_pairs import with_both_kinds
from attfc_train.evaluate.verification_set import VerificationSet
from attfc_train.profile.profile import NUM_DRAWN_PAIRS
from attfc_train.urls import is_url


def load_verification(spec: str, image_size: int, *, num_pairs: int = NUM_DRAWN_PAIRS, seed: int = 0) -> VerificationSet:
    """Return one verification set, decoded, so that nothing is left to fail in the middle of a training.

    Args:
        spec: path of a ``.bin`` file, or what `open_dataset` takes.
        image_size: H = W in pixels that the backbone wants.
        num_pairs: pairs to draw from a data set.
        seed: of that draw.

    Raises:
        VerificationSetError: `spec` is neither, is damaged, or has too few pairs, or pairs of one kind only.
    """
    verification_set = open_verification(spec, num_pairs=num_pairs, seed=seed)
    verification_set.images(image_size)
    return verification_set


def open_verification(spec: str, *, num_pairs: int = NUM_DRAWN_PAIRS, seed: int = 0) -> VerificationSet:
    """Return one verification set, none of whose pictures is decoded yet; the arguments are as in `load_verification`."""
    try:
        is_bin = Path(spec).suffix.lower() == ".bin"
        verification_set = read_bin(_file(spec)) if is_bin else pairs_from_dataset(open_dataset(spec), num_pairs, seed)
    except (DataError, UsageError) as error:
        raise VerificationSetError(f"--val '{spec}': {error.rule}", error.got, error.remedy) from error
    return with_both_kinds(verification_set)


def _file(spec: str) -> Path:
    """Return the path that a spec leads to, whether something is there or not."""
    return (existing_path(spec) if is_url(spec) else None) or Path(spec)


def with_folders(specs: Sequence[str]) -> list[str]:
    """Return the specs, each once, and in the place of a folder of ``.bin`` files those files by name."""
    listed: list[str] = []
    for spec in specs:
        listed += _bins_of(spec) or [spec]
    return list(dict.fromkeys(listed))


def _bins_of(spec: str) -> list[str]:
    """Return the ``.bin`` files right in a folder; none where it is no folder."""
    folder = _file(spec)
    above = f"{clean_url(spec)}/" if is_url(spec) else f"{folder}{os.sep}"
    try:
        return sorted(above + path.name for path in folder.iterdir() if path.suffix.lower() == ".bin" and path.is_file())
    except (OSError, ValueError):  # what is wrong with it, its reader says
        return []


def load_verification_sets(specs: Sequence[str], image_size: int) -> tuple[VerificationSet, ...]:
    """Return `load_verification` of each spec; sets whose names coincide are named by their spec."""
    loaded = [load_verification(spec, image_size) for spec in specs]
    times = Counter(verification_set.name for verification_set in loaded)
    return tuple(
        verification_set if times[verification_set.name] == 1 else replace(verification_set, name=spec)
        for spec, verification_set in zip(specs, loaded, strict=True)
    )
