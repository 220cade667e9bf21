"""``attfc-plan import``: what AttFC would save on a run of InsightFace's arcface_torch, from its config."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attfc_train.command_line import Command, examples
from attfc_train.errors import UsageError

if TYPE_CHECKING:
    from attfc_planner.gpu.profile import GpuProfile
    from attfc_planner.plan.arcface_torch import ForeignRun
    from attfc_train.document import Precision


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command(
        name="import",
        cls=Command,
        epilog=examples("attfc-plan import configs/wf42m_pfc02_r100.py --gpu rtx-4090"),
    )(import_config)


def import_config(
    config: Annotated[Path, typer.Argument(help="A config of arcface_torch, such as configs/wf42m_pfc02_r100.py.")],
    gpu: Annotated[str, typer.Option(help="Device, as for a plan.")] = "auto",
    backbone: Annotated[str | None, typer.Option(help="Another network than the config's.")] = None,
    data: Annotated[str | None, typer.Option(help="Data set for the commands, where config.rec is not here.")] = None,
    precision: Annotated[str | None, typer.Option(help="bf16, fp16 or fp32 in place of the config's.")] = None,
) -> None:
    """Say what AttFC would save on a run of InsightFace's trainer; its config is read, never executed."""
    from attfc_planner.commands.device import device_for
    from attfc_planner.explain.savings import plan_command, savings, train_command
    from attfc_planner.memory.model import MemoryModel
    from attfc_planner.plan.arcface_torch import read_run
    from attfc_planner.screens.savings import show_savings
    from attfc_planner.screens.tracing import tracing
    from attfc_train.data.reading import existing_path
    from attfc_train.screen import Screen

    run = read_run(config, backbone)
    _check_network(run)
    console = Screen()
    device = device_for(console, gpu)
    chosen, notes = _precision(run, device, precision)
    with tracing(console, "Comparing the layers"):
        found = savings(run, device, chosen, lambda base, card: MemoryModel(base, card, card.capacity_bytes))
    here = data or (run.data if run.data and existing_path(run.data) else None)
    val = [path for path in run.val if Path(path).is_file()]
    commands = [plan_command(run, gpu, chosen, here), train_command(found.attfc, here or run.data, val)]
    notes = [*run.notes, *notes, *_unlike(run, here)]
    show_savings(console, found, commands, notes)


def _check_network(run: ForeignRun) -> None:
    from attfc_planner.plan.arcface_torch import NETWORKS

    if run.network not in NETWORKS:
        rule = f"config.network must be one that attfc has: {', '.join(NETWORKS)}"
        raise UsageError(rule, f"'{run.network}'", "Name the nearest with --backbone, e.g. --backbone r50.")


def _precision(run: ForeignRun, device: GpuProfile, wanted: str | None) -> tuple[Precision, list[str]]:
    """Return the precision to compare in, and a note where it is not the config's."""
    from attfc_planner.plan.request import BEST_FIRST, choose_precision

    if wanted is not None:
        known = next((each for each in BEST_FIRST if each == wanted), None)
        if known is None:
            raise UsageError("--precision must be bf16, fp16 or fp32", f"'{wanted}'", "Leave it out for the config's.")
        return choose_precision(known, device), []
    if device.supports(run.precision):
        return run.precision, []
    other = choose_precision(None, device)
    return other, [f"{device.name} has no {run.precision} arithmetic, so all rows are {other}"]


def _unlike(run: ForeignRun, here: str | None) -> list[str]:
    """Return notes on what the config says and the comparison is not about."""
    notes = ["config.batch_size is that of each process, and this is about one card; a run of several shares the layer out"]
    if run.data and here is None:
        notes.append(
            f"config.rec '{run.data}' is not here, so the config's numbers are taken; for the commands give --data DATA"
        )
    if run.interclass_filter:
        notes.append("interclass_filtering_threshold: AttFC has none; the other rows have it")
    return notes
