"""``attfc-train data coreset``: the images that are worth training on, as an index over their data set."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from attfc_train.api.faces import embed
from attfc_train.commands.data_convert import stopped_by_signals
from attfc_train.commands.data_survey import progress, say
from attfc_train.commands.models import opened
from attfc_train.data.coreset import (
    MOST_PASSES,
    Advance,
    FaceFeatures,
    Int64s,
    check_share,
    found_threshold,
    kept_at_random,
    kept_by_face_nms,
)
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.formats.subset import check_new_subset, write_subset
from attfc_train.data.report import DataReport
from attfc_train.data.source import open_dataset
from attfc_train.errors import UsageError
from attfc_train.evaluate.dataset_features import Proxy, features_of
from attfc_train.run.live_line import busy
from attfc_train.scratch import scratch
from attfc_train.screen import Screen
from attfc_train.units import format_bytes

KEEP: Final = 0.6
"""The share that the paper keeps of WebFace42M."""
_NOTICED: Final = 0.005
"""Share of the images, but 3 at least, from which on it is said that no threshold keeps just as many as wanted."""


@dataclass(frozen=True, slots=True)
class CoresetOptions:
    """The options of the command."""

    output: Path
    model: Path | None = None
    which: str = "best"
    keep: float | None = None
    """Share of the images; None with `threshold`, else `KEEP`."""
    threshold: float | None = None
    """Cosine; None: the one that keeps `keep`."""
    by: str = "nms"
    least: int = 2
    """Images that every identity keeps."""
    seed: int | None = None
    """Of a random choice; None: 0."""
    batch_size: int = 64
    num_workers: int = 0
    device: str = "auto"

    def command(self, spec: str) -> str:
        """Return the command line that makes the same index of a data set."""
        parts = ["attfc-train", "data", "coreset", spec, "--by", self.by, "--least", str(self.least), "-o", str(self.output)]
        parts += ["--seed", str(self.seed or 0)] if self.by == "random" else ["--model", str(self.model), "--which", self.which]
        # As many digits as the number has: another threshold may keep other images.
        parts += ["--keep", repr(self.share)] if self.threshold is None else ["--threshold", repr(self.threshold)]
        return shlex.join(parts)

    @property
    def share(self) -> float:
        """The share to keep, where no threshold is given."""
        return KEEP if self.keep is None else self.keep


def coreset(spec: str, options: CoresetOptions, console: Screen) -> None:
    """Write an index over the images of a data set that are kept.

    Raises:
        UsageError: the options contradict each other, or the output is there already.
        DataError: the data set cannot be opened or read.
        CheckpointError: the model cannot be opened.
        StorageError: the output cannot be written, or the features find no room.
    """
    _check(spec, options)
    with busy(console, "Opening the data set"):
        dataset = open_dataset(spec)
    if options.threshold is None:
        check_share(options.share, dataset.index.counts, options.least)
    say(console, "data set", dataset.name)
    report = DataReport(dataset.name)
    report.merge(dataset.index.report)
    choose = _at_random if options.by == "random" else _by_face_nms
    with stopped_by_signals():
        positions = choose(dataset, options, report, console)
        write_subset(options.output, spec, dataset, positions, made=options.command(spec))
    _say_end(dataset, positions, report, options, console)


def _check(spec: str, options: CoresetOptions) -> None:
    """Refuse options that contradict each other, before anything is loaded."""
    if options.keep is not None and options.threshold is not None:
        got = f"--keep {options.keep:g} and --threshold {options.threshold:g}"
        raise UsageError("either --keep or --threshold decides how many images are kept", got, "Leave one out.")
    if options.by == "random":
        given = [f"--{name}" for name in ("model", "threshold") if getattr(options, name) is not None]
        if given:
            raise UsageError("--by random looks at no image", " and ".join(given), "Leave it out, or give --by nms.")
    elif options.seed is not None:
        raise UsageError("--by nms draws nothing", f"--seed {options.seed}", "Leave it out, or give --by random.")
    elif options.model is None:
        remedy = "Give a run's folder, or a .pt, .safetensors or .onnx file: --model runs/faces."
        raise UsageError("--model must name the network whose features tell faces apart", "none", remedy)
    check_new_subset(options.output, spec)


def _at_random(dataset: FaceDataset, options: CoresetOptions, _report: DataReport, console: Screen) -> Int64s:
    say(console, "chosen", f"at random, seed {options.seed or 0}")
    return kept_at_random(dataset.index, options.share, options.least, options.seed or 0)


def _by_face_nms(dataset: FaceDataset, options: CoresetOptions, report: DataReport, console: Screen) -> Int64s:
    """Return the positions of the images that Face-NMS keeps, once their features lie in a temporary folder."""
    assert options.model is not None, "checked"
    encoder = opened(options.model, options.which, options.device)
    say(console, "features", f"{encoder.embedding_size} numbers a face, by {encoder.source}")
    proxy = Proxy(
        partial(embed, encoder, batch_size=options.batch_size),
        encoder.image_size,
        encoder.embedding_size,
        options.batch_size,
        options.num_workers,
    )
    num_images = dataset.index.num_images
    with scratch() as temporary:
        with progress(console, num_images, "features") as advance:
            features = features_of(dataset, proxy, temporary.folder, report, advance)
        threshold = options.threshold
        if threshold is None:
            check_share(options.share, np.diff(features.offsets), options.least)
            threshold = _searched(features, options, console)
        with progress(console, num_images, "choosing") as advance:
            positions = kept_by_face_nms(features, threshold, options.least, advance)
        _say_threshold(features, positions, threshold, options, console)
        return positions


def _searched(features: FaceFeatures, options: CoresetOptions, console: Screen) -> float:
    """Return the threshold for the share that is to be kept; each pass has its bar."""
    with ExitStack() as bars:

        def next_pass(number: int) -> Advance:
            bars.close()
            what = f"threshold, pass {number} of {MOST_PASSES} at most"
            return bars.enter_context(progress(console, features.positions.size, what))

        return found_threshold(features, options.share, options.least, next_pass)


def _say_threshold(
    features: FaceFeatures, positions: Int64s, threshold: float, options: CoresetOptions, console: Screen
) -> None:
    num_images = features.positions.size
    missed = abs(positions.size - options.share * num_images)
    if options.threshold is not None:
        how = " (--threshold)"
    elif missed <= max(3, _NOTICED * num_images):
        how = f", found for --keep {options.share:g}"
    else:
        how = f", the nearest to --keep {options.share:g} that one threshold comes, as when many faces are equal"
    say(console, "threshold", f"cosine {threshold:.6g}{how}")


def _say_end(dataset: FaceDataset, positions: Int64s, report: DataReport, options: CoresetOptions, console: Screen) -> None:
    index = dataset.index
    counts = np.bincount(index.labels[positions], minlength=index.num_ids)
    left = counts[counts > 0]
    for place, line in enumerate(report.lines()):
        say(console, "" if place else "passed over", line)
    share = positions.size / index.num_images
    say(console, "kept", f"{positions.size:,} of {index.num_images:,} images ({share:.1%})")
    people = f"{left.size:,} of {index.num_ids:,}" if left.size < index.num_ids else f"all {index.num_ids:,}"
    spread = f"{left.min():,} to {left.max():,} images each, median {np.median(left):g}"
    say(console, "identities", f"{people}, with {spread} (--least {options.least})")
    size = format_bytes(options.output.stat().st_size)
    say(console, "written", f"{options.output}: {size}, an index; no image is copied")
    command = shlex.join(["attfc-train", "--preset", "attfc", "--data", str(options.output), "--output", "runs/coreset"])
    console.print(f"\nTrain on it: {command}", soft_wrap=True)
