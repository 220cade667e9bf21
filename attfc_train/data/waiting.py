"""What a training waits for: the disk, the decoding, the copy to the device."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from attfc_train.units import Seconds


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
        """Return the shares of a time that was longer, by their names in ``log.jsonl``; the first is the sum of the others."""
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


class TransferClock:
    """The time of copies to a device, which other work of the device stands in line behind.

    A copy to a GPU is only put in line: what it took is known when the device has come to it, and asking does not wait.
    """

    def __init__(self) -> None:
        self._seconds: Seconds = 0.0
        self._begun: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def measured(self, device: torch.device) -> Iterator[None]:
        """Take the time of the copies to `device` that are begun inside."""
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
        """Of the copies that are known to have ended."""
        while self._begun and self._begun[0][1].query():
            first, last = self._begun.popleft()
            self._seconds += first.elapsed_time(last) / 1000  # from milliseconds
        return self._seconds
