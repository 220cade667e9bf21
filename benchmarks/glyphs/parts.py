"""Parts of the set as files: training images as RecordIO, pairs as ``.bin``; both are rendered as they are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np

from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.evaluate.bins import write_bin
from benchmarks.glyphs.manifest import file_sha256
from benchmarks.glyphs.pairs import Pair
from benchmarks.glyphs.render import SIZE, Polarity, encoded, encoded_all
from benchmarks.glyphs.survey import Identity

_CHUNK = 32
"""Identities that a process renders at a time."""


def write_training_set(folder: Path, identities: Sequence[Identity], polarity: Polarity, pool: Pool) -> dict[str, Any]:
    """Write ``train.rec``, ``train.idx`` and ``property`` with these identities as labels 0, 1, ...; return their figures."""
    path = folder / "train.rec"
    counts = np.array([len(identity.faces) for identity in identities])
    images = _in_parallel(identities, polarity, pool)
    write_recordio(path, np.repeat(np.arange(len(identities)), counts), images, side=SIZE)
    quantiles = np.quantile(counts, [0, 0.5, 1]).tolist()
    figures = {"identities": len(identities), "images": int(counts.sum())}
    return figures | dict(zip(("fewest images", "median images", "most images"), quantiles, strict=True)) | _file_figures(path)


def write_pairs(path: Path, genuine: Sequence[Pair], impostors: Sequence[Pair], polarity: Polarity) -> dict[str, Any]:
    """Write genuine and impostor pairs in turn, as many of each, so that each fold is balanced; return their figures."""
    pairs = [pair for both in zip(genuine, impostors, strict=True) for pair in both]
    glyphs = [glyph for pair in pairs for glyph in pair]
    files = {glyph: encoded(glyph.face, glyph.character, polarity) for glyph in dict.fromkeys(glyphs)}
    write_bin(path, [files[glyph] for glyph in glyphs], np.tile([True, False], len(genuine)))
    characters = {glyph.character for glyph in glyphs}
    return {"identities": len(characters), "images": len(files), "pairs": len(pairs)} | _file_figures(path)


def _in_parallel(identities: Sequence[Identity], polarity: Polarity, pool: Pool) -> Iterator[bytes]:
    """Yield the images of all identities in order."""
    starts = range(0, len(identities), _CHUNK)
    chunks = ([(one.character, one.faces) for one in identities[start : start + _CHUNK]] for start in starts)
    return chain.from_iterable(pool.imap(partial(encoded_all, polarity=polarity), chunks))


def _file_figures(path: Path) -> dict[str, Any]:
    """Return the size and the digest of a file."""
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
