"""What ``attfc-train data cluster`` takes its embeddings from: images that a model looks at, or a file of features."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attfc_train.cluster.features import FeatureFile
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.report import DataReport, shown
from attfc_train.data.source import open_source
from attfc_train.errors import DataError
from attfc_train.evaluate.dataset_features import decoded
from attfc_train.evaluate.embed import embed
from attfc_train.export.model_file import Encoder

_BATCH: Final = 64
"""Images between two moments at which a stream can stop: some seconds on a CPU."""
_ROWS: Final = 256
_UNDECODABLE: Final = "images that cannot be decoded, left out"
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next embeddings of a stream."""

    stop: int
    """Place after the last one that was looked at."""
    places: NDArray[np.int64]
    """int64 [n]: where in the stream these are; what is left out is missing."""
    features: NDArray[np.floating]
    """[n, D], of any length."""


class Stream(Protocol):
    """Embeddings of images in an order; the same from any place on as from the beginning."""

    @property
    def source(self) -> str:
        """The data set that the images are in, as it is opened."""
        ...

    @property
    def dataset(self) -> FaceDataset:
        """That data set."""
        ...

    @property
    def size(self) -> int:
        """Places."""
        ...

    @property
    def width(self) -> int:
        """D."""
        ...

    @property
    def report(self) -> DataReport:
        """What has been left out so far."""
        ...

    def key(self) -> dict[str, Any]:
        """Return what tells this stream from any other."""
        ...

    def chunks(self, start: int) -> Iterator[Chunk]:
        """Yield the embeddings from a place on at which a chunk begins or ends."""
        ...

    def positions(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where in the data set the images at these places are."""
        ...


class ImageStream:
    """The images of a data set in its order, embedded as they come; no more than a few batches of them are ever held."""

    def __init__(self, source: str, dataset: FaceDataset, encoder: Encoder) -> None:
        self.source = source
        self.dataset = dataset
        self.size = dataset.index.num_images
        self.width = encoder.embedding_size
        self.report = DataReport(dataset.name)
        self._encoder = encoder

    def key(self) -> dict[str, Any]:
        """Return digests of the data set and of the model's file."""
        return {"data": self.dataset.index.digest(), "model": _digest(self._encoder.source)}

    def chunks(self, start: int) -> Iterator[Chunk]:
        """Yield the embeddings; chunks and batches are cut at the same places whenever it starts.

        Raises:
            UnreadableError: an image cannot be read, not even some seconds later.
        """
        with closing(decoded(self.dataset, range(start, self.size), _BATCH, self._encoder.image_size)) as batches:
            for places, images, replaced in batches:
                for place, reason in replaced.items():
                    self.report.count(_UNDECODABLE, 1, f"{self.dataset.locate(place)} ({reason})")
                kept = ~np.isin(places, list(replaced))
                yield Chunk(int(places[-1]) + 1, places[kept], self._features(images[torch.from_numpy(kept)]))

    def positions(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return `places`."""
        return places

    def _features(self, images: Tensor) -> NDArray[np.floating]:
        if not len(images):
            return np.empty((0, self.width), np.float32)
        encoder = self._encoder
        return embed(encoder.network, images, batch_size=_BATCH, device=encoder.device).embeddings


class FeatureStream:
    """The rows of a file of features, whose images are in the folder that is common to all of them.

    Raises:
        DataError: the file, or the folder, cannot be read, or the folder does not have an image of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = FeatureFile(path)
        self.size = self._file.num_images
        self.width = self._file.width
        names = [os.path.abspath(name) for name in self._file.files.tolist()]
        self.source = os.path.commonpath({os.path.dirname(name) for name in names})
        self.dataset = open_source(self.source)
        self.report = DataReport(self.dataset.name)
        places = {self.dataset.locate(position): position for position in range(self.dataset.index.num_images)}
        found = [places.get(shown(name), -1) for name in names]
        if -1 in found:
            missing = names[found.index(-1)]
            rule = f"the images of '{path}' must be in '{self.source}', each once"
            raise DataError(
                rule, f"{found.count(-1):,} that are not, e.g. '{missing}'", "Embed that folder: attfc-train embed."
            )
        if len(set(found)) < len(found):
            raise DataError(f"'{path}' must have each image once", f"{len(found) - len(set(found)):,} again", "Embed it anew.")
        self._positions = np.array(found, np.int64)

    def key(self) -> dict[str, Any]:
        """Return digests of the data set and of the file."""
        return {"data": self.dataset.index.digest(), "features": _digest(self._path)}

    def chunks(self, start: int) -> Iterator[Chunk]:
        """Yield the rows, in the order of the file."""
        for features in self._file.rows(start, _ROWS):
            stop = start + len(features)
            yield Chunk(stop, np.arange(start, stop), features)
            start = stop

    def positions(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of the rows' images."""
        positions: NDArray[np.int64] = self._positions[places]
        return positions


def _digest(path: Path) -> str:
    """Return 32 hexadecimal digits of a file's content."""
    state = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()
