"""The training's loader beside the pure decoding of the same cores, and beside the way of AttFC's released code.

    python -m benchmarks.loader DATA [--folder FOLDER] [--rounds 9] [--seconds 2] [--quick]

Warm, 112 x 112, batches of 128, one thread (or process) a core; images are counted, references included, that are ready as
tensors. The cases take turns in rounds, so that other programs on the machine slow them all; ratios are taken within a round,
and p20, p50 and p80 over the rounds are given. "Pure decoding" is the loader's own decoder, from bytes in memory to uint8
[3, 112, 112], and nothing else; "the codec" is libjpeg-turbo alone, which writes three bytes a pixel.

Then, from files that the system was asked to forget, the same images in a file in which a person's lie together and in one in
which they are shuffled (`benchmarks.loader_cold`). FOLDER is for these files, and must not be in memory (tmpfs).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from attfc_train.commands.data_convert import encoded_images
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.formats.writers import Images, WriteOptions, target_of
from attfc_train.data.jpeg import BLOCK, PlaneDecoder
from attfc_train.data.loader import AttentionLoader
from attfc_train.data.pool import DecodePool, num_cores
from attfc_train.data.sampling.sampler import AttentionSampler, Order
from attfc_train.data.source import open_dataset
from benchmarks.loader_cold import cold_rates, ratios
from benchmarks.loader_processes import process_batches
from benchmarks.loader_released import released_batches
from benchmarks.provenance import provenance, quantiles, save

BATCH = 128
SIZE = 112
PREFETCH = 3
MOST_IN_MEMORY = 20_000
PURE = "pure decoding"
RELEASED = "AttFC's released way"
Source = Callable[[], Iterator[int]]
"""Begins a stream of batches, each given by its number of images."""


def decoding(contents: list[bytes], plain_codec: bool) -> Iterator[int]:
    """Decode bytes that are in memory with all cores; yield the images that are done."""
    in_task = 2 * BLOCK
    tasks = [contents[start : start + in_task] for start in range(0, len(contents) - in_task + 1, in_task)]

    assert tasks, f"the benchmark needs {in_task} images"
    own = threading.local()  # every thread's memory, which it uses again and again

    def by_codec(task: list[bytes]) -> int:
        if not hasattr(own, "pixels"):
            own.pixels = np.empty((SIZE, SIZE, 3), np.uint8)
        for content in task:
            simplejpeg.decode_jpeg(content, buffer=own.pixels)
        return len(task)

    def to_planes(task: list[bytes]) -> int:
        if not hasattr(own, "decoder"):
            own.decoder = PlaneDecoder(SIZE)
            own.planes = np.empty((BLOCK, 3, SIZE, SIZE), np.uint8)
        for start in range(0, in_task, BLOCK):
            for place, content in enumerate(task[start : start + BLOCK]):
                assert own.decoder.decode(content, place), "the benchmark needs JPEGs of 112 x 112"
            own.decoder.move(own.planes, list(range(BLOCK)))
        return len(task)

    with DecodePool() as pool:
        while True:
            yield from pool.map(by_codec if plain_codec else to_planes, tasks)


def loading(dataset: FaceDataset, num_references: int, order: Order) -> Iterator[int]:
    """Yield the images of each batch of the training's loader."""
    buffer = max(64, dataset.index.num_images // 2)
    sampler = AttentionSampler(dataset.index, 1, BATCH, num_references, order, buffer_images=buffer)
    loader = AttentionLoader(dataset, sampler, SIZE, prefetch_batches=PREFETCH)
    for batch in loader.batches(0, 10**9):
        yield batch.flips.numel()


def rate(source: Source, seconds: float, skipped: int) -> tuple[float, float]:
    """Return images/s and processor seconds of this process per image, once the first batches, made in advance, are gone."""
    stream = source()
    for _ in range(skipped):
        next(stream)
    images = 0
    processor = time.process_time()
    since = time.perf_counter()
    while time.perf_counter() - since < seconds:
        images += next(stream)
    elapsed = time.perf_counter() - since
    processor = time.process_time() - processor
    stream.close()  # type: ignore[attr-defined]  # a generator
    return images / elapsed, processor / images


def cases(dataset: FaceDataset, contents: list[bytes], folder: Path) -> dict[str, tuple[Source, int]]:
    """Return each case, and the batches that it makes in advance, by name."""
    found: dict[str, tuple[Source, int]] = {
        PURE: (lambda: decoding(contents, plain_codec=False), 1),
        "the codec alone": (lambda: decoding(contents, plain_codec=True), 1),
    }
    for order in ("permutation", "sequential"):
        for references in (0, 1):
            name = f"loader, {order}, R = {references}"
            found[name] = (lambda r=references, o=order: loading(dataset, r, o), PREFETCH + 1)  # type: ignore[misc]
    workers = num_cores()
    by_processes = AttentionSampler(dataset.index, 1, BATCH, 1)
    found["loader's work in processes, permutation, R = 1"] = (
        lambda: process_batches(dataset, by_processes, SIZE, workers),
        2 * workers + 1,
    )
    for references in (0, 1):
        name = f"{RELEASED}, R = {references}"
        found[name] = (lambda r=references: released_batches(folder, BATCH, r, workers), 2 * workers + 1)  # type: ignore[misc]
    return found


def measured(all_cases: dict[str, tuple[Source, int]], rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Return the figures of every case by name."""
    rates: dict[str, list[float]] = {name: [] for name in all_cases}
    processor: dict[str, list[float]] = {name: [] for name in all_cases}
    for _ in range(rounds):
        for name, (source, skipped) in all_cases.items():
            images, used = rate(source, seconds, skipped)
            rates[name].append(images)
            processor[name].append(used)
    figures = {}
    for name in all_cases:
        of_released = f"{RELEASED}, R = {name[-1]}" if name[-1].isdigit() else f"{RELEASED}, R = 0"
        in_processes = RELEASED in name or "processes" in name
        figures[name] = {
            "images_per_second": quantiles(rates[name]),
            "of_pure": quantiles(ratios(rates[name], rates[PURE])),
            "times_released": quantiles(ratios(rates[name], rates[of_released])),
            "processor_us": None if in_processes else {k: v * 1e6 for k, v in quantiles(processor[name]).items()},
        }
    return figures


def table(figures: Mapping[str, dict[str, Any]]) -> str:
    """Return the Markdown table of docs/data.md."""
    heads = "| | images/s | of pure decoding | times the released way | processor, µs an image |\n|---|---|---|---|---|"
    return "\n".join([heads, *(_row(name, own) for name, own in figures.items())])


def _row(name: str, figures: dict[str, Any]) -> str:
    own = "" if figures["processor_us"] is None else f"{figures['processor_us']['p50']:.0f}"
    of_pure = figures["of_pure"]
    times = figures["times_released"]
    return (
        f"| {name} | {figures['images_per_second']['p50']:,.0f} "
        f"| {of_pure['p50']:.0%} ({of_pure['p20']:.0%} to {of_pure['p80']:.0%}) "
        f"| {times['p50']:.1f} ({times['p20']:.1f} to {times['p80']:.1f}) | {own} |"
    )


def write_folder(dataset: FaceDataset, folder: Path) -> None:
    """Write the images as a folder for each identity, which the released way reads."""
    index = dataset.index
    images = Images(
        index.original_labels[index.labels[index.members]], encoded_images(dataset, np.asarray(index.members), lambda _: None)
    )
    target_of(folder).write(folder, images, WriteOptions())


@contextmanager
def folder_of(chosen: Path | None) -> Iterator[Path]:
    """Give the folder for what is written, a temporary one if none is chosen."""
    if chosen is not None:
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="attfc-loader-") as name:
        yield Path(name)


def main() -> None:
    """Measure, print the tables and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--copies", type=int, default=20, help="of every image in the files that are read cold")
    parser.add_argument("--quick", action="store_true", help="one short round, which measures nothing")
    parser.add_argument("--output", default="loader.json", help="in benchmarks/results")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.copies = 1, 0.05, 1
    dataset = open_dataset(arguments.data)
    # In a random order, as the loader meets them: what is near in memory is decoded faster.
    shuffled = np.random.default_rng(1).permutation(dataset.index.num_images)[:MOST_IN_MEMORY]
    contents = [dataset.encoded(position) for position in shuffled.tolist()]
    with folder_of(arguments.folder) as folder:
        faces = folder / "faces"
        if not faces.exists():
            write_folder(dataset, faces)
        plain = [content for content in contents if isinstance(content, bytes)]
        warm = measured(cases(dataset, plain, faces), arguments.rounds, arguments.seconds)
        print(table(warm), flush=True)
        cold = cold_rates(dataset, folder, arguments.copies, arguments.rounds, arguments.seconds)
    settings = {"rounds": arguments.rounds, "seconds": arguments.seconds, "copies": arguments.copies}
    document = {"provenance": provenance(), "data": dataset.index.num_images, **settings, "warm": warm, "cold": cold}
    if not arguments.quick:
        save(arguments.output, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
