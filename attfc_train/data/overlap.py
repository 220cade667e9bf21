"""Tells whether two data sets that the user names may hold the same people, by what is known without opening them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from attfc_train.data.formats.below import Chain, chains_below
from attfc_train.data.formats.folder import folder_of_pattern, is_folder_pattern, is_image_folder
from attfc_train.data.formats.lmdb_faces import database_of, is_lmdb
from attfc_train.data.formats.mapping_file import is_mapping
from attfc_train.data.formats.parquet import files_of, is_parquet
from attfc_train.data.formats.recordio import is_record_folder, record_file
from attfc_train.data.formats.subset_file import is_subset
from attfc_train.data.formats.tar_shards import is_shard_pattern, is_tar, place_of_pattern, shards_of
from attfc_train.data.part import part_of_spec
from attfc_train.data.reading import existing_path
from attfc_train.data.remote.places import clean_url
from attfc_train.data.specs import whole_of, with_paths
from attfc_train.errors import DataError, UsageError
from attfc_train.urls import is_url

Places = tuple[int, int]


class Named(NamedTuple):
    """A data set by one name, however it is written."""

    name: str
    places: Places | None
    """The part of it; None: all of it."""
    files: frozenset[str] = frozenset()
    """Files of many images that it is read from, of the formats in which one of them is a data set, too."""


def may_share_identities(spec: str, other_spec: str) -> bool:
    """Return whether two specs lead to one data set, and not by parts of it that do not overlap.

    A path may be written in any way. An index (`.subset`), a `.mapping` and a list of data sets are looked through.
    """
    return any(_meet(chain, other) for chain in _below(spec) for other in _below(other_spec))


def refuse_twice(specs: Sequence[str]) -> None:
    """Refuse data sets to be used together if two hold the same images: one twice, overlapping parts, one and its index.

    Two indices over one data set may hold different images of it, so they pass.

    Raises:
        UsageError: there are such.
    """
    ways = [_below(spec) for spec in specs]
    for (spec, chains), (other, others) in itertools.combinations(zip(specs, ways, strict=True), 2):
        if any(_meet(chain, far) and not _choose_both(chain, far) for chain in chains for far in others):
            rule = "data sets that are used together must be different ones"
            got = f"'{spec}' twice" if spec == other else f"'{spec}' and '{other}', which share images"
            raise UsageError(rule, got, "Name each once; parts of one must not overlap: SET@0:9 and SET@9:20.")


def _choose_both(chain: list[Named], other: list[Named]) -> bool:
    """Return whether files choose images of the data set that two ways have in common, on each of them another file."""
    names = {named.name for named in other}
    common = next((named.name for named in chain if named.name in names), None)
    above = [itertools.takewhile(lambda named: named.name != common, each) for each in (chain, other)]
    return all(any(is_subset(named.name) or is_mapping(named.name) for named in each) for each in above)


def _meet(chain: list[Named], other: list[Named]) -> bool:
    """Return whether two ways down to images go through one data set, and nowhere through parts of one that do not overlap.

    Of two data sets of which one lies in the other, such as shards and one of them, parts are other identities: they meet.
    """
    pairs = [(one, two) for one in chain for two in other if one.name == two.name]
    if pairs:
        return all(_overlap(one.places, two.places) for one, two in pairs)
    one, two = chain[-1], other[-1]
    return not one.files.isdisjoint(two.files) or _lies_in(one.name, two.name) or _lies_in(two.name, one.name)


def _lies_in(folder: str, outer: str) -> bool:
    """Return whether a folder of images lies in another one, whose identities it then is one of, or some of."""
    return folder.startswith(f"{outer.rstrip(os.sep)}{os.sep}") and all(
        Path(each).is_dir() and is_image_folder(Path(each)) for each in (folder, outer)
    )


def _below(spec: str) -> list[list[Named]]:
    """Return the ways from a spec down to images."""
    chains: list[Chain] = []
    with contextlib.suppress(DataError):  # a damaged index: what opens it says so
        for chain in chains_below(spec):
            chains.append(chain)
    return [[named for each in chain for named in _named(each)] for chain in chains or [(spec,)]]


def _named(spec: str) -> list[Named]:
    """Return one name for all ways in which a data set can be written, and the part; behind it the folder of a pattern.

    Of a folder and of a pattern in it parts are other identities, so that only whole folders can be compared.
    """
    whole = whole_of(spec)
    places = None if whole == spec else part_of_spec(spec)[1]
    named = [Named(with_paths(whole, _real, and_urls=True), places, _files(whole))]
    return [*named, Named(_real(folder_of_pattern(whole)), None)] if is_folder_pattern(whole) else named


def _files(whole: str) -> frozenset[str]:
    """Return the files that tar shards, Parquet and LMDB are read from; none of other formats, or where there is nothing."""
    path = existing_path(whole)
    if path is None:
        files = shards_of(place_of_pattern(whole)) if is_shard_pattern(whole) else []
    elif is_lmdb(path):
        files = [database_of(path)]
    else:
        files = shards_of(path) if is_tar(path) else files_of(path) if is_parquet(path) else []
    return frozenset(map(os.path.realpath, files))


def _real(path: str) -> str:
    """Return the file or folder that a path or a URL leads to; RecordIO's folder by its file."""
    place = existing_path(path)
    if place is None and is_url(path):
        return clean_url(path)
    return os.path.realpath(path if place is None else _content(place))


def _content(path: Path) -> Path:
    return record_file(path) if is_record_folder(path) else path


def _overlap(places: Places | None, other_places: Places | None) -> bool:
    if places is None or other_places is None:
        return True
    # [a, b) and [c, d) overlap where each starts before the other ends: a < d and c < b.
    return places[0] < other_places[1] and other_places[0] < places[1]
