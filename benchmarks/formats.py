"""The formats beside each other: bytes on disk, time to open, images/s drawn at random and in the sequential order.

    python -m benchmarks.formats DATA [--folder FOLDER] [--seconds 5] [--output results.json]

writes DATA in every format into FOLDER (a temporary one by default) and reads each with the training's own loader: 112 x 112,
batches of 128, one reference a query, no cache of decoded images. "Cold" is behind a request to the system to forget the files;
where FOLDER is in memory (tmpfs) nothing can be forgotten. The first opening makes the index, the second maps it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attfc_train.commands.data_convert import encoded_images
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.formats.writers import Images, WriteOptions, target_of, written_root
from attfc_train.data.loader import AttentionLoader
from attfc_train.data.sampling.sampler import AttentionSampler, Order
from attfc_train.data.source import open_dataset
from attfc_train.files import write_text_atomically
from benchmarks.provenance import provenance

TARGETS = {
    "RecordIO": ("rec/train.rec", ""),
    "RecordIO, im2rec's layout": ("im2rec/train.rec", "im2rec"),
    "folder": ("folder", ""),
    "LMDB, F2C's layout": ("f2c.lmdb", "f2c"),
    "LMDB, msgpack": ("msgpack.lmdb", "msgpack"),
    "tar shards": ("shards/x-%06d.tar", ""),
    "Parquet": ("faces.parquet", ""),
}
"""Output and layout by name."""
BATCH, SIZE = 128, 112
SHARD_IMAGES = 2_000


def files_of(root: Path) -> list[Path]:
    """Return the files of a data set that are no index of ours."""
    found = [root] if root.is_file() else [path for path in root.rglob("*") if path.is_file()]
    return [path for path in found if not path.name.endswith(".index")]


def forget(root: Path) -> None:
    """Ask the system to forget what it has of the files."""
    for path in files_of(root):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def opened(spec: str) -> tuple[FaceDataset, float]:
    """Open a data set; return it and the seconds that this took."""
    since = time.perf_counter()
    dataset = open_dataset(spec)
    return dataset, time.perf_counter() - since


def rate(dataset: FaceDataset, order: Order, seconds: float) -> float:
    """Return images/s of the loader, the references counted."""
    sampler = AttentionSampler(dataset.index, 1, BATCH, 1, order, buffer_images=max(64, dataset.index.num_images // 2))
    loader = AttentionLoader(dataset, sampler, SIZE)
    images = 0
    since = time.perf_counter()
    batches = loader.batches(0, 10**6)
    for batch in batches:
        images += batch.flips.numel()
        if time.perf_counter() - since > seconds:
            break
    elapsed = time.perf_counter() - since
    batches.close()
    return images / elapsed


def measured(root: Path, spec: str, seconds: float) -> dict[str, Any]:
    """Return the figures of one format."""
    _, first = opened(spec)
    dataset, again = opened(spec)
    figures = {"bytes": sum(path.stat().st_size for path in files_of(root)), "first_opening": first, "opening": again}
    for order in ("permutation", "sequential"):
        forget(root)
        figures[f"{order}_cold"] = rate(dataset, order, seconds)
        figures[f"{order}_warm"] = rate(dataset, order, seconds)
    return figures


def write(dataset: FaceDataset, output: Path, layout: str) -> None:
    """Write a data set as a format."""
    index = dataset.index
    labels = index.original_labels[index.labels[index.members]]
    images = Images(labels, encoded_images(dataset, index.members, lambda _: None))
    target_of(output).write(output, images, WriteOptions(layout, SHARD_IMAGES, SIZE))


@contextmanager
def folder_of(chosen: Path | None) -> Iterator[Path]:
    """Give the folder for the data sets, a temporary one if none is chosen."""
    if chosen is not None:
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="attfc-formats-") as name:
        yield Path(name)


def main() -> None:
    """Measure every format and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    dataset = open_dataset(arguments.data)
    results: dict[str, Any] = {}
    print("| format | MB | first opening | again | random, cold | warm | sequential, cold | warm |")
    print("|---|---|---|---|---|---|---|---|")
    with folder_of(arguments.folder) as folder:
        for name, (output, layout) in TARGETS.items():
            root = written_root(folder / output)
            if not root.exists():
                write(dataset, folder / output, layout)
            figures = measured(root, str(root), arguments.seconds)
            results[name] = figures
            rates = " | ".join(f"{figures[key]:,.0f}" for key in list(figures)[3:])
            opening = f"{figures['first_opening']:.2f} s | {figures['opening']:.2f} s"
            print(f"| {name} | {figures['bytes'] / 1e6:.0f} | {opening} | {rates} |", flush=True)
    if arguments.output is not None:
        document = {"provenance": provenance(), "data": arguments.data, "formats": results}
        write_text_atomically(arguments.output, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
