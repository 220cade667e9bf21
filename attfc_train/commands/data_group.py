"""``attfc-train data group``: records in an order in which the images of an identity lie next to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.commands.data_convert import ConvertOptions, check_output, say_written, write_images
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.source import open_dataset
from attfc_train.errors import UsageError
from attfc_train.run.live_line import busy
from attfc_train.screen import Screen

_BLOCK: Final = 2**16
"""Identities that are laid out at once."""


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """The options of the command."""

    output: Path
    seed: int | None = None
    """Of a random order of the identities; None: that of their labels."""


def group(spec: str, options: GroupOptions, console: Screen) -> None:
    """Write a data set as RecordIO, identity after identity.

    Raises:
        UsageError: the output is no ``.rec`` file, is there already, or cannot hold the labels.
        DataError: the data set cannot be opened or read.
        StorageError: the output cannot be written.
        Interrupted: a signal came; nothing is left behind.
    """
    if options.output.suffix.lower() != ".rec":
        rule = "--output of data group must be a .rec file"
        raise UsageError(rule, f"'{options.output}'", "Name it grouped/train.rec.")
    target = ConvertOptions(options.output)
    check_output(target)
    with busy(console, "Opening the data set"):
        dataset = open_dataset(spec)
    index = dataset.index
    order = grouped_order(index, options.seed)
    write_images(dataset, order, index.original_labels[index.labels[order]], target, console)
    for line in index.report.lines():
        console.print(line, soft_wrap=True)
    before = num_stretches(index)
    console.print(f"Images of one identity lay in {before:,} stretches, and lie in {index.num_ids:,} now.", soft_wrap=True)
    say_written(options.output, order.size, index.num_ids, console)


def grouped_order(index: IdentityIndex, seed: int | None) -> NDArray[np.signedinteger[Any]]:
    """Return positions, an identity's together and in their order; the identities by label, or at random by a seed."""
    if seed is None:
        return np.asarray(index.members)
    people = np.random.default_rng(seed).permutation(index.num_ids)
    order = np.empty(index.members.size, dtype=index.members.dtype)
    start = 0
    for block in range(0, people.size, _BLOCK):
        places = _places(index, people[block : block + _BLOCK])
        order[start : start + places.size] = index.members[places]
        start += places.size
    return order


def _places(index: IdentityIndex, people: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where the members of some identities stand in `IdentityIndex.members`, int64, one identity after the other."""
    # The k-th of all is the (k - first of its identity)-th of its own: arange minus its first, plus its offset.
    counts = index.counts[people]
    firsts = np.cumsum(counts) - counts
    places: NDArray[np.int64] = np.arange(int(counts.sum())) + np.repeat(index.offsets[people] - firsts, counts)
    return places


def num_stretches(index: IdentityIndex) -> int:
    """Return in how many stretches of one identity the images lie."""
    return 1 + int(np.count_nonzero(index.labels[1:] != index.labels[:-1]))
