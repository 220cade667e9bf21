"""What can be told of a data set's spec without opening it: its part, whether it lists others, and the path in it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Final

from attfc_train.data.part import part_of_spec
from attfc_train.data.reading import existing_path
from attfc_train.sources import joined_sources, joined_spec
from attfc_train.urls import is_url

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]+:")
"""Begins a spec that is no path: ``synthetic:``, ``s3:``."""
_PATTERN: Final = re.compile(r"[*{]")
"""Begins what stands for many files or folders."""


def whole_of(spec: str) -> str:
    """Return a spec without its part; a file may have the very name of one with a part."""
    whole, places = part_of_spec(spec)
    return spec if places is None or existing_path(spec) is not None else whole


def is_joined(spec: str) -> bool:
    """Return whether a spec, without its part, lists several data sets."""
    return joined_sources(spec) is not None and existing_path(spec) is None


def with_paths(spec: str, change: Callable[[str], str], and_urls: bool = False) -> str:
    """Return a spec in which every path is changed: one, or those of all data sets that it lists; the part stays.

    Args:
        and_urls: change these, too.
    """
    whole = whole_of(spec)
    part = spec[len(whole) :]
    if is_joined(whole):
        return joined_spec([with_paths(each, change, and_urls) for each in joined_sources(whole) or ()]) + part
    is_changed = has_path(whole) or (and_urls and is_url(whole))
    return (change(os.path.expanduser(whole)) if is_changed else whole) + part


def has_path(whole: str) -> bool:
    """Return whether a spec without its part is a path, or a pattern of paths."""
    return not is_url(whole) and (existing_path(whole) is not None or _SCHEME.match(whole) is None)


def is_there(spec: str) -> bool:
    """Return whether what a spec names exists: all data sets that it lists, and of a pattern the folder."""
    whole = whole_of(spec)
    if is_joined(whole):
        return all(is_there(each) for each in joined_sources(whole) or ())
    pattern = _PATTERN.search(whole)
    if pattern is not None and existing_path(whole) is None:
        whole = os.path.dirname(whole[: pattern.start()]) or os.curdir
    return existing_path(whole) is not None or not has_path(whole)


def seen_from(folder: str, spec: str) -> str:
    """Return a spec whose relative paths count from a folder, as one whose paths count from here."""

    def moved(path: str) -> str:
        return os.path.normpath(os.path.join(folder, path))

    whole = whole_of(spec)
    if not is_joined(whole) and not os.path.isabs(whole) and existing_path(moved(whole)) is not None:
        return moved(whole) + spec[len(whole) :]  # whatever it looks like
    return with_paths(spec, moved)
