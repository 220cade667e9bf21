"""Reading from a disk that holds nothing in memory: a person's images together, or shuffled; a part of `benchmarks.loader`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.dataset import FaceDataset, together
from attfc_train.data.formats.recordio import RecordIOFaces
from attfc_train.data.formats.recordio_writer import write_headerless
from attfc_train.data.loader import AttentionLoader
from attfc_train.data.sampling.sampler import AttentionSampler
from attfc_train.data.source import open_dataset
from benchmarks.provenance import quantiles

BATCH = 128
SIZE = 112
REFERENCES = (0, 1, 3)
NAMES = ("grouped", "shuffled")


def write_copies(dataset: FaceDataset, path: Path, copies: int, shuffled: bool) -> None:
    """Write every image so many times as im2rec's layout has it, each copy of a person another identity."""
    index = dataset.index
    places = np.arange(copies * index.num_images)
    if shuffled:
        places = np.random.default_rng(1).permutation(places)
    copy, member = np.divmod(places, index.num_images)
    positions = index.members[member]
    labels = copy * index.num_ids + index.labels[positions]

    def contents() -> Iterator[bytes]:
        for position in positions.tolist():
            content = dataset.encoded(position)
            assert isinstance(content, bytes), "the benchmark needs encoded images"
            yield content

    write_headerless(path, labels, contents())


def forget(path: Path) -> None:
    """Ask the system to forget what it has of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_rate(dataset: FaceDataset, num_references: int, first_step: int, seconds: float) -> float:
    """Return images/s of one thread that reads batches, neighbours together, and decodes nothing."""
    sampler = AttentionSampler(dataset.index, 1, BATCH, num_references)
    reader = together(dataset)
    images = 0
    since = time.perf_counter()
    while time.perf_counter() - since < seconds:
        draw = sampler.draw_step(first_step)
        positions = np.sort(np.concatenate([draw.query[None], draw.references]).reshape(-1))
        for part in np.array_split(positions, len(positions) // 32):
            reader.encoded_together(part)
        images += positions.size
        first_step += 1
    return images / (time.perf_counter() - since)


def load_rate(dataset: FaceDataset, num_references: int, first_step: int, seconds: float) -> float:
    """Return images/s of the training's loader."""
    sampler = AttentionSampler(dataset.index, 1, BATCH, num_references)
    loader = AttentionLoader(dataset, sampler, SIZE)
    images = 0
    batches = loader.batches(first_step, 10**9)
    since = time.perf_counter()
    for batch in batches:
        images += batch.flips.numel()
        if time.perf_counter() - since > seconds:
            break
    elapsed = time.perf_counter() - since
    batches.close()
    return images / elapsed


def ratios(ones: list[float], others: list[float]) -> list[float]:
    """Return the ratio of each round."""
    return [one / other for one, other in zip(ones, others, strict=True)]


def cold_rates(dataset: FaceDataset, folder: Path, copies: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Write both files, return the figures of reading and of loading them by R, and print them as a table."""
    paths = {name: folder / f"{name}.rec" for name in NAMES}
    for name, path in paths.items():
        if not path.exists():
            write_copies(dataset, path, copies, name == "shuffled")
    opened = {name: open_dataset(str(path)) for name, path in paths.items()}
    print("\n| cold | R | grouped, images/s | shuffled, images/s | gain |\n|---|---|---|---|---|")
    figures: dict[str, Any] = {}
    for what, measure in (("reading, one thread", read_rate), ("loader", load_rate)):
        for references in REFERENCES:
            rates: dict[str, list[float]] = {name: [] for name in NAMES}
            for number in range(rounds):
                for name in NAMES:
                    forget(paths[name])
                    rates[name].append(measure(opened[name], references, number * 10_000, seconds))
            gain = quantiles(ratios(*(rates[name] for name in NAMES)))
            figures[f"{what}, R = {references}"] = {**{name: quantiles(rates[name]) for name in NAMES}, "gain": gain}
            middles = " | ".join(f"{np.median(rates[name]):,.0f}" for name in NAMES)
            print(
                f"| {what} | {references} | {middles} | {gain['p50']:.2f} ({gain['p20']:.2f} to {gain['p80']:.2f}) |",
                flush=True,
            )
    figures["hints"] = _hints(paths["shuffled"], rounds, seconds)
    return figures


class Unasked(RecordIOFaces):
    """Records that are not asked for before they are read."""

    def ask_for(self, positions: NDArray[np.int64]) -> None:
        """Do nothing."""


def _hints(path: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Return the loader's figures with and without asking the system for the batches in the making, and print them."""
    datasets: dict[str, FaceDataset] = {"asked": RecordIOFaces(path), "not asked": Unasked(path)}
    rates: dict[str, list[float]] = {name: [] for name in datasets}
    for number in range(rounds):
        for name, dataset in datasets.items():
            forget(path)
            rates[name].append(load_rate(dataset, 1, number * 10_000, seconds))
    gain = quantiles(ratios(*rates.values()))
    middles = {name: quantiles(found) for name, found in rates.items()}
    print("\n| shuffled, cold, R = 1 | asked for ahead, images/s | not | gain |\n|---|---|---|---|")
    spread = f"{gain['p50']:.2f} ({gain['p20']:.2f} to {gain['p80']:.2f})"
    texts = " | ".join(f"{each['p50']:,.0f}" for each in middles.values())
    print(f"| loader | {texts} | {spread} |", flush=True)
    return {**middles, "gain": gain}
