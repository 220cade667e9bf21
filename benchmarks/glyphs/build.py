"""The whole set in one folder, part by part."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from multiprocessing.pool import Pool, ThreadPool
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import __version__ as pillow_version
from PIL import features

from benchmarks.glyphs.fonts import FOLDERS, HAN, font_files
from benchmarks.glyphs.licences import described
from benchmarks.glyphs.manifest import Document, Manifest, file_sha256
from benchmarks.glyphs.pairs import Pair, genuine, impostors, radical_impostors
from benchmarks.glyphs.parts import write_pairs, write_training_set
from benchmarks.glyphs.render import QUALITY, REVISION, SIZE, Polarity
from benchmarks.glyphs.sheets import write_sheets
from benchmarks.glyphs.split import SIZES, HeldOut, Split, split
from benchmarks.glyphs.survey import LEAST_FACES, Survey, read_survey, survey, write_survey

TEST = "held-out.bin"
HARD = "held-out-hard.bin"
VALIDATION = "validation.bin"
GALLERY = "held-out"
"""All images of the held-out identities as a data set, of which all pairs can be scored."""
NEAREST = "held-out-nearest.bin"

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Settings:
    """All that decides what is made, beside the fonts themselves."""

    folders: Sequence[Path] = FOLDERS
    alphabet: Sequence[range] = HAN
    least_faces: int = LEAST_FACES
    polarity: Polarity = "dark"
    held_out: HeldOut = field(default_factory=HeldOut)
    test_pairs: int = 6000
    validation_pairs: int = 3000


@dataclass(frozen=True)
class Set:
    """A set in a folder: its identities, and what is written of them so far."""

    out: Path
    settings: Settings
    parts: Split
    manifest: Manifest
    say: Say

    def write(self, name: str, path: Path, make: Callable[[], Mapping[str, Any]]) -> None:
        """Make a part that is not there yet."""
        if self.manifest.has(name, path):
            self.say(f"{name}: already there")
            return
        start = time.perf_counter()
        figures = make()
        seconds = time.perf_counter() - start
        self.manifest.add(name, {**figures, "seconds": round(seconds, 1)})
        self.say(f"{name}: {figures['images']:,} images of {figures['identities']:,} identities in {seconds:.0f} s")


def build(out: Path, size: str, settings: Settings, processes: int, say: Say, model: Path | None = None) -> Document:
    """Make a training set and the pairs; return the manifest.

    Args:
        out: the folder of the set.
        size: a key of `split.SIZES`.
        settings: all that decides what is made.
        processes: that draw at the same time; they change nothing else.
        say: is told what was done, a line at a time.
        model: folder of a run, whose model chooses the impostors of one more file.

    Raises:
        SystemExit: the fonts hold too few characters, or the folder holds another set.
    """
    with get_context("spawn").Pool(processes) if processes > 1 else ThreadPool(1) as pool:
        made = opened(out, settings, pool, say)
        _write_all_pairs(made)
        gallery = partial(write_training_set, out / GALLERY, made.parts.test, settings.polarity, pool)
        made.write(GALLERY, out / GALLERY / "train.rec", gallery)
        count = SIZES[size]
        if count is not None and len(made.parts.train) < count:
            say(f"{size}: the fonts hold {len(made.parts.train):,} identities to train on, {count:,} were asked for")
        identities = made.parts.train[:count]
        write = partial(write_training_set, out / size, identities, settings.polarity, pool)
        made.write(size, out / size / "train.rec", write)
        if model is not None:
            _write_nearest(made, model)
    return made.manifest.document


def opened(out: Path, settings: Settings, pool: Pool, say: Say) -> Set:
    """Return a folder's set, whose fonts are surveyed if they are not yet."""
    files = font_files(settings.folders)
    manifest = Manifest(out, _source(files, settings, pool))
    images = _surveyed(out, files, settings, pool, manifest, say)
    return Set(out, settings, split(images, settings.held_out), manifest, say)


def _write_all_pairs(made: Set) -> None:
    """Write every ``.bin`` and the sheets; the genuine pairs of both test files are the same, only the impostors differ."""
    settings = made.settings
    validation = made.parts.validation
    matches = partial(genuine, made.parts.test, settings.test_pairs // 2)
    few = settings.validation_pairs // 2
    _write_pairs(made, VALIDATION, partial(genuine, validation, few), partial(impostors, validation, few))
    _write_pairs(made, TEST, matches, partial(impostors, made.parts.test, settings.test_pairs // 2))
    _write_pairs(made, HARD, matches, partial(radical_impostors, made.parts.test, settings.test_pairs // 2))
    write_sheets(made.out, made.parts, settings.polarity, settings.test_pairs // 2)


def _write_nearest(made: Set, model: Path) -> None:
    """Write the pairs whose impostors a model confuses, with the genuine ones of the other test files."""
    from benchmarks.glyphs.nearest import nearest_impostors

    count = made.settings.test_pairs // 2
    made.manifest.forget(NEAREST)  # another model may have chosen them
    different = partial(nearest_impostors, model, made.parts.test, count, made.settings.polarity)
    _write_pairs(made, NEAREST, partial(genuine, made.parts.test, count), different)


def _write_pairs(made: Set, name: str, same: Callable[[], list[Pair]], different: Callable[[], list[Pair]]) -> None:
    path = made.out / name
    made.write(name, path, lambda: write_pairs(path, same(), different(), made.settings.polarity))


def _surveyed(out: Path, files: Sequence[Path], settings: Settings, pool: Pool, manifest: Manifest, say: Say) -> Survey:
    """Return the survey of the fonts, which a folder keeps."""
    path = out / "survey.npz"
    if "survey" in manifest.document and path.exists():
        return read_survey(path, files)
    start = time.perf_counter()
    images = survey(files, settings.alphabet, pool, settings.least_faces)
    write_survey(path, images)
    counts = np.unique(images.characters, return_counts=True)[1]
    figures = {"characters": counts.size, "images": images.characters.size, "faces": len(images.faces)}
    at_least = {f"characters with at least {least} faces": int((counts >= least).sum()) for least in (3, 4, 10, 20, 40, 80)}
    manifest.document["survey"] = figures | at_least | {"seconds": round(time.perf_counter() - start, 1)}
    manifest.document["fonts"] = described(images.faces)
    manifest.save()
    say(f"{figures['images']:,} images of {figures['characters']:,} characters in {figures['faces']} faces")
    return images


def _source(files: Sequence[Path], settings: Settings, pool: Pool) -> dict[str, Any]:
    """Return all that decides pixels and identities, as JSON values."""
    return {
        "revision": REVISION,
        "image": f"{SIZE} x {SIZE}, JPEG quality {QUALITY}",
        "polarity": settings.polarity,
        "least faces": settings.least_faces,
        "alphabet": [[block.start, block.stop] for block in settings.alphabet],
        "held out": [settings.held_out.test, settings.held_out.validation],
        "pairs": [settings.test_pairs, settings.validation_pairs],
        "libraries": {
            "numpy": np.__version__,
            "pillow": pillow_version,
            "freetype": str(features.version("freetype2")),
            "simplejpeg": simplejpeg.__version__,
        },
        "files": dict(zip([path.name for path in files], pool.map(file_sha256, files), strict=True)),
    }
