"""``attfc-plan``: plan for a device, write and show the plan, and train with it where that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
from attfc_planner.screens.tracing import tracing
from attfc_train.profile.former import former_words, replace_profile
from attfc_train.screen import Screen
from attfc_train.streams import typed
from attfc_train.units import format_bytes


@dataclass(frozen=True)
class PlannedRun:
    """A plan that was written and shown, and the folder of the run that would follow it."""

    plan: Plan
    folder: Path


def plan_and_train(request: PlanRequest, gpu_word: str, output: Path, train: bool, wanted: Callable[[], bool]) -> int:
    """Plan, train if that is wanted, and return an exit code.

    Args:
        gpu_word: a value of ``--gpu``.
        output: where the plan is written.
        train: whether to train in any case.
        wanted: asks whether to train, where the device is here and the data are known.
    """
    console = Screen()
    device = device_for(console, gpu_word, must_be_here=train)
    planned = _plan_and_show(console, request, device, output)
    may_ask = detect.is_here(device) and request.gpus == 1  # nobody has looked for other GPUs
    if request.data_path is None or request.teacher.is_missing or not (train or (may_ask and wanted())):
        return 0
    planned = _still_fitting(console, request, planned, output)
    code = launch.launch(launch.train_arguments(planned.plan, output, request.data_path, planned.folder), request.gpus)
    _compare(console, planned)
    return code


def _plan_and_show(console: Console, request: PlanRequest, device: GpuProfile, output: Path) -> PlannedRun:
    with tracing(console, "Planning"):
        made = plan.make_plan(pose(request, device))
    former = replace_profile(made.profile, output)
    if made.search.record is not None:
        made.search.record.save(output.with_name(f"{output.stem}.study.jsonl"))
    planned = PlannedRun(made, launch.new_run_folder(made.profile.name))
    arguments = launch.train_arguments(made, output, request.data_path or "DATA", planned.folder)
    show_plan(console, made, typed(launch.train_command(made, arguments)), f"{output}{former_words(former)}")
    return planned


def _still_fitting(console: Console, request: PlanRequest, planned: PlannedRun, output: Path) -> PlannedRun:
    """Return the plan, or a new one if others have taken so much memory that it no longer fits."""
    gpu = planned.plan.gpu
    held = fingerprint.foreign_bytes(gpu.kind)
    missing = 0 if held is None else launch.missing_bytes(planned.plan, held)
    if held is None or not missing:
        return planned
    console.print(f"Others have taken memory since: {format_bytes(missing)} too few. Planning again.", highlight=False)
    return _plan_and_show(console, request, launch.held_by_others(gpu, held, fingerprint.holders_now(gpu.kind)), output)


def _compare(console: Console, planned: PlannedRun) -> None:
    """Show predicted beside measured, if the run reached its end."""
    end = launch.read_end(planned.folder)
    prediction = planned.plan.profile.prediction
    if end is not None and prediction is not None:
        show_comparison(console, launch.comparison(prediction, end, planned.plan.gpu.kind))
