"""What a spec leads to: the data sets that an index is over, that a list names, that a mapping file is of, and so on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attfc_train.data.formats.mapping_file import is_mapping, mapped_sources
from attfc_train.data.formats.subset_file import is_subset, read_header, source_of
from attfc_train.data.report import shown
from attfc_train.data.specs import is_joined, whole_of
from attfc_train.errors import DataError
from attfc_train.sources import joined_sources

_MOST_LEVELS: Final = 8
"""Data sets over data sets: more can only be a circle."""
_MOST: Final = 1000
"""Ways down from a spec: files that name each other could make endlessly many."""

Chain = tuple[str, ...]
"""Specs, each of which leads to the next."""


def chains_below(spec: str) -> Iterator[Chain]:
    """Yield every way from `spec` down to images: ``(spec, what its file is an index over, ...)``.

    Raises:
        DataError: a file on a way is damaged, its source is gone, it leads back to itself, or there are too many ways.
    """
    waiting: list[Chain] = [(spec,)]
    num_chains = 0
    while waiting:
        chain = waiting.pop()
        below = _sources(whole_of(chain[-1]))
        if not below:
            num_chains += 1
            yield chain
        elif len(chain) > _MOST_LEVELS or len(waiting) + num_chains + len(below) > _MOST:
            rule = f"'{shown(spec)}' must lead to at most {_MOST:,} data sets, over at most {_MOST_LEVELS} others"
            raise DataError(rule, "more, or a circle", "Make it anew from the data sets themselves.")
        else:
            waiting += [(*chain, each) for each in reversed(below)]


def check_below(spec: str) -> None:
    """Check that a spec leads to images: one that leads back to itself would be opened for ever.

    Raises:
        DataError: as `chains_below`.
    """
    for _ in chains_below(spec):
        pass


def specs_below(spec: str) -> Iterator[str]:
    """Yield `spec` and every other spec that it leads to, each once; the last are of images.

    Raises:
        DataError: as `chains_below`.
    """
    yield from dict.fromkeys(each for chain in chains_below(spec) for each in chain)


def is_relabelled(spec: str) -> bool:
    """Return whether images have other labels than the files that they lie in give them.

    Raises:
        DataError: as `chains_below`.
    """
    wholes = [whole_of(each) for each in specs_below(spec)]
    return any(
        is_joined(whole) or is_mapping(whole) or (is_subset(whole) and read_header(Path(whole).expanduser()).label_bytes > 0)
        for whole in wholes
    )


def _sources(whole: str) -> list[str]:
    """Return what a spec without its part leads to at once; nothing for images themselves."""
    if is_joined(whole):
        return joined_sources(whole) or []
    if is_mapping(whole):
        return mapped_sources(Path(whole).expanduser())
    return [source_of(Path(whole).expanduser())] if is_subset(whole) else []
