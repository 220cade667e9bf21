"""Optuna studies: journals and SQLite files that a tuning or a report reads."""

from __future__ import annotations

import json
import math
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, Final

from optuna.storages._rdb import storage as rdb

from attfc_planner.report.study_history import read_objectives
from attfc_planner.tune.studies.storage import open_storage, reachable
from attfc_planner.tune.studies.study import SharedStudy, study_names
from benchmarks.attack.documents import changed
from benchmarks.attack.formats.base import Format
from benchmarks.attack.mutations import mutated
from benchmarks.attack.outcome import Kind, Silent

KNOBS: Final = {"batch_size": 4, "share": 3, "storage": 2}
METRICS: Final = ("accuracy points", "images/s")
NAME: Final = "tiny-80"


def write_study(url: str, num_trials: int = 6) -> None:
    """Write a study with finished, failed and waiting trials, as a tuning does."""
    store = open_storage(url)
    with closing(store), reachable(url):
        study = SharedStudy(store, NAME, KNOBS, METRICS)
        study.note(question={"epochs": 5.0, "data": "synthetic:80x6"})
        for number in range(num_trials):
            indices = {"batch_size": number % 4, "share": number % 3, "storage": number % 2}
            study.enqueue(indices, "a start")
            claim = study.claim()
            if claim is None:
                continue
            claim.note(outcome="ran", peak_bytes=10**9 + number, wall_seconds=3.5)
            claim.constrain({"memory": -0.5})
            if number == num_trials - 1:
                claim.fail("failed")
            else:
                claim.complete([float(number), 100.0 + number])
        study.enqueue({"batch_size": 3, "share": 2, "storage": 1}, "waiting")


def read_study(url: str) -> Any:
    """Return what a resumed tuning takes from a study."""
    store = open_storage(url)
    with closing(store), reachable(url):
        if NAME not in study_names(store):
            return []
        study = SharedStudy(store, NAME, KNOBS, METRICS)
        study.bury()
        facts = study.facts
        study.importances(lambda record: record.values[1] if len(record.values) > 1 else None)
        return [facts, *((record.number, record.state, record.values, dict(record.indices)) for record in study.records())]


class DamagedJournals(Format):
    """A journal, read by a resumed tuning and by a report."""

    name = "journal"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "best.tune.jsonl"
        self.path.unlink(missing_ok=True)
        write_study(f"journal:{self.path}")
        self.clean = self.path.read_bytes()
        self.trials = dict(_trials(read_objectives(self.path)))
        self.content = b""

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        self.content, what = mutated(random, self.clean) if random.random() < 0.5 else _other_line(random, self.clean)
        self.path.write_bytes(self.content)
        for lock in self.folder.glob("*.lock"):
            lock.unlink()
        return what

    def use(self) -> Any:
        """Override `Format`."""
        objectives = read_objectives(self.path)
        read_study(f"journal:{self.path}")
        return objectives

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        trials = dict(_trials(taken))
        if not all(map(math.isfinite, trials.values())):
            raise Silent("a trial without a finite value counts")
        damaged = [line for line in self.content.split(b"\n")[:-1] if line.strip() and not _is_json(line)]
        if damaged and self.trials.keys() - trials.keys():
            raise Silent(f"trials were passed over with the line {damaged[0][:60]!r}")
        return "same" if trials == self.trials else "other"


def _trials(objectives: Any) -> list[tuple[tuple[str, int], float]]:
    return [((str(objective.name), trial.number), trial.value) for objective in objectives for trial in objective.trials]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _other_line(random: Random, content: bytes) -> tuple[bytes, str]:
    """Change a line as a document, or the order of the lines."""
    lines = content.splitlines()
    place = random.randrange(len(lines))
    match random.choice(("value", "value", "value", "gone", "twice", "swap", "blank")):
        case "gone":
            del lines[place]
            what = "line gone"
        case "twice":
            lines.insert(place, lines[place])
            what = "line twice"
        case "swap":
            lines[place], lines[-1 - place] = lines[-1 - place], lines[place]
            what = "lines swapped"
        case "blank":
            lines.insert(place, random.choice((b"", b"null", b"[]", b"1", b"{}", b'"x"')))
            what = "odd line"
        case _:
            document, what = changed(random, json.loads(lines[place]))
            try:
                lines[place] = json.dumps(document).encode()
            except (ValueError, RecursionError):
                lines[place] = b"[" * 10**5
    return b"\n".join(lines) + b"\n", what


class DamagedDatabases(Format):
    """An SQLite file, read by a tuning with ``--storage sqlite:///FILE``."""

    name = "sqlite study"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        _remember_head_version()
        self.path = folder / "tune.db"
        self.path.unlink(missing_ok=True)
        write_study(self.url)
        self.clean = self.path.read_bytes()

    @property
    def url(self) -> str:
        """The address for ``--storage``."""
        return f"sqlite:///{self.path}"

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        content, what = mutated(random, self.clean) if random.random() < 0.6 else _other_row(random, self.clean)
        for path in self.folder.glob("tune.db*"):
            path.unlink()
        self.path.write_bytes(content)
        return what

    def use(self) -> Any:
        """Override `Format`."""
        return read_study(self.url)

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        return "other" if taken else "same"


def _remember_head_version() -> None:
    """Let Optuna look once for the newest version of its tables: it runs all its migrations' files for that, at every opening.

    That takes half of a case's time and depends on no input.
    """
    look = rdb._VersionManager.get_head_version
    versions: list[str] = []

    def remembered(manager: rdb._VersionManager) -> str:
        if not versions:
            versions.append(look(manager))
        return versions[0]

    setattr(rdb._VersionManager, "get_head_version", remembered)  # noqa: B010  # a method to mypy


def _other_row(random: Random, content: bytes) -> tuple[bytes, str]:
    """Replace text inside the database by other text of the same length: documents, names of columns and states."""
    words = (b"tiny-80", b"COMPLETE", b"WAITING", b"RUNNING", b"MAXIMIZE", b"batch_size", b"trial_id", b"peak_bytes", b"FINITE")
    present = [word for word in words if word in content]
    word = random.choice(present or [b"\x00"])
    other = random.choice((word[::-1], b"x" * len(word), b"\xff" * len(word), b"0" * len(word), b'"' * len(word)))
    return content.replace(word, other, random.choice((1, 2, 100))), f"{word!r} as {other!r}"
