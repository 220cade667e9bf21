from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attfc_planner import launch as launching
from attfc_planner.launch import comparison, launch, new_run_folder, read_end, train_arguments
from attfc_planner.plan import Plan, PlanRequest, make_plan
from tests.planner.fakes import FakeMemoryModel, make_gpu


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(PlanRequest(num_ids=1000), make_gpu(), lambda *_: FakeMemoryModel())


def test_a_run_never_gets_the_folder_of_another(tmp_path: Path) -> None:
    for expected in ("r50", "r50-2", "r50-3"):
        folder = new_run_folder("r50", tmp_path)
        assert folder.name == expected
        folder.mkdir()


def test_the_trainers_arguments(plan: Plan) -> None:
    arguments = train_arguments(plan, Path("best.json"), "faces", Path("runs/a"))
    assert arguments == ["--profile", "best.json", "--data", "faces", "--output", "runs/a"]


def test_the_child_gets_expandable_segments_and_its_exit_code_comes_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(launching.ALLOCATOR, raising=False)
    seen: list[tuple[list[str], str | None]] = []
    real = subprocess.Popen

    def fake(command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        seen.append((command, env.get(launching.ALLOCATOR)))
        return real([sys.executable, "-c", "raise SystemExit(5)"], env=env)

    monkeypatch.setattr(subprocess, "Popen", fake)
    assert launch(["--profile", "best.json"], make_gpu()) == 5
    assert launch([], make_gpu(kind="cpu", architecture="cpu")) == 5
    assert seen[0] == ([sys.executable, "-m", "attfc_train.cli", "--profile", "best.json"], launching.EXPANDABLE)
    assert seen[1][1] is None
    assert launching.ALLOCATOR not in os.environ


def test_the_end_of_the_record_is_read(tmp_path: Path) -> None:
    assert read_end(tmp_path) is None
    end = {"event": "end", "step": 9, "images_per_second": 123.4, "peak_memory_bytes": 3 * 1024**3, "accuracy": 0.987}
    lines = [json.dumps({"event": "step", "step": 9}), json.dumps(end), '{"event": "cut sho']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    assert read_end(tmp_path) == end


def test_predicted_stands_beside_measured(plan: Plan) -> None:
    assert plan.profile.prediction is not None
    rows = comparison(
        plan.profile.prediction, {"images_per_second": 1234.5, "peak_memory_bytes": 3 * 1024**3, "accuracy": None}
    )
    assert [row[0] for row in rows] == ["images/s", "peak memory", "accuracy"]
    assert [row[2] for row in rows] == ["1,234.5", "3.00 GiB", "- (no --val)"]
