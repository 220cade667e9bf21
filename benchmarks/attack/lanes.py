"""Work for all cores: forked lanes that take the next unit from a pipe, and write what came of it into a file of their own."""

from __future__ import annotations

import json
import os
import struct
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

_UNIT: Final = struct.Struct("<I")
MOST_UNITS: Final = 16_000
"""A pipe holds 64 KiB."""


def num_lanes() -> int:
    """Return the number of cores of this process, at most 8."""
    return min(8, len(os.sched_getaffinity(0)))


def in_lanes(num_units: int, work: Callable[[int], Any], folder: Path) -> list[tuple[int, Any]]:
    """Return what `work` gives for the units 0, 1, ..., each with its unit, in the order of the units.

    Args:
        work: returns JSON; None: nothing was done, as the time is over.
        folder: for the lanes' files.

    Raises:
        RuntimeError: a lane died, which is a fault of the attack itself.
    """
    assert num_units <= MOST_UNITS, "they must fit a pipe"
    folder.mkdir(parents=True, exist_ok=True)
    source, sink = os.pipe()
    os.write(sink, b"".join(map(_UNIT.pack, range(num_units))))
    os.close(sink)
    files = [folder / f"lane{lane}.jsonl" for lane in range(num_lanes())]
    children = [_lane(source, work, file) for file in files]
    os.close(source)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        raise RuntimeError(f"lanes ended with {codes}: see what they wrote to stderr")
    return sorted((result for file in files for result in _results(file)), key=lambda result: result[0])


def _lane(source: int, work: Callable[[int], Any], file: Path) -> int:
    """Start a lane; return its process number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with file.open("w", encoding="utf-8") as results:
            while unit := os.read(source, _UNIT.size):
                number = _UNIT.unpack(unit)[0]
                results.write(json.dumps([number, work(number)]) + "\n")
                results.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _results(file: Path) -> Iterator[tuple[int, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        number, result = json.loads(line)
        if result is not None:
            yield number, result
