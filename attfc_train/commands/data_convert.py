"""``attfc-train data convert``, ``pack`` and ``unpack``: the images of a data set, as they are, in another format."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.commands.data_survey import progress
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import decode_whole
from attfc_train.data.encode import png
from attfc_train.data.formats.recordio_writer import fits_insightface
from attfc_train.data.formats.writers import Images, Target, WriteOptions, target_of, written_root
from attfc_train.data.in_order import Positions, results_in_order
from attfc_train.data.reading import persistently
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, Interrupted, UsageError
from attfc_train.files import leftovers
from attfc_train.interrupt import SAME_SECONDS, end_by, stop_signals
from attfc_train.processes import is_running
from attfc_train.run.live_line import busy
from attfc_train.screen import Screen

_TRIED: Final = 20
"""Images that are decoded at most to find one's size."""


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """The options of the command."""

    output: Path
    layout: str | None = None
    shard_images: int = 10_000


def pack(spec: str, options: ConvertOptions, console: Screen) -> None:
    """Write a data set as RecordIO.

    Raises:
        UsageError: the output is no ``.rec`` file; and as `convert`.
    """
    if options.output.suffix.lower() != ".rec":
        rule = "--output of data pack must be a .rec file"
        raise UsageError(rule, f"'{options.output}'", "Name it faces/train.rec, or use data convert for other formats.")
    convert(spec, options, console)


def unpack(spec: str, options: ConvertOptions, console: Screen) -> None:
    """Write a data set as a folder per identity.

    Raises:
        UsageError: the output has an ending; and as `convert`.
    """
    if options.output.suffix:
        rule = "--output of data unpack must be a folder, whose name has no ending"
        raise UsageError(rule, f"'{options.output}'", "Name it faces, or use data convert for other formats.")
    convert(spec, options, console)


def convert(spec: str, options: ConvertOptions, console: Screen) -> None:
    """Write a data set in another format, with the bytes that its images have.

    Raises:
        UsageError: the output is no format, is there already, or cannot hold the labels.
        DataError: the data set cannot be opened or read.
        StorageError: the output cannot be written.
    """
    check_output(options)
    with busy(console, "Opening the data set"):
        dataset = open_dataset(spec)
    index = dataset.index
    order = np.asarray(index.members)
    write_images(dataset, order, index.original_labels[index.labels[order]], options, console)
    for line in index.report.lines():
        console.print(line, soft_wrap=True)
    say_written(options.output, order.size, index.num_ids, console)


def say_written(output: Path, num_images: int, num_ids: int, console: Screen) -> None:
    """Print what was written, and how to look at it."""
    root = written_root(output)
    console.print(f"Wrote {root}: {num_images:,} images of {num_ids:,} identities.", soft_wrap=True)
    console.print(f"Look at them: attfc-train data info {root} -o montage.png", soft_wrap=True)


def check_output(options: ConvertOptions) -> None:
    """Check that an output is of a format, of one of its layouts, and new; what a killed process left half written goes.

    Raises:
        UsageError: it is not.
    """
    output = options.output.expanduser()
    _check_layout(target_of(output), options.layout)
    files = [output, output.with_suffix(".idx"), output.with_name("property")]
    written = files if output.suffix.lower() == ".rec" else [written_root(output)]
    _check_new(output, written)
    for path in written:
        remove_left(path)


def write_images(
    dataset: FaceDataset, order: Positions, labels: NDArray[np.int64], options: ConvertOptions, console: Screen
) -> None:
    """Write images with the bytes that they have; the output appears when all of it is there.

    Args:
        order: positions in `dataset`, an identity's together.
        labels: int64, of the images in this order.

    Raises:
        UsageError: the format cannot hold the labels.
        DataError: an image cannot be read.
        StorageError: the output cannot be written.
        Interrupted: a signal came; nothing is left behind.
    """
    output = options.output.expanduser()
    target = target_of(output)
    layout = options.layout or (target.layouts or ("",))[0]
    if options.layout is None and "im2rec" in target.layouts and not fits_insightface(labels):
        layout = "im2rec"
        console.print("Written in im2rec's layout: InsightFace's numbers at most 2**24 records.", soft_wrap=True)
    with stopped_by_signals(), progress(console, order.size, "writing") as advance:
        images = Images(labels, encoded_images(dataset, order, advance))
        target.write(output, images, WriteOptions(layout, options.shard_images, _side(dataset)))


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise `Interrupted` where a signal comes, so that what is half written is removed; the main thread calls this.

    A second signal, while that is being done, ends the process.
    """
    since = 0.0

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal since
        if since and time.monotonic() - since >= SAME_SECONDS:
            end_by(number)
        if not since:
            since = time.monotonic()
            raise Interrupted(number, "Stopped; nothing has been written", "Start it again.")

    former = {number: signal.signal(number, stop) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _check_layout(target: Target, chosen: str | None) -> None:
    if chosen is not None and chosen not in target.layouts:
        known = " or ".join(target.layouts) or "left out"
        remedy = "Choose another one, or another --output."
        raise UsageError(f"--layout of {target.help} must be {known}", f"'{chosen}'", remedy)


def _check_new(output: Path, written: list[Path]) -> None:
    """Refuse what is there already, and would be lost or mixed.

    Raises:
        UsageError: there is a file, or a folder that is not empty.
    """
    root = written_root(output)
    for path in written:
        if path.is_dir() and root is path and output.suffix.lower() in ("", ".lmdb", ".tar") and not any(path.iterdir()):
            continue
        if path.exists() or path.is_symlink():
            folder = " (shards are written into a folder of their own)" if root != output else ""
            rule = f"--output must be new, and its folder without other records{folder}"
            raise UsageError(rule, f"'{path}', which exists", "Choose another name, or remove it.")


def remove_left(path: Path) -> None:
    """Remove the temporary files and folders of `path` that processes left when they were killed."""
    for temporary in leftovers(path.parent):
        name, number = temporary.name.removesuffix(".tmp").rsplit(".", 1)
        if name == f".{path.name}" and not is_running(int(number)):
            with contextlib.suppress(OSError):  # another account's
                shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def encoded_images(dataset: FaceDataset, order: Positions, advance: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the images' files in an order of positions; pixels that nobody encoded become PNG, which loses nothing."""

    def contents(positions: list[int]) -> list[bytes]:
        return [encoded_image(dataset, position) for position in positions]

    for _, block in results_in_order(order, contents):
        yield from block
        advance(len(block))


def encoded_image(dataset: FaceDataset, position: int) -> bytes:
    """Return an image's file; pixels that nobody encoded become PNG.

    Raises:
        UnreadableError, DataError: see `FaceDataset.encoded`.
    """
    image = persistently(lambda: dataset.encoded(position))
    return png(image) if isinstance(image, np.ndarray) else image


def _side(dataset: FaceDataset) -> int:
    """Return the height of the first image that can be decoded, which RecordIO's ``property`` names."""
    for position in range(min(dataset.index.num_images, _TRIED)):
        try:
            image = dataset.encoded(position)
            return int((image if isinstance(image, np.ndarray) else decode_whole(image)).shape[0])
        except DataError:
            continue
    return 112
