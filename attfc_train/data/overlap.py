"""Tells whether two data sets that the user names may hold the same people, by what is known without opening them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from attfc_train.data.formats.recordio import is_record_folder, record_file
from attfc_train.data.formats.subset_file import specs_below
from attfc_train.data.part import part_of_spec
from attfc_train.data.reading import existing_path
from attfc_train.errors import DataError

Places = tuple[int, int]


def may_share_identities(spec: str, other_spec: str) -> bool:
    """Return whether two specs lead to one data set, and not by parts of it that do not overlap.

    A path may be written in any way. An index (`.subset`) is looked through, down to what it is over.
    """
    pairs = [(one, other) for one in _below(spec) for other in _below(other_spec) if one[0] == other[0]]
    return bool(pairs) and all(_overlap(one[1], other[1]) for one, other in pairs)


def _below(spec: str) -> list[tuple[str, Places | None]]:
    """Return the data sets that a spec leads to, each with the part that is taken; None: all of it."""
    specs = []
    with contextlib.suppress(DataError):  # a damaged index: what opens it says so
        for each in specs_below(spec):
            specs.append(each)
    return [_named(each) for each in specs]


def _named(spec: str) -> tuple[str, Places | None]:
    """Return one name for all ways in which a data set can be written, and the part."""
    whole, places = (spec, None) if existing_path(spec) is not None else part_of_spec(spec)
    path = existing_path(whole)
    return (whole if path is None else os.path.realpath(_content(path))), places


def _content(path: Path) -> Path:
    return record_file(path) if is_record_folder(path) else path


def _overlap(places: Places | None, other_places: Places | None) -> bool:
    if places is None or other_places is None:
        return True
    # [a, b) and [c, d) overlap where each starts before the other ends: a < d and c < b.
    return places[0] < other_places[1] and other_places[0] < places[1]
