"""Streams and events that keep no time: they say of two operations on a device whether one must end before the other begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Operation:
    """A read or a write of memory, on a stream."""

    stream: str
    number: int
    """On its stream, from 1 on."""
    writes: bool
    address: int
    follows: dict[str, int]
    """Stream -> how many of its operations have ended when this one begins."""

    def must_follow(self, other: Operation) -> bool:
        return self.follows.get(other.stream, 0) >= other.number


@dataclass
class Stream:
    device: Device
    name: str
    done: dict[str, int] = field(default_factory=dict)
    """Stream -> how many of its operations whatever comes next on this one follows."""

    def add(self, writes: bool, tensor: Tensor) -> None:
        number = self.done.get(self.name, 0) + 1
        self.device.operations.append(Operation(self.name, number, writes, tensor.data_ptr(), dict(self.done)))
        self.done[self.name] = number

    def wait_event(self, event: Event) -> None:
        if self.device.heeds(self):
            self.done = {name: max(self.done.get(name, 0), event.seen.get(name, 0)) for name in {*self.done, *event.seen}}

    def wait_stream(self, other: Stream) -> None:
        event = Event()
        event.record(other)
        self.wait_event(event)


class Event:
    """One that nobody recorded holds nothing up, as CUDA's."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def record(self, stream: Stream) -> None:
        self.seen = dict(stream.done)


class Device:
    """A device with a stream ``steps``, and others as they are asked for.

    Args:
        deaf: the stream whose waits are left out, and from which of its waits on; None: all are heeded.
    """

    def __init__(self, deaf: tuple[str, int] | None = None) -> None:
        self.operations: list[Operation] = []
        self.steps = Stream(self, "steps")
        self.current = self.steps
        self._deaf = deaf
        self._waits: dict[str, int] = {}

    def heeds(self, stream: Stream) -> bool:
        waits = self._waits.get(stream.name, 0)
        self._waits[stream.name] = waits + 1
        return (stream.name, waits) != self._deaf

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before = self.current
        self.current = stream
        yield
        self.current = before

    def races(self) -> list[tuple[Operation, Operation]]:
        """Return the pairs that touch one address in no certain order, one of them writing."""
        return [
            (first, second)
            for place, second in enumerate(self.operations)
            for first in self.operations[:place]
            if first.address == second.address and (first.writes or second.writes)
            if first.stream != second.stream and not second.must_follow(first)
        ]

    def stands_for_cuda(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(torch.cuda, "Stream", lambda _: Stream(self, "copies"))
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "stream", self.on)
        patch.setattr(torch.cuda, "current_stream", lambda _: self.current)


class Writes(TorchDispatchMode):
    """Notes every copy into a tensor on the present stream of a device."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.copy_.default:
            self._device.current.add(True, args[0])
        return func(*args, **(kwargs or {}))
