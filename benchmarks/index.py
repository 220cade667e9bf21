"""Time and memory to open a record file of tens of millions of images: the first time, and again.

    python -m benchmarks.index --images 42474557 --ids 2059906    # about 4 GB of disk, minutes

The file has WebFace42M's counts and InsightFace's layout; its images are a few bytes that begin like a JPEG. So the times are
those of the index and its text, from memory: a real file of 400 GB adds what its disk takes to give the 48 bytes in front of
each image, which ``--images 2000000 --record-bytes 8192 --cold`` shows in small. Every opening is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from attfc_train.data.formats.record_frames import FRAME_BYTES, HEADER_BYTES, MAGIC
from attfc_train.data.formats.record_index import write_idx
from attfc_train.files import write_atomically
from benchmarks.provenance import provenance, quantiles, save

BLOCK: Final = 2**20
JPEG: Final = 0xE0FFD8FF
"""The first four bytes of a JPEG, as a little-endian word."""

CHILD: Final = """
import json, resource, sys, time
from attfc_train.data.source import open_dataset
begin, busy = time.perf_counter(), time.process_time()
dataset = open_dataset(sys.argv[1])
seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - busy
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
own = {name: int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile")}
begin = time.perf_counter()
digest = dataset.index.digest()
print(json.dumps({
    "seconds": seconds, "cpu_seconds": cpu_seconds, "digest_seconds": time.perf_counter() - begin, "digest": digest,
    "ids": dataset.index.num_ids, "images": dataset.index.num_images,
    "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, **own,
}))
"""


@dataclass(frozen=True, slots=True)
class Counts:
    """What is written."""

    images: int
    ids: int
    record_bytes: int
    """Of an image's record with its frame, a multiple of 4."""


def write_records(path: Path, counts: Counts) -> None:
    """Write ``X.rec`` and ``X.idx`` with InsightFace's layout: images, identities, the header."""
    write_atomically(path, lambda file: _write_all(file, counts))
    num_images, num_ids = counts.images, counts.ids
    identity_bytes = FRAME_BYTES + HEADER_BYTES + 8
    images = np.arange(num_images, dtype=np.int64) * counts.record_bytes
    others = num_images * counts.record_bytes + np.arange(num_ids + 1, dtype=np.int64) * identity_bytes
    keys = np.concatenate([np.arange(1, num_images + num_ids + 1), [0]])
    write_idx(path.with_suffix(".idx"), keys, np.concatenate([images, others]))


def _write_all(file: BinaryIO, counts: Counts) -> None:
    bounds = np.linspace(0, counts.images, counts.ids + 1).astype(np.int64)
    for start in range(0, counts.images, BLOCK):
        places = np.arange(start, min(start + BLOCK, counts.images))
        file.write(_images(places, np.searchsorted(bounds, places, side="right") - 1, counts.record_bytes).tobytes())
    for start in range(0, counts.ids, BLOCK):
        stop = min(start + BLOCK, counts.ids)
        file.write(_ranges(bounds[start : stop + 1] + 1, counts.images + 1 + start).tobytes())
    file.write(_ranges(np.array([counts.images + 1, counts.images + 1 + counts.ids]), 0).tobytes())


def _images(places: NDArray[np.int64], labels: NDArray[np.int64], record_bytes: int) -> NDArray[np.uint32]:
    """Return the records of images, uint32 [n, record_bytes / 4]: frame, header, an image's first bytes."""
    words = np.zeros((places.size, record_bytes // 4), dtype="<u4")
    words[:, 0] = MAGIC
    words[:, 1] = record_bytes - FRAME_BYTES
    words[:, 3] = labels.astype("<f4").view("<u4")
    words[:, 4] = places + 1
    words[:, 8] = JPEG
    return words


def _ranges(bounds: NDArray[np.int64], first_key: int) -> NDArray[np.uint32]:
    """Return the records of identities, uint32 [n - 1, 10]: frame, header, first key and last key + 1 as float32."""
    words = np.zeros((bounds.size - 1, 10), dtype="<u4")
    words[:, 0] = MAGIC
    words[:, 1] = HEADER_BYTES + 8
    words[:, 2] = 2
    words[:, 4] = first_key + np.arange(bounds.size - 1)
    words[:, 8] = bounds[:-1].astype("<f4").view("<u4")
    words[:, 9] = bounds[1:].astype("<f4").view("<u4")
    return words


def openings(path: Path, rounds: int, cold: bool) -> Iterator[dict[str, Any]]:
    """Open a file in a process of its own, `rounds` times; yield what each took.

    Args:
        cold: the system's cache of files is emptied first, which needs root.
    """
    for _ in range(rounds):
        if cold:
            subprocess.run(["sync"], check=True)
            Path("/proc/sys/vm/drop_caches").write_text("3")
        command = [sys.executable, "-c", CHILD, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        yield json.loads(done.stdout)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=42_474_557)
    parser.add_argument("--ids", type=int, default=2_059_906)
    parser.add_argument("--record-bytes", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="openings after the first")
    parser.add_argument("--cold", action="store_true", help="empty the system's cache of files before each (root)")
    parser.add_argument("--folder", type=Path, help="where the files are written; a temporary folder")
    parser.add_argument("--keep", action="store_true", help="save the figures under benchmarks/results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "train.rec"
        begin = time.perf_counter()
        write_records(path, Counts(options.images, options.ids, options.record_bytes))
        print(f"written: {path.stat().st_size / 1e9:.1f} GB in {time.perf_counter() - begin:.0f} s", flush=True)
        first, *again = openings(path, 1 + options.rounds, options.cold)
    result = {
        "images": options.images,
        "ids": options.ids,
        "record_bytes": options.record_bytes,
        "cold": options.cold,
        "first": first,
        "again_seconds": quantiles([each["seconds"] for each in again]),
        "again": again[-1],
        **provenance(),
    }
    text = json.dumps(result, indent=2) + "\n"
    print(text)
    if options.keep:
        print(save("index-cold.json" if options.cold else "index.json", text))


if __name__ == "__main__":
    main()
