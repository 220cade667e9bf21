"""What is free is compared with what was planned, and so is the allocator's setting."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from attfc_train import cuda_environment
from attfc_train.errors import DeviceMemoryError
from attfc_train.profile.file import with_overrides
from attfc_train.profile.prediction import Interval, MemoryPrediction, MemoryTerm, Prediction, Provenance
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.device_memory import free_memory
from attfc_train.run.preflight import check_start, prediction_for, replan_command, shortage
from attfc_train.units import GIB, MIB

CUDA = torch.device("cuda")
CPU = torch.device("cpu")
SIZES = {"activations": 9, "fragmentation": 1, "context": 1, "foreign": 2, "headroom": 1}


@pytest.fixture(autouse=True)
def setting_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", cuda_environment.PLANNED_ALLOCATOR)


def planned(
    kind: str = "cuda", command: str = "attfc-plan --gpu rtx-4090 --ids 100", native_gib: int | None = None
) -> TrainProfile:
    """11 GiB beside context and other processes, one of them headroom."""
    terms = tuple(MemoryTerm(name=name, bytes=size * GIB, source="a test") for name, size in SIZES.items())
    setting = cuda_environment.PLANNED_ALLOCATOR if kind == "cuda" else None
    memory = MemoryPrediction(terms=terms, budget_bytes=24 * GIB, peak_phase="loss", peak_operator="mm", allocator=setting)
    if native_gib is not None:
        memory = memory.model_copy(update={"native_bytes": native_gib * GIB})
    band = Interval(low=1, high=2, source="a test")
    prediction = Prediction(memory=memory, images_per_second=band, hours_per_epoch=None, limited_by="it", accuracy=band)
    facts = dict.fromkeys(("attfc_version", "torch_version", "created", "gpu", "gpu_source"), "a test")
    origin = Provenance(**facts, command=command, seed=0, num_trials=1)
    return TrainProfile(prediction=prediction, provenance=origin)


def said(profile: TrainProfile, free_gib: float | None, *, stop: bool = False, **changes: Any) -> list[str]:
    lines: list[str] = []
    free = None if free_gib is None else round(free_gib * GIB)
    arguments: dict[str, Any] = {"device": CUDA, "claim": lambda _: True, **changes}
    check_start(profile, stop=stop, say=lines.append, free=lambda _: free, **arguments)
    return lines


def test_enough_is_enough() -> None:
    assert said(planned(), 11) == []
    assert said(planned(), None) == []
    assert said(TrainProfile(), 0, stop=True) == []
    assert said(planned("cpu"), 0, stop=True) == []  # a plan for another kind of device


def test_a_plan_does_not_hold_where_the_gpu_decodes() -> None:
    """Catches a promise about a GPU whose decoder takes memory too, which no plan knows."""
    elsewhere = with_overrides(planned(), ["data.device=cuda"])
    assert elsewhere.prediction is not None
    assert prediction_for(planned(), "cuda") is not None
    assert prediction_for(elsewhere, "cuda") is None


def test_another_process_took_three_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "GPU:0\nprocess       4321 uses     3072.000 MB GPU memory"
    monkeypatch.setattr(torch.cuda, "list_gpu_processes", lambda _: listed)
    (line,) = said(planned(), 8)
    assert line.startswith("The plan needs 11.00 GiB, but cuda has 8.00 GiB free, 3,072 MiB too few (process 4321: 3,072 MiB)")
    assert line.endswith("To plan for what is free: attfc-plan --ids 100 --gpu auto")
    with pytest.raises(DeviceMemoryError, match=r"needs 11.00 GiB of cuda, but got 8.00 GiB free.*4321.*--on-oom shrink"):
        said(planned(), 8, stop=True)


@pytest.mark.parametrize("listed", ["no", "pynvml module not found, please install", "GPU:0\nno processes are running"])
def test_nvml_may_not_tell(listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def processes(_: torch.device) -> str:
        if listed == "no":
            raise RuntimeError("Insufficient Permissions")
        return listed

    monkeypatch.setattr(torch.cuda, "list_gpu_processes", processes)
    assert "MiB too few: steps" in said(planned(), 8)[0]


@pytest.mark.parametrize(
    ("number_here", "started", "told"),
    [
        ("ours", False, "(process 4321: 2,048 MiB)"),
        ("ours", True, "(process 4321: 2,048 MiB)"),
        ("another", False, "(process 4321: 2,048 MiB)"),  # in a container NVML's numbers are the host's
        ("another", True, "too few: steps"),
    ],
)
def test_this_process_is_not_among_the_others(
    monkeypatch: pytest.MonkeyPatch, number_here: str, started: bool, told: str
) -> None:
    """Catches a list that names attfc-train itself, and a look at it after the question that starts CUDA."""
    asked = [started]

    def processes(device: torch.device | int) -> str:
        asked.append(asked[-1] or device == CUDA)  # torch starts CUDA to learn the number
        lines = ["GPU:0", "process       4321 uses     2048.000 MB GPU memory"]
        if asked[-1]:
            number = os.getpid() if number_here != "another" else 77
            lines.append(f"process {number:>10d} uses      400.000 MB GPU memory")
        return "\n".join(lines)

    def free(_: torch.device) -> int:
        asked.append(True)
        return 8 * GIB

    monkeypatch.setattr(torch.cuda, "list_gpu_processes", processes)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: asked[-1])
    lines: list[str] = []

    def claim(_: torch.device) -> bool:
        asked.append(True)
        return True

    check_start(planned(), torch.device("cuda"), False, lines.append, free, claim)
    assert told in lines[0]


def test_headroom_alone_stops_nobody() -> None:
    (line,) = said(planned("cpu"), 10.5, stop=True, device=CPU)
    assert "512 MiB too few: only its headroom is cut" in line
    assert shortage(prediction_for(planned(), "cuda"), 10 * GIB).step_fits  # type: ignore[arg-type, union-attr]
    assert not shortage(prediction_for(planned(), "cuda"), 10 * GIB - MIB).step_fits  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize(
    ("command", "again"),
    [
        ("attfc-plan --gpu 'RTX 4090' --data 'my faces' --train", "attfc-plan --data 'my faces' --train --gpu auto"),
        ("attfc-plan --ids 5 --gpu=t4", "attfc-plan --ids 5 --gpu auto"),
        ("attfc-plan --gpu", "attfc-plan --gpu auto"),
        ("attfc-plan 'unclosed", "attfc-plan --gpu auto"),
    ],
)
def test_the_command_that_plans_again(command: str, again: str) -> None:
    assert replan_command(planned(command=command)) == again


def test_the_users_own_setting_is_told_with_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:128")
    (line,) = said(planned(native_gib=12), 20)
    assert line == (
        "The plan's memory is predicted for expandable segments, but native ones are in force (PYTORCH_ALLOC_CONF is "
        "'max_split_size_mb:128'): the allocator will reserve 12.00 GiB in place of 10.00 GiB, +20.0%. To have a plan that "
        "holds, unset PYTORCH_ALLOC_CONF"
    )
    assert "the allocator may reserve more than the 10.00 GiB predicted" in said(planned(), 20)[0]
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "garbage_collection_threshold:0.8, expandable_segments:true")
    assert said(planned(native_gib=12), 20) == []


def test_a_driver_without_expandable_segments_is_told_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a check that holds the plan's own need against what is free, though the run will need more."""

    def claim(_: torch.device) -> bool:
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", cuda_environment.NATIVE_ALLOCATOR)
        return False

    enough, short = said(planned(native_gib=12), 12.5, claim=claim)
    assert "native ones are in force (expandable ones are not supported here): the allocator will reserve 12.00 GiB" in enough
    assert enough.endswith("To have a plan that holds, plan again: attfc-plan --ids 100 --gpu auto")
    assert short.startswith("The plan needs 13.00 GiB, but cuda has 12.50 GiB free, 512 MiB too few: only its headroom is cut")
    with pytest.raises(DeviceMemoryError, match=r"needs 13.00 GiB of cuda, but got 11.50 GiB free"):
        said(planned(native_gib=12), 11.5, claim=claim, stop=True)


def test_the_first_allocation_is_made_without_a_plan_too() -> None:
    """Catches a claim behind the question whether there is a plan: under WSL2 the run would end in a driver error."""
    claimed: list[torch.device] = []
    assert said(TrainProfile(), 20, claim=lambda device: bool(claimed.append(device))) == []
    assert claimed == [CUDA]


def test_a_native_plan_may_need_less(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = planned()
    assert profile.prediction is not None
    memory = profile.prediction.memory.model_copy(update={"allocator": cuda_environment.NATIVE_ALLOCATOR})
    native = profile.model_copy(update={"prediction": profile.prediction.model_copy(update={"memory": memory})})
    assert "predicted for native segments; with expandable ones" in said(native, 20)[0]
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "")
    assert said(native, 20) == []


def test_the_planned_allocator_is_used_unless_the_user_chose() -> None:
    for given, expected in (
        ({}, cuda_environment.PLANNED_ALLOCATOR),
        ({"PYTORCH_ALLOC_CONF": "a:1"}, "a:1"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "b:2"}, "b:2"),
    ):
        environment = dict(given)
        cuda_environment.prepare(environment)
        assert cuda_environment.allocator_setting(environment) == expected


def test_a_prediction_is_of_one_setting() -> None:
    profile = planned()
    assert with_overrides(profile, ["run.log_every=5", "optim.learning_rate=0.05", "optim.batch_size=128"]) == (
        profile.model_copy(
            update={
                "run": profile.run.model_copy(update={"log_every": 5}),
                "optim": profile.optim.model_copy(update={"learning_rate": 0.05}),
            }
        )
    )
    for change in ("optim.accumulation=2", "optim.batch_size=64", "head.dcc_size=7", "run.precision=fp32"):
        assert with_overrides(profile, [change]).prediction is None


def test_free_memory_of_this_machine(tmp_path: Path) -> None:
    free = free_memory(CPU)
    assert free is None or free > 64 * MIB
    memory = prediction_for(planned(), "cuda")
    assert memory is not None
    assert memory.measured_bytes == 10 * GIB
    assert json.loads(memory.model_dump_json())["allocator"] == cuda_environment.PLANNED_ALLOCATOR
