"""``attfc-train data cluster``: who is who among faces without labels, as an index that a training takes for a data set."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from attfc_train.cluster.online import OnlineClustering
from attfc_train.cluster.scores import Score, bcubed, pairwise
from attfc_train.cluster.settings import ClusterSettings
from attfc_train.cluster.state import AnotherClusteringError, Key, Progress, load_progress, save_progress
from attfc_train.commands.cluster_streams import FeatureStream, ImageStream, Stream
from attfc_train.commands.data_survey import progress, say
from attfc_train.data.formats.subset import check_new_subset, write_subset
from attfc_train.data.source import open_source
from attfc_train.errors import DataError, Interrupted, UsageError
from attfc_train.export.model_file import Encoder
from attfc_train.interrupt import StopFlag
from attfc_train.run.live_line import busy
from attfc_train.screen import Screen
from attfc_train.units import Seconds

FEATURES: Final = ".npz"
_SAVE_EVERY: Final[Seconds] = 60.0
_SAVING_SHARE: Final = 20
"""Saving takes at most one of so many seconds."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The options of the command."""

    output: Path
    settings: ClusterSettings
    min_images: int = 2
    truth: bool = False
    model: Path | None = None
    which: str = "best"
    """These two for the record of how the index was made."""


def cluster(spec: str, encoder: Callable[[], Encoder], options: ClusterOptions, device: torch.device, console: Screen) -> None:
    """Write an index over the images of a data set, in which each identity is one that was found.

    Args:
        spec: a data set, whose labels are not looked at; a folder of loose images; or an ``.npz`` file of features.
        encoder: opens the model; not called for a file of features.

    Raises:
        UsageError: the options do not go with the data.
        DataError: the data cannot be read, or no two identities are found.
        CheckpointError: the model or the saved state cannot be used.
        StorageError: the index or the state cannot be written.
        Interrupted: by a signal, once the state is saved.
    """
    with busy(console, "Opening the data set"):
        stream = _stream(spec, encoder, options)
    say(console, "data set", f"{stream.dataset.name}, {stream.size:,} images")
    for line in stream.dataset.index.report.lines():
        say(console, "passed over", line)
    state = options.output.with_name(f"{options.output.name}.state")
    done = _clustered(stream, state, options.settings, device, console)
    labels = done.clustering.labels()
    _show_clusters(stream, done, labels, console)
    positions = stream.positions(done.places)
    if options.truth:
        _show_scores(labels, stream.dataset.index.labels[positions], console)
    kept = _kept(labels, options, console)
    write_subset(options.output, stream.source, stream.dataset, positions[kept], labels[kept], _command(spec, options))
    state.unlink(missing_ok=True)
    say(console, "wrote", f"{options.output}")
    say(console, "look at it", f"attfc-train data info {options.output} -o montage.png")


def _stream(spec: str, encoder: Callable[[], Encoder], options: ClusterOptions) -> Stream:
    """Return the embeddings, once the output and --truth are known to make sense."""
    stream: Stream
    if Path(spec).suffix.lower() == FEATURES:
        check_new_subset(options.output, "")
        stream = FeatureStream(Path(spec).expanduser())
        _check_truth(stream.dataset.index.num_ids, stream.dataset.index.num_images, options)
        return stream
    check_new_subset(options.output, spec)
    dataset = open_source(spec)
    _check_truth(dataset.index.num_ids, dataset.index.num_images, options)
    return ImageStream(spec, dataset, encoder())


def _check_truth(num_ids: int, num_images: int, options: ClusterOptions) -> None:
    if options.truth and num_ids == num_images:
        rule = "--truth needs a data set that knows who is who"
        raise UsageError(rule, f"{num_images:,} images without labels, or one of each person", "Leave out --truth.")


def _clustered(stream: Stream, path: Path, settings: ClusterSettings, device: torch.device, console: Screen) -> Progress:
    """Return the clustering of the whole stream; what an earlier call has saved is not done again."""
    key: Key = {**stream.key(), "settings": asdict(settings)}
    done = _begun(stream, path, key, settings, device)
    if done.next_place:
        say(console, "goes on", f"behind image {done.next_place:,}, from {path}")
    places = [done.places]
    start = done.next_place
    saving = _Saving(path, key)
    with progress(console, stream.size - start, "clustering") as advance, StopFlag() as stop:
        for chunk in stream.chunks(start):
            done.clustering.add(chunk.features)
            places.append(chunk.places)
            advance(chunk.stop - start)
            start = chunk.stop
            if stop.received is not None:
                break
            saving.if_due(done.clustering, start, places)
        done = saving.now(done.clustering, start, places)
    if stop.received is not None and start < stream.size:
        stopped = f"Stopped behind image {start:,} of {stream.size:,}, saved in {path}"
        raise Interrupted(stop.received, stopped, "Continue: the same command again.")
    return done


def _begun(stream: Stream, path: Path, key: Key, settings: ClusterSettings, device: torch.device) -> Progress:
    """Return what an earlier call has saved, or a beginning; what is saved of another clustering may go if it had ended."""
    if path.exists():
        try:
            return load_progress(path, key, settings, device)
        except AnotherClusteringError as error:
            if error.next_place < stream.size:
                raise
    return Progress(OnlineClustering(settings, stream.width, device), 0, np.empty(0, np.int64))


class _Saving:
    """Saves a clustering every minute, or less often where that takes long."""

    def __init__(self, path: Path, key: Key) -> None:
        self._path = path
        self._key = key
        self._due = time.monotonic() + _SAVE_EVERY

    def if_due(self, clustering: OnlineClustering, next_place: int, places: list[NDArray[np.int64]]) -> None:
        """Save if it is time."""
        if time.monotonic() >= self._due:
            self.now(clustering, next_place, places)

    def now(self, clustering: OnlineClustering, next_place: int, places: list[NDArray[np.int64]]) -> Progress:
        """Save, and return what was saved."""
        begin = time.monotonic()
        done = Progress(clustering, next_place, np.concatenate(places))
        save_progress(self._path, done, self._key)
        end = time.monotonic()
        self._due = end + max(_SAVE_EVERY, _SAVING_SHARE * (end - begin))
        return done


def _show_clusters(stream: Stream, done: Progress, labels: NDArray[np.int64], console: Screen) -> None:
    for line in stream.report.lines():
        say(console, "found", line)
    left_out = stream.size - labels.size
    lost = f" ({left_out:,} left out)" if left_out else ""
    found = int(labels.max(initial=-1)) + 1
    say(console, "clustered", f"{labels.size:,} images{lost}: {done.clustering.num_clusters:,} clusters, {found:,} identities")


def _show_scores(labels: NDArray[np.int64], truth: NDArray[np.signedinteger], console: Screen) -> None:
    """Show how the identities that were found agree with the data set's own, before any is dropped."""

    def text(score: Score) -> str:
        return f"F {score.f:.4f} (precision {score.precision:.4f}, recall {score.recall:.4f})"

    say(console, "true identities", f"{np.unique(truth).size:,}")
    say(console, "pairwise", text(pairwise(labels, truth)))
    say(console, "BCubed", text(bcubed(labels, truth)))


def _kept(labels: NDArray[np.int64], options: ClusterOptions, console: Screen) -> NDArray[np.bool_]:
    """Return which images are of an identity that is large enough.

    Raises:
        DataError: they are of fewer than two.
    """
    counts = np.bincount(labels)
    large = counts >= options.min_images
    kept: NDArray[np.bool_] = large[labels]
    dropped = int(np.count_nonzero(~large))
    if dropped:
        fewer = f"with fewer than {options.min_images:,} images (--min-images)"
        say(console, "dropped", f"{np.count_nonzero(~kept):,} images of {dropped:,} identities {fewer}")
    if counts.size - dropped < 2:
        rule = f"at least 2 identities must have --min-images {options.min_images:,} images"
        got = f"{counts.size - dropped} of {counts.size:,} found at --threshold {options.settings.fuse:g}"
        raise DataError(rule, got, "Give another --threshold (larger: fewer identities), or a better model.")
    sizes = counts[large]
    each = f"{sizes.min():,} to {sizes.max():,}, median {np.median(sizes):g}"
    say(console, "kept", f"{np.count_nonzero(kept):,} images of {sizes.size:,} identities, {each} images each")
    return kept


def _command(spec: str, options: ClusterOptions) -> str:
    """Return the command that makes the index, with everything that decides what is in it."""
    settings = options.settings
    distances = {"threshold": settings.fuse, "connect": settings.connect, "connect-weak": settings.connect_weak}
    sizes = {"robust": settings.robust, "connections": settings.connections, "min-images": options.min_images}
    # As many digits as a number has: faces just as near would else be taken otherwise.
    values = [word for name, value in {**distances, **sizes}.items() for word in (f"--{name}", repr(value))]
    model = [] if options.model is None else ["--model", str(options.model), "--which", options.which]
    return shlex.join(["attfc-train", "data", "cluster", spec, "-o", str(options.output), *model, *values])
