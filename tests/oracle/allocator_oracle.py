"""A slow, obvious caching allocator: one flat list of runs that tile all addresses. It judges `attfc_planner.memory.allocator`.

Written from the rules (see that module's docstring), not from its code. Every question scans all memory again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import pairwise

MIB = 1024**2
ENDLESS = 1 << 60


class Full(Exception):
    pass


def round_up(value: int, multiple: int) -> int:
    return (value + multiple - 1) // multiple * multiple


@dataclass(eq=False)
class Run:
    """Addresses [start, end) of one arena; state is 'used', 'free' or, of a range without pages there, 'hole'."""

    arena: int
    start: int
    end: int
    state: str
    age: int
    """How many were there before it."""

    @property
    def size(self) -> int:
        return self.end - self.start


@dataclass
class Oracle(ABC):
    """Arenas are numbered in the order of their birth.

    Args:
        by_age: of equal free runs the older one is taken, and not the lower one of the older arena.
        device: bytes of the whole device; a range of addresses is 9/8 of it. None: as long as you like.
    """

    capacity: int
    by_age: bool = False
    device: int | None = None
    small: dict[int, bool] = field(default_factory=dict)
    """Of every arena: whether it is for small requests."""
    runs: list[Run] = field(default_factory=list)
    num_arenas: int = 0
    num_runs: int = 0
    retries: int = 0
    peak: int = 0

    def reserved(self) -> int:
        return sum(run.size for run in self.runs if run.state != "hole")

    def malloc(self, nbytes: int) -> Run:
        size = round_up(nbytes, 512)
        small = size <= MIB
        run = self.best_fit(small, size) or self.extended(small, size)
        if run is None:
            self.retries += 1
            self.release()
            run = self.extended(small, size)
        if run is None:
            raise Full
        rest = run.size - size
        if self.is_worth_keeping(rest, small):
            # The rest is the old run, and what is given out is a new one.
            run.start += size
            run = self.new_run(run.arena, run.start - size, run.start, "used")
        run.state = "used"
        return run

    def free(self, run: Run) -> None:
        """What is freed takes its free neighbours in, and keeps its age."""
        run.state = "free"
        self.take_in_neighbours(run)

    @abstractmethod
    def best_fit(self, small: bool, size: int) -> Run | None: ...

    @abstractmethod
    def extended(self, small: bool, size: int) -> Run | None: ...

    @abstractmethod
    def is_worth_keeping(self, rest: int, small: bool) -> bool: ...

    @abstractmethod
    def release(self) -> None: ...

    def fits(self, small: bool, size: int) -> list[Run]:
        """Free runs that are large enough, in the order in which the allocator looks at them."""
        free = [run for run in self.runs if run.state == "free" and self.small[run.arena] == small and run.size >= size]
        return sorted(free, key=lambda run: (run.size, run.age) if self.by_age else (run.size, run.arena, run.start))

    def new_run(self, arena: int, start: int, end: int, state: str) -> Run:
        self.num_runs += 1
        self.runs.append(Run(arena, start, end, state, self.num_runs))
        return self.runs[-1]

    def new_arena(self, small: bool, size: int, state: str) -> Run:
        self.num_arenas += 1
        self.small[self.num_arenas] = small
        return self.new_run(self.num_arenas, 0, size, state)

    def after(self, run: Run) -> Run | None:
        return next((other for other in self.runs if other.arena == run.arena and other.start == run.end), None)

    def before(self, run: Run) -> Run | None:
        return next((other for other in self.runs if other.arena == run.arena and other.end == run.start), None)

    def take_in_neighbours(self, run: Run) -> None:
        for other in (self.before(run), self.after(run)):
            if other is not None and other.state == run.state:
                run.start = min(run.start, other.start)
                run.end = max(run.end, other.end)
                self.runs.remove(other)


class NativeOracle(Oracle):
    """One arena per cudaMalloc."""

    def best_fit(self, small: bool, size: int) -> Run | None:
        return next(iter(self.fits(small, size)), None)

    def is_worth_keeping(self, rest: int, small: bool) -> bool:
        return rest >= 512 if small else rest > MIB

    def extended(self, small: bool, size: int) -> Run | None:
        wanted = 2 * MIB if small else 20 * MIB if size < 10 * MIB else round_up(size, 2 * MIB)
        if self.reserved() + wanted > self.capacity:
            return None
        run = self.new_arena(small, wanted, "free")
        self.peak = max(self.peak, self.reserved())
        return run

    def release(self) -> None:
        self.runs = [run for run in self.runs if run.state != "free" or self.before(run) or self.after(run)]


class ExpandableOracle(Oracle):
    """An arena is a range of addresses, tiled by pages that are mapped when they are needed."""

    def page(self, arena: int) -> int:
        return 2 * MIB if self.small[arena] else 20 * MIB

    def is_worth_keeping(self, rest: int, small: bool) -> bool:
        return rest > 0

    def best_fit(self, small: bool, size: int) -> Run | None:
        fits = self.fits(small, size)
        for first, second in pairwise(fits):
            if not self.reach(second) < self.reach(first):
                return first
        return fits[-1] if fits else None

    def reach(self, run: Run) -> int:
        """The size that a free run could have."""
        after = self.after(run)
        return run.size + (after.size if after is not None and after.state == "hole" else 0)

    def extended(self, small: bool, size: int) -> Run | None:
        """Map what is missing at the lowest place where `size` bytes are free or not mapped, at least some not mapped."""
        holes = [run for run in self.runs if run.state == "hole" and self.small[run.arena] == small]
        for hole in sorted(holes, key=lambda run: (run.arena, run.start)):
            before = self.before(hole)
            first = before if before is not None and before.state == "free" else hole
            if self.room(first) >= size:
                return self.mapped(first, size)
        return self.mapped(self.new_range(small, size), size)

    def new_range(self, small: bool, size: int) -> Run:
        """A request beyond 9/8 of the device has a range of its own, so that a run without end can be counted."""
        span = ENDLESS if self.device is None else max(size, self.device + self.device // 8)
        hole = self.new_arena(small, span, "hole")
        hole.end = round_up(span, self.page(hole.arena))
        return hole

    def room(self, run: Run | None) -> int:
        return 0 if run is None or run.state == "used" else run.size + self.room(self.after(run))

    def mapped(self, run: Run, size: int) -> Run | None:
        """Map holes from a run on, one after the other, until there are `size` free bytes in one piece."""
        while run.state == "hole" or run.size < size:
            hole = run if run.state == "hole" else self.after(run)
            if hole is None or hole.state == "used":
                return None
            missing = size if hole is run else size - run.size
            wanted = min(round_up(missing, self.page(hole.arena)), hole.size)
            if self.reserved() + wanted > self.capacity:
                return None
            if wanted < hole.size:
                self.new_run(hole.arena, hole.start + wanted, hole.end, "hole")
                hole.end = hole.start + wanted
            hole.state = "free"
            self.take_in_neighbours(hole)
            self.peak = max(self.peak, self.reserved())
            run = hole
        return run

    def release(self) -> None:
        """Whole pages inside of free runs become holes, in the order of the small pool's runs, then the large one's."""
        for run in self.fits(True, 0) + self.fits(False, 0):
            page = self.page(run.arena)
            first, last = round_up(run.start, page), run.end // page * page
            if first >= last:
                continue
            if run.start < first:
                self.new_run(run.arena, run.start, first, "free")
            if last < run.end:
                self.new_run(run.arena, last, run.end, "free")
            run.start, run.end, run.state = first, last, "hole"
            self.take_in_neighbours(run)
        # A range without pages is gone.
        self.runs = [run for run in self.runs if run.state != "hole" or self.before(run) or self.after(run)]
