"""A folder of IJB-B or IJB-C as InsightFace publishes it: loose crops, landmarks, templates, pairs and lists for searches.

meta/*_face_tid_mid.txt          picture, template, medium
meta/*_name_5pts_score.txt       picture, x1 y1 ... x5 y5, the detector's score; its lines are those of the former
meta/*_template_pair_label.txt   template, template, 1 for the same person or 0
meta/*_1N_gallery_*.csv, meta/*_1N_probe_mixed.csv   a row of names, then template, subject
loose_crop/                      the pictures
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from attfc_train.data.decode import decode_whole
from attfc_train.data.pool import DecodePool
from attfc_train.data.reading import read_file
from attfc_train.errors import DataError, VerificationSetError
from attfc_train.evaluate.align import aligned
from attfc_train.evaluate.embed import embed_batches, filled
from attfc_train.evaluate.pairs import Bools, Floats
from attfc_train.evaluate.resampling import Integers
from attfc_train.evaluate.scored import Network
from attfc_train.evaluate.templates import Identification, Templates, identify, pool
from attfc_train.files import open_file

_MOST_BYTES: Final = 64 * 1024**2
"""Of a picture."""
_REMEDY: Final = "Give the folder that holds meta/ and loose_crop/ of IJB-B or IJB-C."


@dataclass(frozen=True, slots=True)
class IjbFolder:
    """The lists of a folder. Legend: F pictures, P pairs of templates."""

    root: Path
    pictures: Sequence[str]
    """[F]: names within ``loose_crop``."""
    landmarks: NDArray[np.float64]
    """float64 [F, 5, 2]: x and y of eyes, nose, corners of the mouth, in pixels."""
    detector_score: NDArray[np.float64]
    """float64 [F]."""
    template: Integers
    """int64 [F]."""
    media: Integers
    """int64 [F]."""
    pairs: Integers
    """int64 [P, 2]: templates."""
    same: Bools
    """bool [P]."""


def read_ijb(root: Path) -> IjbFolder:
    """Return the lists of a folder, and check that they agree.

    Raises:
        VerificationSetError: a list is missing, damaged, or does not fit the others.
    """
    names, faces = _table(root, "*_face_tid_mid.txt", names=True)
    same_names, points = _table(root, "*_name_5pts_score.txt", names=True)
    _, pairs = _table(root, "*_template_pair_label.txt", names=False)
    if faces.shape[1] != 2 or points.shape[1] != 11 or pairs.shape[1] != 3:
        got = f"{faces.shape[1]}, {points.shape[1]} and {pairs.shape[1]}"
        raise VerificationSetError("the lists of IJB must have 2, 11 and 3 numbers a line", got, _REMEDY)
    if names != same_names:
        got = f"{len(names):,} and {len(same_names):,} names that differ"
        raise VerificationSetError("the lists of templates and of landmarks must name the same pictures", got, _REMEDY)
    template = faces[:, 0].astype(np.int64)
    strange = np.setdiff1d(pairs[:, :2], template)
    if strange.size:
        got = f"none of template {strange[0]:.0f} and {strange.size - 1:,} others"
        raise VerificationSetError("every template of a pair must have pictures", got, _REMEDY)
    same = pairs[:, 2] == 1
    if not same.any() or same.all():
        got = f"{same.sum():,} and {(~same).sum():,}"
        raise VerificationSetError("there must be pairs of one person and of two", got, _REMEDY)
    media, names_of_pairs = faces[:, 1].astype(np.int64), pairs[:, :2].astype(np.int64)
    return IjbFolder(root, names, points[:, :10].reshape(-1, 5, 2), points[:, 10], template, media, names_of_pairs, same)


def _table(root: Path, pattern: str, *, names: bool) -> tuple[list[str], NDArray[np.float64]]:
    """Return the first column, where it is a name, and the numbers of a list."""
    path = _one(root, pattern)
    try:
        open_file(path).close()  # a pipe or device is refused
        words = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip()] if names else []
        if names:
            table = np.array([[float(word) for word in line[1:]] for line in words], ndmin=2)
        else:
            table = _loaded(path)
    except (OSError, ValueError, IndexError) as error:
        raise VerificationSetError(
            f"'{path}' must be a list of numbers", " ".join(str(error).split())[:120], _REMEDY
        ) from error
    if not table.size or not np.isfinite(table).all():
        raise VerificationSetError(f"'{path}' must be a list of numbers", "nothing, or NaN", _REMEDY)
    return [line[0] for line in words], table


def _loaded(path: Path, **options: Any) -> NDArray[np.float64]:
    """Return a list of numbers, without NumPy's warning about one that has no lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.loadtxt(path, ndmin=2, encoding="utf-8", comments=None, **options)


def _one(root: Path, pattern: str) -> Path:
    """Return the only file of `meta` that fits a pattern."""
    fitting = sorted((root / "meta").glob(pattern))
    if len(fitting) != 1:
        raise VerificationSetError(f"'{root}/meta' must hold one {pattern}", f"{len(fitting)}", _REMEDY)
    return fitting[0]


def embed_templates(network: Network, folder: IjbFolder, on_images: Callable[[int], object] = lambda _: None) -> Templates:
    """Return the templates as `network` sees them; pictures are read, aligned, embedded and forgotten block by block.

    Raises:
        VerificationSetError: a picture cannot be read.
    """
    blocks = _features(network, folder, on_images)
    return pool(blocks, folder.template, folder.media, folder.detector_score)


def _features(network: Network, folder: IjbFolder, on_images: Callable[[int], object]) -> Iterator[Floats]:
    """Yield the sums of both views, float32 [b, D]."""
    count = len(folder.pictures)
    size = min(network.batch_size, count)

    def crop(place: int) -> NDArray[np.uint8]:
        path = folder.root / "loose_crop" / folder.pictures[place]
        try:
            return aligned(decode_whole(read_file(path, _MOST_BYTES)), folder.landmarks[place], network.image_size)
        except DataError as error:
            raise VerificationSetError(f"'{path}' must be a picture", error.got, "Fetch it again.") from error

    with DecodePool() as pool_of_threads:
        for start in range(0, count, size):
            crops = np.stack(pool_of_threads.map(crop, range(start, min(start + size, count))))
            block = torch.from_numpy(crops).permute(0, 3, 1, 2)
            sums, _ = embed_batches(network.module, [filled(block, size).to(network.device)], network.device, network.precision)
            on_images(len(crops))
            yield sums[: len(crops)].cpu().numpy()


def searches(folder: IjbFolder, templates: Templates) -> dict[str, Identification]:
    """Return the 1:N result for each gallery of the folder, by the gallery's file; nothing where there are no lists.

    Raises:
        VerificationSetError: a list is damaged, or names a template without pictures.
    """
    galleries = sorted((folder.root / "meta").glob("*_1N_gallery_*.csv"))
    if not galleries:
        return {}
    probes, probe_subjects = _subjects(_one(folder.root, "*_1N_probe_mixed.csv"), templates)
    results = {}
    for path in galleries:
        gallery, gallery_subjects = _subjects(path, templates)
        results[path.stem] = identify(probes, probe_subjects, gallery, gallery_subjects)
    return results


def _subjects(path: Path, templates: Templates) -> tuple[Floats, Integers]:
    """Return the vectors and subjects of a list, each template once."""
    try:
        table = _loaded(path, delimiter=",", skiprows=1, usecols=(0, 1)).astype(np.int64)
        names, places = np.unique(table[:, 0], return_index=True)
        if not names.size:
            raise ValueError("no lines")
        return templates.vectors[templates.rows(names)], table[places, 1]
    except (OSError, ValueError, IndexError) as error:
        got = " ".join(str(error).split())[:120]
        raise VerificationSetError(f"'{path}' must be a list of template,subject", got, _REMEDY) from error
    except KeyError as error:
        got = f"none of template {error}"
        raise VerificationSetError(f"every template of '{path}' must have pictures", got, _REMEDY) from error
