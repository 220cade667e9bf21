"""``attfc-train data convert``, ``pack`` and ``unpack``: the images of a data set, as they are, in another format."""

from __future__ import annotations

import signal
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
from attfc_train.data.formats.writers import Images, Target, WriteOptions, target_of, written_root
from attfc_train.data.pool import DecodePool
from attfc_train.data.reading import persistently
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, Interrupted, UsageError
from attfc_train.interrupt import stop_signals
from attfc_train.run.live_line import busy
from attfc_train.screen import Screen

_CHUNK: Final = 256
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
    output = options.output.expanduser()
    target = target_of(output)
    layout = _layout(target, options.layout)
    _check_output(output)
    with busy(console, "Opening the data set"):
        dataset = open_dataset(spec)
    index = dataset.index
    order = index.members
    labels = index.original_labels[index.labels[order]]
    with _stopped_by_signals(), progress(console, order.size, "writing") as advance:
        images = Images(labels, encoded_images(dataset, order, advance))
        target.write(output, images, WriteOptions(layout, options.shard_images, _side(dataset)))
    for line in index.report.lines():
        console.print(line, soft_wrap=True)
    root = written_root(output)
    console.print(f"Wrote {root}: {order.size:,} images of {index.num_ids:,} identities.", soft_wrap=True)
    console.print(f"Look at them: attfc-train data info {root} -o montage.png", soft_wrap=True)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Raise `Interrupted` where a signal comes, so that what is half written is removed; the main thread calls this."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number, "Stopped; nothing has been written", "Start it again.")

    former = {number: signal.signal(number, stop) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _layout(target: Target, chosen: str | None) -> str:
    """Return the layout to write.

    Raises:
        UsageError: the format has none of this name.
    """
    if chosen is None:
        return target.layouts[0] if target.layouts else ""
    if chosen in target.layouts:
        return chosen
    known = " or ".join(target.layouts) or "left out"
    raise UsageError(f"--layout of {target.help} must be {known}", f"'{chosen}'", "Choose another one, or another --output.")


def _check_output(output: Path) -> None:
    """Refuse what is there already, and would be lost or mixed.

    Raises:
        UsageError: there is a file, or a folder that is not empty.
    """
    root = written_root(output)
    beside = [output.with_suffix(".idx"), output.with_name("property")] if output.suffix.lower() == ".rec" else []
    for path in (root, *beside):
        if path.is_dir() and root is path and output.suffix.lower() in ("", ".lmdb", ".tar") and not any(path.iterdir()):
            continue
        if path.exists() or path.is_symlink():
            folder = " (shards are written into a folder of their own)" if root != output else ""
            rule = f"--output must be new, and its folder without other records{folder}"
            raise UsageError(rule, f"'{path}', which exists", "Choose another name, or remove it.")


def encoded_images(dataset: FaceDataset, order: NDArray[np.signedinteger], advance: Callable[[int], None]) -> Iterator[bytes]:
    """Yield the images' files in an order of positions; pixels that nobody encoded become PNG, which loses nothing."""

    def content(position: int) -> bytes:
        image = persistently(lambda: dataset.encoded(position))
        return png(image) if isinstance(image, np.ndarray) else image

    with DecodePool() as pool:
        for start in range(0, order.size, _CHUNK):
            part = order[start : start + _CHUNK].tolist()
            yield from pool.map(content, part)
            advance(len(part))


def _side(dataset: FaceDataset) -> int:
    """Return the height of the first image that can be decoded, which RecordIO's ``property`` names."""
    for position in range(min(dataset.index.num_images, _TRIED)):
        try:
            image = dataset.encoded(position)
            return int((image if isinstance(image, np.ndarray) else decode_whole(image)).shape[0])
        except DataError:
            continue
    return 112
