"""``attfc-train data split``: people held out of a data set as a verification ``.bin`` file, and the others for training."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.commands.data_convert import ConvertOptions, encoded_image, remove_left, stopped_by_signals
from attfc_train.commands.data_select import check_selection_output, is_index, write_selection
from attfc_train.commands.data_survey import progress, say
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.decode import decode_whole
from attfc_train.data.formats.twins import is_of_opening
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.in_order import results_in_order
from attfc_train.data.reading import UnreadableError
from attfc_train.data.source import open_dataset
from attfc_train.data.survey.shared import shared_images
from attfc_train.errors import DataError, UsageError
from attfc_train.evaluate.bins import MAX_FILE_BYTES, write_bin
from attfc_train.evaluate.fold_pairs import DEFAULT_PAIRS, FoldPairs, drawn_folds, held_out
from attfc_train.evaluate.pairs import NUM_FOLDS
from attfc_train.run.live_line import busy
from attfc_train.screen import Screen
from attfc_train.units import format_bytes, parse_count

_BIN: Final = ".bin"
_STEP: Final = 2 * NUM_FOLDS
_SHARE: Final = re.compile(r"(\d{1,3}(?:\.\d{1,9})?) ?%", re.ASCII)
_RULE: Final = "--ids must be a number of identities from 2 on, or a share of them in percent, between 0 and 100"
_EXAMPLES: Final = "Examples: --ids 5%, --ids 2000."


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """The options of the command."""

    output: Path
    """What is left for training: a `.subset` file, or anything that is written as a copy."""
    val: Path
    ids: str = "5%"
    """Of the identities, a number or a share."""
    pairs: int | None = None
    """None: 6,000, or as many as there are."""
    seed: int = 0

    def command(self, spec: str) -> str:
        """Return the command line that makes the same split."""
        parts = ["attfc-train", "data", "split", spec, "-o", str(self.output), "--val", str(self.val), "--ids", self.ids]
        parts += [] if self.pairs is None else ["--pairs", str(self.pairs)]
        return shlex.join([*parts, "--seed", str(self.seed)])


def split(spec: str, options: SplitOptions, console: Screen) -> None:
    """Write pairs of people who are held out, and the data set without these people.

    Raises:
        UsageError: an option makes no sense, an output is there already, or there are not so many identities.
        DataError: the data set cannot be opened or read, or there are not as many pairs.
        StorageError: an output cannot be written.
        Interrupted: a signal came; nothing is left behind.
    """
    _check(spec, options)
    with busy(console, "Opening the data set"):
        dataset = open_dataset(spec)
    index = dataset.index
    num = num_held_out(options.ids, index.num_ids)
    held_out(index, num, options.seed)  # refuses what cannot be before all images are read
    with stopped_by_signals():
        with progress(console, index.num_images, "comparing images") as advance:
            shared = shared_images(dataset, advance)
        repeated = shared.repeats.others.astype(np.int64)
        people = held_out(index, num, options.seed, repeated, shared.people(index))
        read = _Read(dataset)
        with progress(console, options.pairs or DEFAULT_PAIRS, "reading pairs") as advance:
            read.advance = advance
            pairs = drawn_folds(index, people, options.pairs, options.seed, read.are_good, repeated)
        _write_bin(options.val.expanduser(), pairs, read)
        try:
            num_images = _write_rest(spec, dataset, people, options, console)
        except BaseException:
            with contextlib.suppress(OSError):
                options.val.expanduser().unlink(missing_ok=True)
            raise
    _say_end(dataset, people, pairs, read, options, console)
    if shared.others.size:
        say(console, "kept together", f"{shared.line(dataset)}; all of them stay for training")
    what = "an index; no image is copied" if is_index(ConvertOptions(options.output)) else "a copy, labels numbered from 0"
    num_left = index.num_ids - people.size
    say(console, "for training", f"{options.output}: {num_images:,} images of {num_left:,} identities, {what}")
    command = shlex.join(["attfc-train", "--preset", "attfc", "--data", str(options.output), "--val", str(options.val)])
    console.print(f"\nTrain on it: {command}", soft_wrap=True)


def num_held_out(ids: str, num_ids: int) -> int:
    """Return the number of identities that ``5%`` or ``2000`` means; a share gives 2 at least.

    Raises:
        UsageError: it is neither.
    """
    share = _SHARE.fullmatch(ids.strip())
    if share is not None and 0 < float(share[1]) < 100:
        return max(2, round(float(share[1]) / 100 * num_ids))
    try:
        number = 0 if share is not None else parse_count(ids)
    except ValueError as error:
        raise UsageError(_RULE, f"'{ids}'", _EXAMPLES) from error
    if number < 2:
        raise UsageError(_RULE, f"'{ids}'", _EXAMPLES)
    return number


def _check(spec: str, options: SplitOptions) -> None:
    num_held_out(options.ids, 2)
    val = options.val.expanduser()
    if val.suffix.lower() != _BIN:
        raise UsageError("--val of data split must be a .bin file", f"'{options.val}'", "Example: --val faces.bin.")
    if val.exists() or val.is_symlink():
        raise UsageError("--val must be a new file", f"'{val}', which exists", "Choose another name, or remove it.")
    if options.pairs is not None and options.pairs % _STEP:
        rule = f"--pairs must be a multiple of {_STEP}: {NUM_FOLDS} folds, each half pairs of one person"
        near = max(_STEP, round(options.pairs / _STEP) * _STEP)
        raise UsageError(rule, f"{options.pairs}", f"Give --pairs {near}.")
    check_selection_output(spec, ConvertOptions(options.output))
    remove_left(val)


class _Read:
    """The images of pairs, which are read once."""

    def __init__(self, dataset: FaceDataset) -> None:
        self._dataset = dataset
        self._images: dict[int, bytes] = {}
        self.advance: Callable[[int], object] = lambda _: None
        self.example = ""
        """Of the images that cannot be decoded."""

    def are_good(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which images can be decoded, bool [n]; these are kept."""
        good = np.zeros(positions.size, dtype=np.bool_)
        for place, block in results_in_order(positions, self._block):
            good[place] = [image is not None for image in block]
            pairs = zip(positions[place].tolist(), block, strict=True)
            self._images.update((position, image) for position, image in pairs if image is not None)
            self.advance(len(block) // 2)
        if not good.all() and not self.example:
            self.example = self._dataset.locate(int(positions[~good][0]))
        return good

    def _block(self, positions: list[int]) -> list[bytes | None]:
        return [self._image(position) for position in positions]

    def _image(self, position: int) -> bytes | None:
        try:
            image = encoded_image(self._dataset, position)
            decode_whole(image)
        except UnreadableError:
            raise
        except DataError:
            return None
        return image

    def images(self, positions: list[int]) -> list[bytes]:
        """Return images that were read."""
        return [self._images[position] for position in positions]


def _write_bin(path: Path, pairs: FoldPairs, read: _Read) -> None:
    positions = pairs.positions.reshape(-1)
    size = sum(map(len, read.images(np.unique(positions).tolist())))
    if size > MAX_FILE_BYTES:
        rule = f"'{path}' must not be larger than {format_bytes(MAX_FILE_BYTES)}"
        raise UsageError(rule, format_bytes(size), "Ask for fewer --pairs.")
    write_bin(path, read.images(positions.tolist()), pairs.same)


def _write_rest(spec: str, dataset: FaceDataset, people: NDArray[np.int64], options: SplitOptions, console: Screen) -> int:
    """Write all images of the people who are not held out; return their number."""
    index = dataset.index
    members = np.asarray(index.members)
    order = members[~_among(people, index)[index.labels[members]]]
    target = ConvertOptions(options.output)
    identities = index.labels[order]
    if is_index(target):  # it keeps the labels of the data set, as any index that does not need others
        labels = None
    else:
        labels = np.cumsum(np.diff(identities, prepend=identities[:1]) != 0, dtype=np.int64)
    write_selection(spec, dataset, order, labels, target, options.command(spec), console)
    return int(order.size)


def _among(people: NDArray[np.int64], index: IdentityIndex) -> NDArray[np.bool_]:
    """Return which identities are held out, bool [num_ids]."""
    held = np.zeros(index.num_ids, dtype=np.bool_)
    held[people] = True
    return held


def _say_end(
    dataset: FaceDataset, people: NDArray[np.int64], pairs: FoldPairs, read: _Read, options: SplitOptions, console: Screen
) -> None:
    index = dataset.index
    say(console, "data set", dataset.name)
    for place, line in enumerate(line for line in index.report.lines() if not is_of_opening(line)):
        say(console, "" if place else "passed over", line)
    images = int(index.counts[people].sum())
    held = (
        f"{people.size:,} of {index.num_ids:,} identities with {images:,} images (--ids {options.ids}, --seed {options.seed})"
    )
    say(console, "held out", held)
    if pairs.undecodable.size:
        example = (
            f"{pairs.undecodable.size:,} images that cannot be decoded were drawn, e.g. {read.example}: others took their place"
        )
        say(console, "", example)
    num_pairs = pairs.same.size
    folds = f"{NUM_FOLDS} folds of {num_pairs // _STEP:,} pairs of one person and as many of two"
    shares = "people stand in several folds" if pairs.shares_people else "nobody is in two folds"
    fewer = f"; there are no more in equal folds, of {DEFAULT_PAIRS:,}: hold out more with --ids"
    is_fewer = options.pairs is None and num_pairs < DEFAULT_PAIRS
    say(console, "for verification", f"{options.val}: {num_pairs:,} pairs, {folds}; {shares}{fewer if is_fewer else ''}")
