"""Predictions beside torch's real caching allocator, on the stand-in device: peaks of free runs, and runs on cards cut to size.

    python -m benchmarks.real_allocator --cases 130 --capped 60   # call it again until it says that nothing is left
    python -m benchmarks.real_allocator --report                  # table, figures and picture of what is on file

It needs a CUDA build of torch and the stand-in's libraries (`tests/standin`); every run is a process of its own. Kernels do
nothing there, so the figures are about memory alone; convolution workspaces follow the planner's own rule on both sides and are
not tested.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from attfc_planner.calibrate.real_steps import RealSteps, run_real_steps
from attfc_planner.gpu.catalog import get_card
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import MemoryModel
from attfc_planner.memory.overheads import context
from attfc_train.cuda_environment import NATIVE_ALLOCATOR, PLANNED_ALLOCATOR
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import MIB, Bytes
from benchmarks.allocator_cases import CARDS, AllocatorCase, cases
from benchmarks.allocator_report import write_report
from benchmarks.memory_lines import append_line, read_lines
from benchmarks.provenance import RESULTS, provenance
from benchmarks.standin import CONTEXT, environment, forget

LINES = RESULTS / "real_allocator.jsonl"
CARD = "rtx-4090"
"""Its name and compute capability; its memory is each case's."""
NO_BUDGET = 2**60
STEPS = 0
"""Timed steps: none; two others come before the evaluation, and one after it."""
SHORT: Bytes = 64 * MIB
EDGE_SHARE = 0.02
"""Of the prediction: the edge is found to within this."""

Line = dict[str, Any]
Runs = Iterator[tuple[Line, partial[RealSteps]]]
"""Lines without results, each with the run that has them."""


class Bench:
    """Predicts in this process, which never starts CUDA, and runs in others."""

    def __init__(self) -> None:
        self._base = MemoryModel(cases()[0].profile(), card_of(CARDS[-1]), NO_BUDGET)
        self._count = 0

    def model(self, card: Bytes, allocator: str) -> MemoryModel:
        """Return the model of a card with so much memory under an allocator setting."""
        native = None if allocator == PLANNED_ALLOCATOR else "a setting of this benchmark"
        return self._base.on(card_of(card).model_copy(update={"native_segments": native}))

    def predict(self, profile: TrainProfile, card: Bytes, allocator: str) -> dict[str, Bytes]:
        """Return allocated and reserved bytes of the run, its headroom and its context."""
        model = self.model(card, allocator)
        memory = model.exact(profile)
        run = model.run(profile)
        terms = {term.name: term.bytes for term in memory.terms}
        return {
            "allocated": run.replay(model.sizes(run.trace), model.expandable, card).peak_allocated,
            "reserved": memory.measured_bytes,
            "headroom": terms["headroom"],
            "context": terms["context"],
        }

    def floor(self, profile: TrainProfile, card: Bytes) -> Bytes:
        """Return the least that the allocator must be able to reserve."""
        model = self.model(card, PLANNED_ALLOCATOR)
        return model.floor_bytes(profile) - context(model.gpu).bytes

    def run(self, profile: TrainProfile, card: Bytes, allocator: str) -> RealSteps:
        """Return what a process on a stand-in card does; the allocator's share of the card is ``card - CONTEXT``."""
        self._count += 1
        card_id = f"{os.getpid()}-{self._count}"
        try:
            return run_real_steps(profile, "cuda", steps=STEPS, environment=environment(card, allocator, card_id))
        finally:
            forget(card_id)

    def peak(self, profile: TrainProfile, card: Bytes) -> RealSteps:
        """Return the run on a card that has the room for it, with the segments that are planned.

        Raises:
            AssertionError: it did not end well.
        """
        real = self.run(profile, card, PLANNED_ALLOCATOR)
        assert real.outcome == "ran", f"{profile.model.backbone}: {real.outcome}, {real.reason}"
        return real

    def edge(self, profile: TrainProfile, low: Bytes, high: Bytes) -> RealSteps:
        """Return the run on the smallest card that it survives, to within `EDGE_SHARE`; its reserved bytes are that card's.

        Args:
            low: bytes for the allocator with which it may die. high: with which it lives.
        """
        best = RealSteps("out of memory")
        tolerance = EDGE_SHARE * high
        while best.outcome != "ran" or high - low > tolerance:
            middle = (low + high) // 2 if high - low > tolerance else high
            real = self.run(profile, CONTEXT + middle, PLANNED_ALLOCATOR)
            if real.outcome == "ran":
                high = middle
                best = replace(real, reserved_bytes=middle)
            elif middle == high:
                return real
            else:
                low = middle
        return best


def card_of(capacity: Bytes) -> GpuProfile:
    """Return a card with so much memory."""
    return get_card(CARD).model_copy(update={"capacity_bytes": capacity})


def free_runs(bench: Bench, case: AllocatorCase) -> Runs:
    """Yield a case's line and its run, under both allocator settings, on the smallest card that has the room."""
    profile = case.profile()
    for allocator in (PLANNED_ALLOCATOR, NATIVE_ALLOCATOR):
        largest = bench.predict(profile, CARDS[-1], allocator)
        card = next((card for card in CARDS if largest["reserved"] + largest["headroom"] + CONTEXT <= card), None)
        if card is not None:
            facts = {"kind": "free", "name": case.name, "case": case.facts(), "allocator": allocator, "card": card}
            yield {**facts, "predicted": bench.predict(profile, card, allocator)}, partial(bench.run, profile, card, allocator)


def capped_runs(bench: Bench, case: AllocatorCase) -> Runs:
    """Yield lines and runs on cards cut to the prediction, with and without headroom, and on the smallest that does."""
    profile = case.profile()
    need = bench.predict(profile, CARDS[-1], PLANNED_ALLOCATOR)
    if need["reserved"] + need["headroom"] + CONTEXT > CARDS[-1]:
        return
    need = bench.predict(profile, CONTEXT + need["reserved"], PLANNED_ALLOCATOR)
    floor = bench.floor(profile, CONTEXT + need["reserved"])
    rooms = {
        "need - 64 MiB": need["reserved"] - SHORT,
        "need": need["reserved"],
        "with headroom": need["reserved"] + need["headroom"],
    }
    facts = {"kind": "capped", "name": case.name, "case": case.facts(), "predicted": {**need, "floor": floor}}
    for what, room in rooms.items():
        yield {**facts, "what": what, "room": room}, partial(bench.run, profile, CONTEXT + room, PLANNED_ALLOCATOR)
    yield {**facts, "what": "edge", "room": floor}, partial(bench.edge, profile, floor, need["reserved"])


KINDS: dict[str, tuple[Callable[[Bench, AllocatorCase], Runs], int]] = {"free": (free_runs, 2), "capped": (capped_runs, 4)}
"""Kind of run -> what yields a case's, and how many they are."""


def measured(run: partial[RealSteps]) -> Line:
    """Return what a run shows."""
    begin = time.monotonic()
    real = run()
    if real.outcome == "failed":
        real = run()  # a process of the stand-in may end badly after its work; a fault of ours does so twice
    return {
        "outcome": real.outcome,
        "reason": real.reason,
        "measured": {"allocated": real.allocated_bytes, "reserved": real.reserved_bytes},
        "seconds": round(time.monotonic() - begin, 1),
    }


def measure(wanted: list[AllocatorCase], kind: str, bench: Bench, path: Path, until: float) -> int:
    """Run what is not on file of a kind; return how many cases are left."""
    runs_of, num_runs = KINDS[kind]
    done = {_key(line) for line in read_lines(path)}
    finished = Counter(key[:2] for key in done)
    waiting = [case for case in wanted if finished[kind, case.name] < num_runs]
    pending: list[tuple[Line, Future[Line]]] = []
    left = len(waiting)
    with ThreadPoolExecutor(2) as pool:
        for case in waiting:
            if time.monotonic() > until:
                break
            pending += [(line, pool.submit(measured, run)) for line, run in runs_of(bench, case) if _key(line) not in done]
            left -= 1
            while len(pending) > 8:
                _record(path, *pending.pop(0))
        for line, result in pending:
            _record(path, line, result)
    return left


def _key(line: Line) -> tuple[str, str, str]:
    return line["kind"], line["name"], line.get("what") or line["allocator"]


def _record(path: Path, line: Line, result: Future[Line]) -> None:
    whole = {**line, **result.result(), "provenance": provenance()}
    append_line(path, whole)
    print(
        f"{whole['seconds']:5.1f} s  {whole['name']}, {whole.get('what', whole.get('allocator'))}: {whole['outcome']}",
        flush=True,
    )


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=130, help="settings that run freely, under both allocator settings")
    parser.add_argument(
        "--capped", type=int, default=60, help="settings that run on cards cut to size: three, and the edge by bisection"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no case after this")
    parser.add_argument("--report", action="store_true", help="only the report of what is on file")
    parser.add_argument("--lines", type=Path, default=LINES)
    options = parser.parse_args()
    if not options.report:
        until = time.monotonic() + 60 * options.minutes
        bench = Bench()
        left = measure(cases()[: options.cases], "free", bench, options.lines, until)
        left += measure(cases()[: options.capped], "capped", bench, options.lines, until)
        print(f"{left} cases left")
    write_report(read_lines(options.lines), options.lines.parent)


if __name__ == "__main__":
    main()
