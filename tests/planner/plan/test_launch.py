from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from attfc_planner.plan.launch import (
    comparison,
    held_by_others,
    launch,
    missing_bytes,
    new_run_folder,
    read_end,
    train_arguments,
)
from attfc_planner.plan.plan import Plan, make_plan
from attfc_planner.plan.problem import pose
from attfc_planner.plan.request import PlanRequest
from attfc_train.cuda_environment import PLANNED_ALLOCATOR
from attfc_train.processes import command
from attfc_train.profile.prediction import Interval, MemoryPrediction, MemoryTerm, Prediction
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel, make_gpu


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(pose(PlanRequest(num_ids=1000), make_gpu(), lambda *_: FakeMemoryModel()))


def test_a_run_never_gets_the_folder_of_another(tmp_path: Path) -> None:
    for expected in ("r50", "r50-2", "r50-3"):
        folder = new_run_folder("r50", tmp_path)
        assert folder.name == expected
        folder.mkdir()


def test_the_trainers_arguments(plan: Plan) -> None:
    arguments = train_arguments(plan, Path("best.json"), "faces", Path("runs/a"))
    assert arguments == ["--profile", "best.json", "--data", "faces", "--output", "runs/a", "--device", "cuda"]


def test_what_others_took_since_the_plan_is_missing(plan: Plan) -> None:
    assert plan.profile.prediction is not None
    free = plan.gpu.capacity_bytes - plan.profile.prediction.memory.total_bytes
    assert missing_bytes(plan, 0) == missing_bytes(plan, free) == 0
    assert missing_bytes(plan, free + 3 * GIB) == 3 * GIB
    again = make_plan(pose(PlanRequest(num_ids=1000), held_by_others(plan.gpu, 20 * GIB), lambda *_: FakeMemoryModel()))
    assert again.gpu.foreign_bytes == 20 * GIB
    assert again.gpu.sources["foreign_bytes"] == "measured again before the launch"


POPEN = subprocess.Popen


def instead(monkeypatch: pytest.MonkeyPatch, program: str) -> list[list[str]]:
    """The child runs `program`; returns the commands that were asked for."""
    commands: list[list[str]] = []

    def fake(command: list[str]) -> subprocess.Popen[bytes]:
        commands.append(command)
        return POPEN([sys.executable, "-c", program])

    monkeypatch.setattr(subprocess, "Popen", fake)
    return commands


def test_the_childs_exit_code_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = instead(monkeypatch, "raise SystemExit(5)")
    assert launch(["--profile", "best.json"]) == 5
    assert commands == [command("attfc_train.cli", "--profile", "best.json")]
    instead(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert launch([]) == 128 + signal.SIGKILL


SAVES_AND_LEAVES = """
import pathlib, signal, sys, time
def leave(number, frame):
    pathlib.Path("saved").write_text(str(number))
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, leave)
pathlib.Path("ready").touch()
time.sleep(60)
"""


def test_sigterm_reaches_the_child_and_its_end_is_awaited(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    instead(monkeypatch, SAVES_AND_LEAVES)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def stop() -> None:
        while not Path("ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C is the child's affair (this child did not get it)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    assert launch([]) == 128 + signal.SIGTERM
    thread.join()
    assert Path("saved").read_text() == str(int(signal.SIGTERM))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_end_of_the_record_is_read(tmp_path: Path) -> None:
    assert read_end(tmp_path) is None
    end = {"event": "end", "step": 9, "images_per_second": 123.4, "peak_memory_bytes": 3 * 1024**3, "accuracy": 0.987}
    lines = [json.dumps({"event": "step", "step": 9}), json.dumps(end), '{"event": "cut sho']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert read_end(tmp_path) == end


END = {"images_per_second": 1234.5, "peak_memory_bytes": 3 * GIB, "accuracy": 0.9342}


def prediction(kind: str = "cuda") -> Prediction:
    sizes = {"activations": 4, "context": 1, "foreign": 5, "headroom": 2}
    terms = tuple(MemoryTerm(name=name, bytes=size * GIB, source="a test") for name, size in sizes.items())
    return Prediction(
        memory=MemoryPrediction(
            terms=terms,
            budget_bytes=24 * GIB,
            peak_phase="loss",
            peak_operator="mm",
            allocator=PLANNED_ALLOCATOR if kind == "cuda" else None,
        ),
        images_per_second=Interval(low=1000, high=2000, source="a test"),
        hours_per_epoch=None,
        limited_by="a test",
        accuracy=Interval(low=-0.5, high=0.5, source="a test"),
    )


@pytest.mark.parametrize(
    ("kind", "figure", "predicted"),
    [
        ("cuda", "peak memory (without context and headroom)", "4.00 GiB"),
        ("cpu", "peak memory (without headroom)", "5.00 GiB"),
    ],
)
def test_predicted_and_measured_are_of_the_same_thing(kind: str, figure: str, predicted: str) -> None:
    assert comparison(prediction(kind), END, kind) == [
        ("images/s", "1,000 to 2,000", "1,234.5"),
        (figure, predicted, "3.00 GiB"),
        ("accuracy", "prior -0.50 to +0.50 points against full FC", "93.4 %"),
    ]


def test_what_was_not_measured_is_a_dash() -> None:
    rows = comparison(prediction(), {"accuracy": None}, "cuda")
    assert [row[2] for row in rows] == ["-", "-", "- (no --val)"]
