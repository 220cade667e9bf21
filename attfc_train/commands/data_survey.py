"""``attfc-train data info``: what is in a data set; and what the other commands show alike."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from attfc_train.data.dataset import FaceDataset
from attfc_train.data.encode import check_picture, write_picture
from attfc_train.data.formats.twins import is_of_opening
from attfc_train.data.source import open_dataset
from attfc_train.data.survey.look import Look, look, looked_at, shown_side
from attfc_train.data.survey.montage import montage
from attfc_train.run.live_line import busy

DEFAULT_SAMPLE: Final = 20_000
"""Images that are looked at unless --sample says otherwise: some 10 seconds a core."""
_INDENT: Final = 24
_BAR: Final = 24
_SIZES: Final = 5
"""Sizes that are listed."""


@dataclass(frozen=True, slots=True)
class SurveyOptions:
    """How to look."""

    sample: int = DEFAULT_SAMPLE
    """Images to look at; 0: all."""
    output: Path | None = None
    """The montage."""
    size: int | None = None
    """Pixels of a side that every image must have; None: what most have."""


def show_info(path: str, options: SurveyOptions, console: Console) -> None:
    """Print what is in a data set.

    Raises:
        DataError, UsageError: it cannot be opened or read.
        StorageError: the montage cannot be written.
    """
    check_montage(options)
    with busy(console, "Opening the data set"):
        dataset = open_dataset(path)
    survey(dataset, options, console, names_found=True)


def check_montage(options: SurveyOptions) -> None:
    """Check that the montage is a picture; for before the work.

    Raises:
        UsageError: it is none.
    """
    if options.output is not None:
        check_picture(options.output, "--output")


def survey(dataset: FaceDataset, options: SurveyOptions, console: Console, names_found: bool = False) -> Look:
    """Look at a data set, print what is seen, and return it; the errors are those of `show_info`.

    Args:
        names_found: also print what was found among the images, which `check` says as problems.
    """
    num_looked_at = looked_at(dataset, options.sample).size
    _show_counts(dataset, console, num_looked_at == dataset.index.num_images)
    with progress(console, num_looked_at) as advance:
        seen = look(dataset, options.sample, advance, options.size)
    _show_look(dataset, seen, console, seen.findings.lines() if names_found else [])
    if options.output is not None:
        write_picture(options.output, montage(dataset))
        say(console, "montage", f"{options.output}: a row for each of some people")
    return seen


@contextmanager
def progress(console: Console, images: int, what: str = "looking at images") -> Iterator[Callable[[int], None]]:
    """Show how many images are done, on a terminal, until they are; gives a function that is told of each batch."""
    columns = TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=images)
        yield lambda count: bar.advance(task, count)


def _show_counts(dataset: FaceDataset, console: Console, finds_twins: bool) -> None:
    """Print what is known before the look, without the images in two data sets where that will find them."""
    index = dataset.index
    counts = index.counts
    say(console, "data set", dataset.name)
    say(console, "identities", f"{index.num_ids:,}")
    say(console, "images", f"{index.num_images:,}")
    low, middle, high = int(counts.min()), float(np.median(counts)), int(counts.max())
    say(console, "images an identity", f"{low:,} to {high:,}, median {middle:g}, mean {counts.mean():.1f}")
    for line in histogram(counts):
        console.print(line, soft_wrap=True)
    lines = [line for line in index.report.lines() if not (finds_twins and is_of_opening(line))]
    for place, line in enumerate(lines or ["nothing"]):
        say(console, "" if place else "passed over", line)


def histogram(counts: NDArray[np.int64]) -> list[str]:
    """Return lines with a bar for 1, 2, 3-4, 5-8, ... images: how many identities have so many."""
    # Bin b holds 2^(b-1) < n <= 2^b, so its number is the length of n - 1 in bits.
    bins = np.ceil(np.log2(counts)).astype(np.int64)
    tally = np.bincount(bins)
    first = int(bins.min())
    most = int(tally.max())
    lines = []
    for place in range(first, tally.size):
        low = 2 ** (place - 1) + 1 if place else 1
        name = f"{low:,}" if low == 2**place else f"{low:,}-{2**place:,}"
        number = int(tally[place])
        bar = "█" * max(round(_BAR * number / most), 1 if number else 0)
        lines.append(f"{name:>{_INDENT - 2}}  {bar:<{_BAR}} {number:,} ({number / counts.size:.1%})")
    return lines


def _show_look(dataset: FaceDataset, seen: Look, console: Console, found: list[str]) -> None:
    total = dataset.index.num_images
    whole = "all images" if seen.num_seen == total else f"a random sample of {seen.num_seen:,} of {total:,} images"
    say(console, "looked at", whole if seen.num_seen == total else f"{whole} (--sample 0: all)")
    sizes = [f"{shown_side(side)}: {count:,}" for side, count in seen.sizes.most_common(_SIZES)]
    more = len(seen.sizes) - _SIZES
    say(console, "sizes", ", ".join(sizes) + (f", and {more:,} other sizes" if more > 0 else "") or "none can be decoded")
    for line in found:
        say(console, "found", line)
    say(console, "aligned?", f"{_ANSWERS[seen.alignment.verdict]}: {seen.alignment.reason}")


_ANSWERS: Final = {"aligned": "yes", "not aligned": "no", "cannot tell": "cannot tell"}


def say(console: Console, name: str, text: str) -> None:
    """Print a name and a text, which is broken into lines at spaces, each behind the name."""
    width = max(20, console.width - _INDENT)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
    for place, line in enumerate(lines):
        console.print(f"{'' if place else name:<{_INDENT}}{line}", soft_wrap=True)
