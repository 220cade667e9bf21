"""The parts of the attack, their counts, and each one's share of the time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.attack.formats.base import Format
from benchmarks.attack.formats.bins import DamagedBins
from benchmarks.attack.formats.caches import DamagedMeasurements, DamagedTraces
from benchmarks.attack.formats.logs import DamagedLogs, DamagedReports
from benchmarks.attack.formats.packages import (
    DamagedKeptIndices,
    DamagedLists,
    DamagedLmdbs,
    DamagedParquets,
    DamagedSubsets,
    DamagedTars,
)
from benchmarks.attack.formats.pictures import DamagedImages, OddFolders
from benchmarks.attack.formats.profiles import DamagedGpuProfiles, DamagedProfiles
from benchmarks.attack.formats.records import DamagedIndex, DamagedRecords
from benchmarks.attack.formats.studies import DamagedDatabases, DamagedJournals
from benchmarks.attack.formats.tensors import DamagedCheckpoints, DamagedModels, OtherCheckpoints, OtherModels
from benchmarks.attack.full_disk import FullDisks
from benchmarks.attack.kills import Kills
from benchmarks.attack.lanes import in_lanes, num_lanes
from benchmarks.attack.outcome import Outcome
from benchmarks.attack.power import PowerCuts
from benchmarks.attack.rivals import Rivals
from benchmarks.attack.shards import Failure, Tally, run_format
from benchmarks.attack.terminals import Terminals
from benchmarks.attack.tuning import Tunings

# The slowest come last: they share what time the others leave.
_ALONE: Final[tuple[type[Format], ...]] = (
    DamagedMeasurements,
    DamagedTraces,
    DamagedProfiles,
    DamagedGpuProfiles,
    DamagedIndex,
    DamagedRecords,
    DamagedKeptIndices,
    DamagedTars,
    DamagedLists,
    DamagedSubsets,
    DamagedImages,
    DamagedJournals,
    OddFolders,
    DamagedLmdbs,
    DamagedParquets,
    DamagedDatabases,
)
_OF_A_RUN: Final[tuple[Callable[[Path, Path], Format], ...]] = (
    DamagedLogs,
    DamagedReports,
    DamagedBins,
    OtherModels,
    DamagedModels,
    OtherCheckpoints,
    DamagedCheckpoints,
)
FORMATS: Final[tuple[str, ...]] = tuple(
    kind.name  # type: ignore[attr-defined]  # of several classes mypy sees what all are, a type
    for kind in (*_ALONE[:-1], *_OF_A_RUN, _ALONE[-1])
)


class Scenes(Protocol):
    """A part whose cases are whole processes."""

    cases: Sequence[Any]

    def try_case(self, number: int) -> tuple[str, Outcome]:
        """Try one."""
        ...


@dataclass(frozen=True, slots=True)
class Scenario:
    """Such a part, with what is right about it."""

    make: Callable[[Path, Path, int, int], Any]
    """Makes it of the undisturbed run, a folder, a seed and the number of cases."""
    wanted: int
    share: float
    """Of the whole time."""
    right: str


SCENARIOS: Final[dict[str, Scenario]] = {
    "kills": Scenario(Kills, 200, 0.22, "gone on with, the run ends with the same bits and the same record, nothing left over"),
    "power cuts": Scenario(PowerCuts, 80, 0.1, "as for a kill, from every disk that may be left"),
    "full disks": Scenario(FullDisks, 80, 0.12, "one line and exit code 9, nothing left over; with room again the same bits"),
    "pairs of trainers": Scenario(Rivals, 30, 0.05, "one trains to the same bits, the other is told that it is in use"),
    "screens": Scenario(Terminals, 10, 0.02, "training goes on, or stops with its state saved, to the same bits"),
    "killed tunings": Scenario(
        Tunings, 10, 0.3, "no process is left 10 s later, no file after the next tuning; the study can be gone on with"
    ),
}


def try_formats(names: Sequence[str], run: Path, folder: Path, seed: int, wanted: int, deadline: float) -> list[Tally]:
    """Attack formats on all cores.

    Args:
        run: folder of the undisturbed run.
        deadline: on the clock of `time.monotonic`; the time until then is shared evenly.
    """
    makers = [(name, maker(name, run)) for name in FORMATS if name in names]

    def work(unit: int) -> Any:
        name, make = makers[unit]
        # A format that is slow must not take the time of those that come after it: all of them share what is left.
        share = (deadline - time.monotonic()) * num_lanes() / (len(makers) - unit)
        tally = run_format(make, name, seed, wanted, min(deadline, time.monotonic() + share), folder / name.replace(" ", "-"))
        return stored(tally)

    return [loaded(document) for _, document in in_lanes(len(makers), work, folder / "lanes")]


def maker(name: str, run: Path) -> Callable[[Path], Format]:
    """Return what makes a format in a folder."""
    for kind in _ALONE:
        if kind.name == name:
            return kind
    of_a_run = {str(getattr(kind, "name", "")): kind for kind in _OF_A_RUN}
    return lambda folder: of_a_run[name](folder, run)


def try_scenario(name: str, run: Path, folder: Path, seed: int, wanted: int, deadline: float) -> Tally:
    """Try the cases of a scenario on all cores, until the time is over."""
    scenario = SCENARIOS[name]
    begin = time.monotonic()
    scenes: Scenes = scenario.make(run, folder, seed, wanted)

    def work(number: int) -> Any:
        if time.monotonic() > deadline:
            return None
        what, outcome = scenes.try_case(number)
        return [what, outcome.document()]

    tally = Tally(name, len(scenes.cases))  # of power cuts there may be fewer that differ
    for number, (what, document) in in_lanes(len(scenes.cases), work, folder / "lanes"):
        tally.add(number, what, Outcome(**document))
    tally.seconds = time.monotonic() - begin
    return tally


def stored(tally: Tally) -> dict[str, Any]:
    """Return a tally as JSON."""
    failures = [[failure.number, failure.what, failure.outcome.document()] for failure in tally.failures]
    counts = {"part": tally.part, "wanted": tally.wanted, "tried": tally.tried, "seconds": round(tally.seconds, 1)}
    return {**counts, "failed": tally.num_failures, "kinds": dict(sorted(tally.kinds.items())), "failures": failures}


def loaded(document: dict[str, Any]) -> Tally:
    """Return what `stored` gave."""
    part = document["part"]
    failures = [Failure(part, number, what, Outcome(**outcome)) for number, what, outcome in document["failures"]]
    kinds: Counter[Any] = Counter(document["kinds"])
    return Tally(part, document["wanted"], document["tried"], document["seconds"], kinds, failures)


def repeat(name: str, number: int, run: Path, folder: Path, seed: int) -> tuple[str, Outcome]:
    """Try one case again, in this process; its input stays in `folder`."""
    from benchmarks.attack.formats.base import try_case

    if name in SCENARIOS:
        scenes = partial(SCENARIOS[name].make, run, folder, seed)(max(number + 1, SCENARIOS[name].wanted))
        result: tuple[str, Outcome] = scenes.try_case(number)
        return result
    return try_case(maker(name, run)(folder), seed, number)
