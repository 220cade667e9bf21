"""What ``attfc-plan`` does: plan for a device, write and show the plan, and train with it where that is wanted."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from attfc_planner.commands.device import device_for
from attfc_planner.gpu import detect, fingerprint
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.plan import launch, plan
from attfc_planner.plan.plan import Plan
from attfc_planner.plan.problem import pose
from attfc_planner.plan.request import PlanRequest
from attfc_planner.screens.plan import show_comparison, show_plan
from attfc_train.profile.file import save_profile
from attfc_train.units import format_bytes


def plan_and_train(request: PlanRequest, gpu_word: str, output: Path, train: bool, wanted: Callable[[], bool]) -> int:
    """Plans, and trains if `train` or, where the device is here and the data are known, if `wanted`; returns an exit code."""
    console = Console()
    device = device_for(console, gpu_word, must_be_here=train)
    made, run_folder = _plan_and_show(console, request, device, output)
    if request.data_path is None or not (train or (detect.is_here(device) and wanted())):
        return 0
    made, run_folder = _still_fitting(console, request, made, run_folder, output)
    code = launch.launch(launch.train_arguments(made, output, request.data_path, run_folder))
    _compare(console, made, run_folder)
    return code


def _plan_and_show(console: Console, request: PlanRequest, device: GpuProfile, output: Path) -> tuple[Plan, Path]:
    """A plan, and the folder of its run."""
    with console.status("Planning: tracing the train step where it was not traced before ..."):
        made = plan.make_plan(pose(request, device))
    save_profile(made.profile, output)
    if made.search.record is not None:
        made.search.record.save(output.with_name(f"{output.stem}.study.jsonl"))
    run_folder = launch.new_run_folder(made.profile.name)
    arguments = launch.train_arguments(made, output, request.data_path or "DATA", run_folder)
    show_plan(console, made, shlex.join(["attfc-train", *arguments]))
    console.print(f"Written: {output}", highlight=False, soft_wrap=True)
    return made, run_folder


def _still_fitting(console: Console, request: PlanRequest, made: Plan, run_folder: Path, output: Path) -> tuple[Plan, Path]:
    """The plan, or another one where others have taken so much memory since that it does not fit any more."""
    held = fingerprint.foreign_bytes(made.gpu.kind)
    missing = 0 if held is None else launch.missing_bytes(made, held)
    if held is None or not missing:
        return made, run_folder
    console.print(f"Others have taken memory since: {format_bytes(missing)} too few. Planning again.", highlight=False)
    return _plan_and_show(console, request, launch.held_by_others(made.gpu, held), output)


def _compare(console: Console, made: Plan, run_folder: Path) -> None:
    """Predicted beside measured, where the run reached its end."""
    end = launch.read_end(run_folder)
    if end is not None and made.profile.prediction is not None:
        show_comparison(console, launch.comparison(made.profile.prediction, end, made.gpu.kind))
