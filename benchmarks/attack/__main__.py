"""The attack: ``python -m benchmarks.attack [--seed N] [--minutes M] [--only PART] [--case N]``, and its table."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.attack import table
from benchmarks.attack.parts import FORMATS, SCENARIOS, repeat, stored, try_formats, try_scenario
from benchmarks.attack.shards import Tally
from benchmarks.attack.trainings import thin_network, undisturbed
from benchmarks.provenance import provenance, save

_MEMORY_DISK = Path("/dev/shm")
_ROOM_BYTES = 4 * 2**30
"""What the inputs and run folders take; on a disk in memory flushes cost nothing."""


def main() -> int:
    """Attack, print and save the table; return 1 where anything failed."""
    arguments = _arguments()
    torch.set_num_threads(1)
    thin_network()
    made = provenance()  # of what is loaded now
    folder = Path(tempfile.mkdtemp(prefix="attfc-attack-", dir=_place()))
    try:
        if arguments.case is not None:
            return _repeat(arguments, folder)
        tallies = attack(arguments.only, arguments.seed, arguments.count, 60 * arguments.minutes, folder)
    finally:
        if arguments.case is None:
            shutil.rmtree(folder, ignore_errors=True)
    document = {
        "seed": arguments.seed,
        "minutes": arguments.minutes,
        "provenance": made,
        "parts": list(map(stored, tallies)),
    }
    print(table.text(document))
    for failure in (failure for tally in tallies for failure in tally.failures):
        print(f"{failure.outcome.kind}: {failure.what}: {failure.outcome.detail}\n    {failure.command(arguments.seed)}")
    if not arguments.only:
        save("attack.json", json.dumps(document, indent=1) + "\n")
        save("attack.md", table.text(document))
        table.write_page(document)
    return int(any(tally.num_failures for tally in tallies))


def attack(only: list[str], seed: int, count: int | None, seconds: float, folder: Path) -> list[Tally]:
    """Try all parts, or those that are named, within their shares of the time.

    Args:
        count: cases of each part; None: as many as the promise says.
    """
    begin = time.monotonic()
    run = undisturbed(folder)
    scenarios = [name for name in SCENARIOS if not only or name in only]
    formats = [name for name in FORMATS if not only or name in only]
    tallies = []
    for name in scenarios:
        wanted = min(count or SCENARIOS[name].wanted, SCENARIOS[name].wanted)
        part = folder / name.replace(" ", "-")
        share = SCENARIOS[name].share if formats else 1 / len(scenarios)
        tallies.append(try_scenario(name, run, part, seed, wanted, time.monotonic() + share * seconds))
        shutil.rmtree(part, ignore_errors=True)
    if formats:
        tallies = [*try_formats(formats, run, folder, seed, count or table.CASES, begin + 0.95 * seconds), *tallies]
    return tallies


def _repeat(arguments: argparse.Namespace, folder: Path) -> int:
    (name,) = arguments.only
    what, outcome = repeat(name, arguments.case, undisturbed(folder), folder / "input", arguments.seed)
    print(f"{outcome.kind}: {what}: {outcome.detail}\nIts files are in {folder}.")
    return int(not outcome.is_right)


def _place() -> Path | None:
    """Return the disk in memory, if there is one with room."""
    has_room = _MEMORY_DISK.is_dir() and shutil.disk_usage(_MEMORY_DISK).free > _ROOM_BYTES
    return _MEMORY_DISK if has_room else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attack", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="everything follows from it")
    parser.add_argument("--minutes", type=float, default=20.0, help="no new work is begun after that")
    parser.add_argument("--count", type=int, help="cases of each part, in place of the full number")
    parser.add_argument("--only", action="append", default=[], choices=[*FORMATS, *SCENARIOS], help="a part; repeatable")
    parser.add_argument("--case", type=int, help="repeat this case of the part --only, and keep its files")
    arguments = parser.parse_args()
    if arguments.case is not None and len(arguments.only) != 1:
        parser.error("--case needs one --only")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
