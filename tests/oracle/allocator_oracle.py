"""A slow, obvious caching allocator: flat lists, no neighbours, no sorted index. It judges `attfc_planner.memory.allocator`.

Written from the rules (see that module's docstring), not from its code. Every question scans all memory again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

MIB = 1024**2


class Full(Exception):
    pass


def round_up(value: int, multiple: int) -> int:
    return (value + multiple - 1) // multiple * multiple


@dataclass
class Run:
    """Addresses [start, end) of one arena; state is 'used' or 'free'."""

    arena: int
    start: int
    end: int
    state: str

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass
class NativeOracle:
    """One arena per cudaMalloc; arenas are numbered in the order of their birth."""

    capacity: int
    arenas: dict[int, tuple[bool, int]] = field(default_factory=dict)  # number -> (small, size)
    runs: list[Run] = field(default_factory=list)
    born: int = 0
    retries: int = 0
    peak: int = 0

    def reserved(self) -> int:
        return sum(size for _, size in self.arenas.values())

    def malloc(self, nbytes: int) -> Run:
        size = round_up(nbytes, 512)
        small = size <= MIB
        fits = [run for run in self.runs if run.state == "free" and self.arenas[run.arena][0] == small and run.size >= size]
        if not fits:
            fits = [self.new_arena(small, size)]
        run = min(fits, key=lambda run: (run.size, run.arena, run.start))
        rest = run.size - size
        if rest >= 512 if small else rest > MIB:
            self.runs.append(Run(run.arena, run.start + size, run.end, "free"))
            run.end = run.start + size
        run.state = "used"
        return run

    def new_arena(self, small: bool, size: int) -> Run:
        wanted = 2 * MIB if small else 20 * MIB if size < 10 * MIB else round_up(size, 2 * MIB)
        if self.reserved() + wanted > self.capacity:
            self.retries += 1
            for run in [run for run in self.runs if run.state == "free" and run.size == self.arenas[run.arena][1]]:
                self.runs.remove(run)
                del self.arenas[run.arena]
        if self.reserved() + wanted > self.capacity:
            raise Full
        self.born += 1
        self.arenas[self.born] = (small, wanted)
        self.runs.append(Run(self.born, 0, wanted, "free"))
        self.peak = max(self.peak, self.reserved())
        return self.runs[-1]

    def free(self, run: Run) -> None:
        run.state = "free"
        self.runs = coalesced(self.runs)


@dataclass
class ExpandableOracle:
    """Arena 0 is the small range, arena 1 the large one; `mapped` holds the page numbers of each."""

    capacity: int
    runs: list[Run] = field(default_factory=list)
    mapped: tuple[set[int], set[int]] = field(default_factory=lambda: (set(), set()))
    retries: int = 0
    peak: int = 0
    page = (2 * MIB, 20 * MIB)

    def reserved(self) -> int:
        return sum(len(pages) * size for pages, size in zip(self.mapped, self.page, strict=True))

    def malloc(self, nbytes: int) -> Run:
        size = round_up(nbytes, 512)
        arena = 0 if size <= MIB else 1
        run = self.best_fit(arena, size) or self.extended(arena, size)
        if run is None:
            self.retries += 1
            self.release()
            run = self.extended(arena, size)
        if run is None:
            raise Full
        if run.size > size:
            self.runs.append(Run(arena, run.start + size, run.end, "free"))
        run.end = run.start + size
        run.state = "used"
        return run

    def best_fit(self, arena: int, size: int) -> Run | None:
        free = sorted(
            (run for run in self.runs if run.arena == arena and run.state == "free"), key=lambda run: (run.size, run.start)
        )
        fits = [run for run in free if run.size >= size]
        for first, second in pairwise(fits):
            if not self.reach(second) < self.reach(first):
                return first
        return fits[-1] if fits else None

    def reach(self, run: Run) -> int:
        """Return the end of the unmapped addresses behind a free run, less its start."""
        page, end = self.page[run.arena], run.end
        if end % page or end // page in self.mapped[run.arena]:
            return run.size
        later = [number for number in self.mapped[run.arena] if number * page >= end]
        return (min(later) * page if later else 1 << 60) - run.start

    def extended(self, arena: int, size: int) -> Run | None:
        """Map `size` bytes from the lowest address where they are free or unmapped, with at least one unmapped page."""
        page = self.page[arena]
        used = sorted((run.start, run.end) for run in self.runs if run.arena == arena and run.state == "used")
        starts = [0] + [end for _, end in used]
        ends = [start for start, _ in used] + [1 << 60]
        for start, end in zip(starts, ends, strict=True):
            pages = range(start // page, -(-end // page))
            hole = any(number not in self.mapped[arena] for number in pages[: len(self.mapped[arena]) + 1])
            if end - start >= size and hole:
                return self.map(arena, start, size)
        raise AssertionError("unreachable")

    def map(self, arena: int, start: int, size: int) -> Run | None:
        page = self.page[arena]
        position = start
        while position < start + size:
            number = position // page
            if number in self.mapped[arena]:
                position = (number + 1) * page
                continue
            wanted = []
            while number not in self.mapped[arena] and number * page < start + size:
                wanted.append(number)
                number += 1
            if self.reserved() + len(wanted) * page > self.capacity:
                return None
            self.mapped[arena].update(wanted)
            self.peak = max(self.peak, self.reserved())
            self.runs += [Run(arena, number * page, (number + 1) * page, "free") for number in wanted]
            self.runs = coalesced(self.runs)
            position = number * page
        return next(run for run in self.runs if run.arena == arena and run.start <= start < run.end and run.state == "free")

    def release(self) -> None:
        for arena in (0, 1):
            page = self.page[arena]
            for run in [run for run in self.runs if run.arena == arena and run.state == "free"]:
                whole = [
                    number for number in self.mapped[arena] if run.start <= number * page and (number + 1) * page <= run.end
                ]
                if not whole:
                    continue
                self.mapped[arena].difference_update(whole)
                self.runs.remove(run)
                first, last = min(whole) * page, (max(whole) + 1) * page
                self.runs += [
                    part for part in (Run(arena, run.start, first, "free"), Run(arena, last, run.end, "free")) if part.size
                ]

    def free(self, run: Run) -> None:
        run.state = "free"
        self.runs = coalesced(self.runs)


def coalesced(runs: list[Run]) -> list[Run]:
    """Free runs that touch become one; used runs stay the same objects."""
    result: list[Run] = []
    for run in sorted(runs, key=lambda run: (run.arena, run.start)):
        last = result[-1] if result else None
        if last and last.arena == run.arena and last.end == run.start and last.state == run.state == "free":
            last.end = run.end
        else:
            result.append(run)
    return result
