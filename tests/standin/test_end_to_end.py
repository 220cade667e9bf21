"""Whole commands on the stand-in: planning with a calibration, tuning, training, resuming, evaluating, and a card that is full.

Kernels do nothing there, so losses and accuracies mean nothing; that a command ends as it should, what it says and what it
leaves behind do.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from attfc_train.cuda_environment import NATIVE_ALLOCATOR, PLANNED_ALLOCATOR
from attfc_train.errors import DeviceMemoryError
from attfc_train.profile.file import load_profile
from attfc_train.run.log import read_log
from attfc_train.run.preflight import planned_memory
from attfc_train.units import format_bytes
from tests.standin.commands import PLAN, TRAIN, Place

FACES = "synthetic:200x6"
STRANGERS = "synthetic:60x4+1000000"
SMALL = ("--backbone", "tiny", "--image-size", "32")
NO_ROOM = DeviceMemoryError.exit_code


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def place(tmp_path: Path, cache: Path) -> Place:
    return Place(tmp_path, cache)


@pytest.fixture(scope="module")
def small_plan(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A plan of the tiny network, for the calibrated stand-in."""
    place = Place(tmp_path_factory.mktemp("plan"), cache)
    place.run(*PLAN, "--data", FACES, "--val", STRANGERS, *SMALL, "--epochs", "2", "--output", "best.json")
    return place.folder / "best.json"


@pytest.fixture(scope="module")
def large_plan(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A plan of more than a GiB."""
    place = Place(tmp_path_factory.mktemp("plan"), cache)
    place.run(*PLAN, "--data", "synthetic:300x6", "--backbone", "r50", "--epochs", "1", "--output", "best.json")
    return place.folder / "best.json"


def test_a_card_is_calibrated_and_planned_for(place: Place, cache: Path) -> None:
    own = Place(place.folder, place.folder)
    first, warnings = own.run(*PLAN, "--gpu", "auto", "--ids", "2059906", "--output", "best.json", GIB=24)
    assert "Calibrated NVIDIA GeForce RTX 4090: 7 real runs" in " ".join(first.split())
    assert warnings == ""
    again, _ = own.run(*PLAN, "--gpu", "auto", "--ids", "2059906", "--output", "again.json", GIB=24)
    assert "Calibrated" not in again
    planned, repeated = (load_profile(own.folder / name) for name in ("best.json", "again.json"))
    assert planned.head == repeated.head
    assert planned.prediction is not None
    assert planned.prediction.memory.total_bytes < 24 * 2**30


def test_a_training_is_stopped_resumed_and_evaluated(place: Place, small_plan: Path) -> None:
    slow = ("--set", "run.steps=400", "--set", "run.log_every=1", "--set", "run.eval_every=400")
    child = place.start(*TRAIN, "--profile", str(small_plan), "--device", "cuda", "--output", "run", *slow)
    while child.poll() is None and not any(event["step"] >= 3 for event in events_of(place.folder / "run")):
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    output, errors = child.communicate()
    assert child.returncode == 128 + signal.SIGTERM, output + errors
    assert "Continue: attfc-train --resume run" in errors

    resumed, _ = place.run(*TRAIN, "--resume", "run", "--device", "cuda")
    assert "step 400/400" in resumed
    end = read_log(place.folder / "run")[-1]
    assert end["event"] == "end"
    assert 0 < end["peak_memory_bytes"] <= end["predicted_peak_bytes"]
    evaluated, _ = place.run(*TRAIN, "evaluate", "run", "--device", "cuda")
    assert "720" in evaluated, "pairs of the verification set"
    assert "has done all of its steps" in place.run(*TRAIN, "--resume", "run", "--device", "cuda")[0]


def events_of(run: Path) -> list[dict[str, Any]]:
    return [event for event in read_log(run) if "step" in event]


def test_a_small_card_is_refused_at_the_start(place: Place, large_plan: Path) -> None:
    _, errors = place.run(
        *TRAIN, "--profile", str(large_plan), "--device", "cuda", "--on-oom", "fail", GIB=0.9, ID="small", code=NO_ROOM
    )
    assert "MiB too few" in errors
    assert "process" not in errors, "this process is no other"


def test_a_small_card_gets_smaller_parts_until_none_fit(place: Place, large_plan: Path) -> None:
    output, errors = place.run(*TRAIN, "--profile", str(large_plan), "--device", "cuda", GIB=0.9, ID="small", code=NO_ROOM)
    assert output.count("It is repeated, and training goes on") >= 3
    assert "with 2 queries at a time" in errors
    assert "Traceback" not in errors
    assert len([event for event in read_log(place.folder / "runs/attfc") if event["event"] == "oom"]) >= 4


@pytest.fixture
def neighbour(place: Place) -> Iterator[subprocess.Popen[str]]:
    holds = "import time, torch; x = torch.empty(1800 << 20, dtype=torch.uint8, device='cuda'); print('ready', flush=True)"
    child = place.start("-c", f"{holds}; time.sleep(300)", **CROWDED)
    yield child
    child.kill()
    child.communicate()


CROWDED = {"ID": "crowded", "GIB": 4, "FOREIGN_MIB": 500}


def test_the_neighbour_is_named(place: Place, large_plan: Path, neighbour: subprocess.Popen[str]) -> None:
    """Catches a list of holders that is asked for after CUDA has started here: this process would be named."""
    assert neighbour.stdout is not None
    assert neighbour.stdout.readline() == "ready\n"
    arguments = ("--profile", str(large_plan), "--device", "cuda", "--on-oom", "fail")
    _, errors = place.run(*TRAIN, *arguments, code=NO_ROOM, **CROWDED)
    assert f"MiB too few (process {neighbour.pid}: 2,200 MiB). Free it" in errors


def test_no_room_for_a_convolutions_workspace_is_no_room(place: Place, small_plan: Path) -> None:
    """cuDNN then finds no engine, which is an out-of-memory error like every other."""
    arguments = ("--profile", str(small_plan), "--device", "cuda", "--on-oom", "fail")
    _, errors = place.run(*TRAIN, *arguments, code=NO_ROOM, GIB=2, CONV_WORKSPACE=4000, ID="workspace")
    assert "unable to find an engine" in errors
    assert "Traceback" not in errors


@pytest.mark.skipif(torch.__version__ < "2.14", reason="torch fails there by itself (pytorch#186374)")
def test_no_user_sees_that_there_is_no_fabric(place: Place, small_plan: Path) -> None:
    arguments = ("--profile", str(small_plan), "--device", "cuda", "--set", "run.steps=8")
    assert place.run(*TRAIN, *arguments, FABRIC="refused")[1].count("Fabric") == 0


TRACES_AFTER_BACKWARD = """
import sys, torch
from pathlib import Path
from attfc_planner.trace.store import Traces
from tests.planner.trace.profiles import small_profile
weight = torch.ones(4, device="cuda", requires_grad=True)
weight.sum().backward()
traces = Traces(Path("traces"))
traces.prepare_exact([small_profile(batch_size=size) for size in (8, 16)])
print(len(traces._exact), "attfc_planner.trace.recorder" in sys.modules)
"""


def test_traces_are_made_after_a_backward_pass_on_the_device(place: Place) -> None:
    """Catches forks of this process, in which torch refuses backward passes: the caller would have to trace by itself."""
    assert place.run("-c", TRACES_AFTER_BACKWARD) == ("2 False\n", "")


@pytest.mark.slow
def test_a_recipe_is_tuned(place: Place, small_plan: Path) -> None:
    asked = ("--data", "synthetic:120x6", "--val", STRANGERS, *SMALL, "--epochs", "1", "--trials", "1", "--output", "best.json")
    output, errors = place.run(*PLAN, "tune", *asked)
    assert "Written: best.json" in output
    assert "Traceback" not in errors
    assert load_profile(place.folder / "best.json").prediction is not None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("capacity", ("--output", "result")),
        ("memory_matrix", ("--minutes", "1.5", "--lines", "result")),
        ("predicted_and_measured", ("--steps", "1", "--cases", "2", "--output", "result")),
    ],
)
def test_a_benchmark_runs(place: Place, module: str, arguments: tuple[str, ...]) -> None:
    """Catches a benchmark that nobody could run where there is no GPU, and that fails at the first one."""
    place.run("-m", f"benchmarks.{module}", *arguments)
    result = (place.folder / "result").read_text()
    assert result.strip()
    assert '"failed"' not in result


@pytest.fixture
def native_place(place: Place) -> Place:
    """Caches of a card without expandable segments: its measurements are not those of the others."""
    return Place(place.folder, place.folder)


@pytest.mark.slow
def test_a_driver_without_expandable_segments_is_planned_for_and_trained_on(native_place: Place) -> None:
    """Catches a probe that does not look, a calibration or a training that ends in the driver's error, and another figure."""
    arguments = ("--data", FACES, *SMALL, "--epochs", "2", "--output", "best.json")
    planned, _ = native_place.run(*PLAN, *arguments, EXPANDABLE=0)
    assert "Memory is predicted with native segments: expandable ones are not supported here." in planned
    prediction = load_profile(native_place.folder / "best.json").prediction
    assert prediction is not None
    assert prediction.memory.allocator == NATIVE_ALLOCATOR
    short = ("--profile", "best.json", "--device", "cuda", "--set", "run.steps=8", "--output", "run")
    said, errors = native_place.run(*TRAIN, *short, EXPANDABLE=0)
    assert "segments" not in said + errors, "it is as planned"
    start, *_, end = read_log(native_place.folder / "run")
    assert start["allocator"] == NATIVE_ALLOCATOR
    assert end["predicted_peak_bytes"] == prediction.memory.measured_bytes >= end["peak_memory_bytes"] > 0
    assert "720" in native_place.run(*TRAIN, "evaluate", "run", "--device", "cuda", "--val", STRANGERS, EXPANDABLE=0)[0]


@pytest.mark.parametrize(
    ("variable", "reason"),
    [({"EXPANDABLE": 0}, "expandable ones are not supported here"), ({}, "PYTORCH_ALLOC_CONF is 'max_split_size_mb:512'")],
    ids=["driver", "user"],
)
def test_a_plan_for_expandable_segments_is_trained_with_native_ones(
    place: Place, large_plan: Path, variable: dict[str, int], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a run that is held against a figure that it cannot keep, and says nothing."""
    if not variable:
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:512")
    memory = planned_memory(load_profile(large_plan), "cuda")
    assert memory is not None
    assert memory.native_bytes is not None
    short = ("--profile", str(large_plan), "--device", "cuda", "--set", "run.steps=6", "--output", "run")
    said, errors = place.run(*TRAIN, *short, ID="native", CONV_WORKSPACE="rule", **variable)
    figures = f"{format_bytes(memory.native_bytes)} in place of {format_bytes(memory.measured_bytes)}"
    assert f"native ones are in force ({reason}): the allocator will reserve {figures}" in said
    assert "Traceback" not in errors
    start, noted, *_, end = read_log(place.folder / "run")
    assert noted["event"] == "allocator"
    assert (noted["planned"], noted["planned_peak_bytes"]) == (PLANNED_ALLOCATOR, memory.measured_bytes)
    assert start["predicted_peak_bytes"] == noted["predicted_peak_bytes"] == end["predicted_peak_bytes"] == memory.native_bytes
    assert 0.9 * memory.native_bytes < end["peak_memory_bytes"] <= memory.native_bytes
