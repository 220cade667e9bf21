"""The record of a run, and the inputs of a report."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from attfc_planner import cli as planner
from attfc_planner.plan import launch
from attfc_planner.report.build import report_html
from attfc_train.profile.prediction import Interval, MemoryPrediction, MemoryTerm, Prediction, Provenance
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.search_summary import ConstraintSlack, FrontPoint, SearchSummary
from attfc_train.run.log import read_log
from attfc_train.units import GIB
from benchmarks.attack.documents import changed
from benchmarks.attack.formats.base import Format
from benchmarks.attack.formats.records import small_profile
from benchmarks.attack.formats.studies import write_study
from benchmarks.attack.mutations import mutated
from benchmarks.attack.outcome import Kind, Silent

_FOREIGN: Final = re.compile(r"<script>alert|\x1b|\x07|\x00|\u202e|>nan<|>inf<|>-inf<")


class DamagedLogs(Format):
    """``log.jsonl``, as a report, a launch and a resumed run read it.

    Args:
        run: folder of a finished run.
    """

    name = "log"

    def __init__(self, folder: Path, run: Path) -> None:
        super().__init__(folder)
        self.path = folder / "log.jsonl"
        self.clean = (run / "log.jsonl").read_bytes()
        self.prediction = planned_profile().prediction
        self.content = b""

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        self.content, what = mutated(random, self.clean) if random.random() < 0.4 else damaged_lines(random, self.clean)
        self.path.write_bytes(self.content)
        return what

    def use(self) -> Any:
        """Override `Format`."""
        records = read_log(self.folder)
        end = launch.read_end(self.folder)
        if end is not None and self.prediction is not None:
            launch.comparison(self.prediction, end, "cpu")
        return records

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        whole = self.clean.splitlines()
        expected = [json.loads(line) for line in self.content.split(b"\n") if line in whole and line]
        place = 0
        for record in taken:
            place += place < len(expected) and record == expected[place]
        if place < len(expected):
            raise Silent(f"a whole line was lost: {str(expected[place])[:80]}")
        return "same" if self.content == self.clean else "other"


def damaged_lines(random: Random, content: bytes) -> tuple[bytes, str]:
    """Return a record in which a line says something else, is twice, lost or foreign."""
    lines = content.splitlines()
    place = random.randrange(len(lines))
    match random.choice(("value", "value", "gone", "twice", "odd", "cut")):
        case "gone":
            del lines[place]
            what = "line gone"
        case "twice":
            lines.insert(place, lines[place])
            what = "line twice"
        case "odd":
            odd = (
                b"",
                b"null",
                b"[]",
                b"{}",
                b'{"event": "end", "step": 1}',
                b'{"event": 1, "step": "x"}',
                b"\xff\xfe",
                b"[" * 10**5,
            )
            lines.insert(place, random.choice(odd))
            what = "odd line"
        case "cut":
            lines[place] = lines[place][: random.randrange(len(lines[place]))]
            what = "line cut"
        case _:
            document, what = changed(random, json.loads(lines[place]))
            try:
                lines[place] = json.dumps(document).encode()
            except (ValueError, RecursionError):
                what = "none"
    return b"\n".join(lines) + b"\n", what


class DamagedReports(Format):
    """A profile, a study and a run's record, one or all of them damaged, as a report takes them.

    Args:
        run: folder of a finished run.
    """

    name = "report"
    every = 50

    def __init__(self, folder: Path, run: Path) -> None:
        super().__init__(folder)
        self.profile = folder / "best.json"
        self.study = folder / "other.jsonl"
        self.run = folder / "run"
        self.run.mkdir(exist_ok=True)
        shutil.copy(run / "log.jsonl", self.run / "log.jsonl")
        write_study(f"journal:{self.study}")
        self.clean = (planned_profile().model_dump(mode="json"), self.study.read_bytes(), (run / "log.jsonl").read_bytes())

    def attack(self, random: Random) -> str:
        """Override `Format`."""
        document, study, log = self.clean
        which = random.choice(("profile", "profile", "study", "log", "all"))
        names = []
        if which in ("profile", "all"):
            document, what = changed(random, document)
            names.append(what)
        if which in ("study", "all"):
            study, what = mutated(random, study)
            names.append(f"study {what}")
        if which in ("log", "all"):
            log, what = damaged_lines(random, log)
            names.append(f"log {what}")
        try:
            text = json.dumps(document)
        except (ValueError, RecursionError):
            text = "[" * 10**5
        self.profile.write_text(text)
        self.study.write_bytes(study)
        (self.run / "log.jsonl").write_bytes(log)
        return ", ".join(names)

    def use(self) -> Any:
        """Override `Format`."""
        return report_html(self.profile, self.study, self.run)

    def judge(self, taken: Any) -> Kind:
        """Override `Format`."""
        found = _FOREIGN.search(taken)
        if found:
            around = taken[max(0, found.start() - 60) : found.end() + 20]
            raise Silent(f"{found[0]!r} stands in the page: {around!r}")
        if not taken.rstrip().endswith("</html>"):
            raise Silent("the page is not whole")
        return "other"

    def command(self) -> tuple[Callable[[], None], list[str]]:
        """Override `Format`."""
        output = str(self.folder / "report.html")
        inputs = ["--study", str(self.study), "--run", str(self.run)]
        return planner.main, ["attfc-plan", "report", str(self.profile), "-o", output, *inputs]


def planned_profile() -> TrainProfile:
    """Return a profile with everything that a plan can hold."""
    terms = (
        MemoryTerm(name="activations", bytes=GIB, source="traced"),
        MemoryTerm(name="container", bytes=GIB, source="traced"),
    )
    memory = MemoryPrediction(
        terms=terms, budget_bytes=8 * GIB, peak_phase="backward", peak_operator="convolution_backward", allocator=None
    )
    rate = Interval(low=900, high=2100, source="operators")
    hours = Interval(low=5, high=11.5, source="rate")
    prediction = Prediction(
        memory=memory,
        images_per_second=rate,
        hours_per_epoch=hours,
        limited_by="feature encoder",
        accuracy=Interval(low=-0.4, high=0.3, source="prior"),
    )
    provenance = Provenance(
        attfc_version="0.1.0",
        torch_version="2.13.0",
        created="2026-11-22T10:00:00+00:00",
        gpu="RTX 4090",
        gpu_source="catalogue entry rtx-4090, not measured",
        command="attfc-plan --gpu rtx-4090 --ids 80",
        seed=0,
        num_trials=12,
    )
    point = FrontPoint(settings={"batch_size": 4}, hours=20.0, images_per_second=500.0, accuracy=-0.1, memory_bytes=10**9)
    search = SearchSummary(
        rule="The fastest.",
        knobs={"batch_size": (4, 8)},
        left_out=("fp8: no such type",),
        num_settings=2,
        constraints=(ConstraintSlack(name="memory", value=2, limit=8, slack=6, unit="GiB"),),
        front=(point,),
    )
    whole = {**small_profile(), "prediction": prediction, "provenance": provenance, "search": search}
    return TrainProfile.model_validate(whole)
