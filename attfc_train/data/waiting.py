"""What a training waits for: the disk, the decoding, the copy to the device."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch

from attfc_train.profile.profile import MAX_WORKERS
from attfc_train.units import Bytes, Seconds, format_bytes

WORTH_SAYING: Final = 0.05
"""Share of the time that is waited for data, from which on there is something to gain."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Seconds in which a training stood still for its data, by what it waited for."""

    read: Seconds = 0.0
    decode: Seconds = 0.0
    transfer: Seconds = 0.0

    @property
    def total(self) -> Seconds:
        """All of them."""
        return self.read + self.decode + self.transfer

    def __add__(self, other: Waiting) -> Waiting:
        return Waiting(self.read + other.read, self.decode + other.decode, self.transfer + other.transfer)

    def __sub__(self, other: Waiting) -> Waiting:
        return Waiting(self.read - other.read, self.decode - other.decode, self.transfer - other.transfer)

    def shares(self, seconds: Seconds) -> dict[str, float]:
        """Return the shares of a time, by their names in ``log.jsonl``; the first is the sum of the others, and at most 1.

        A GPU copies a batch while the host waits for the next one already, so the parts together may take longer than both did.
        """
        seconds = max(seconds, self.total)
        return {
            "data_wait_share": self.total / seconds,
            "read_wait_share": self.read / seconds,
            "decode_wait_share": self.decode / seconds,
            "transfer_wait_share": self.transfer / seconds,
        }


def divided(waited: Seconds, read: Seconds, decode: Seconds) -> Waiting:
    """Return the wait for a batch, divided as the workers' seconds on this batch are."""
    share = read / (read + decode) if read + decode > 0 else 0.0
    return Waiting(read=waited * share, decode=waited * (1 - share))


@dataclass(frozen=True, slots=True)
class Means:
    """What a loader works with, for advice."""

    threads: int
    cores: int
    decoded_bytes: Bytes
    """Of all images, decoded."""
    is_cached: bool
    """Whether decoded images are kept."""
    on_card: bool = False
    """Whether the GPU decodes, and nothing is kept."""

    def advice(self, waited: Waiting, seconds: Seconds) -> str | None:
        """Return in one line what a training has waited for, and the remedy; None where it hardly waited."""
        if waited.total < WORTH_SAYING * seconds:
            return None
        parts = {"decoding": waited.decode, "the disk": waited.read, "the copy to the device": waited.transfer}
        ranked = sorted(parts, key=lambda name: -parts[name])
        shares = [f"{parts[name] / waited.total:.0%}{' of it' if name == ranked[0] else ''} for {name}" for name in ranked]
        said = ", ".join(share for share in shares if not share.startswith("0%"))
        share = waited.shares(seconds)["data_wait_share"]
        return f"waited {share:.0%} of the time for data: {said}; {self._remedy(ranked[0])}"

    def _remedy(self, largest: str) -> str:
        if largest == "the disk":
            return (
                "a faster disk, --set data.draw=sequential, which reads long stretches, or attfc-train data group, which puts "
                "the images of a person together"
            )
        if largest == "the copy to the device":
            return "look whether the card has all its PCIe lanes (nvidia-smi -q), and whether others use them"
        if self.is_cached:
            return "decoded images are kept, so this was the first epoch's alone"
        if self.on_card:
            return f"the GPU decodes; --set data.device=cpu decodes with {_cores_words(self.cores)} of the host"
        if self.threads < min(self.cores, MAX_WORKERS):
            # A number: 0, one thread a core, ends at `MAX_DEFAULT_WORKERS`.
            workers = min(self.cores, MAX_WORKERS)
            return f"--set data.num_workers={workers} decodes with {_cores_words(workers)} in place of {self.threads}"
        kept = f", or --set data.cache_bytes={self.decoded_bytes}, which keeps all images decoded"
        fits = self.decoded_bytes <= _memory_bytes() // 2
        return f"more cores than {self.cores}{f'{kept} ({format_bytes(self.decoded_bytes)})' if fits else ''}"


def _cores_words(cores: int) -> str:
    return f"{cores} core{'' if cores == 1 else 's'}"


def _memory_bytes() -> Bytes:
    """Return the machine's memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


class TransferClock:
    """The time that a device's work stands in line behind copies to the device.

    A copy to a GPU is only put in line: what was waited for it is known when the device has come to it, and asking does not
    wait. A copy that ended beside the step before (`attfc_train.step.input_buffers`) took no time of the device's.
    """

    def __init__(self) -> None:
        self._seconds: Seconds = 0.0
        self._begun: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def measured(self, device: torch.device) -> Iterator[None]:
        """Take the time that the work which is put in line inside holds up the present stream of `device`, or a CPU."""
        if device.type == "cuda":
            with torch.cuda.device(device):
                first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                first.record()
                yield
                last.record()
            self._begun.append((first, last))
            return
        since = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - since

    @property
    def seconds(self) -> Seconds:
        """Of the waits that are known to have ended."""
        while self._begun and self._begun[0][1].query():
            first, last = self._begun.popleft()
            self._seconds += first.elapsed_time(last) / 1000  # from milliseconds
        return self._seconds
