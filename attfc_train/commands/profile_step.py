"""``attfc-train profile-step``: where the time of a train step goes; torch is imported once the options are right."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from attfc_train.command_line import Command, count, examples
from attfc_train.commands.training import Source, device_of, loaded
from attfc_train.errors import UsageError
from attfc_train.exits import known_device
from attfc_train.ranks.launch import place
from attfc_train.sources import named_by_options

_STEPS: Final = 20
_MOST_STEPS: Final = 10_000
_QUIET: Final = "99"
"""Above all levels of the profiler's log, which goes to stderr."""


def add_to(app: typer.Typer) -> None:
    """Add the command to the command line."""
    lines = (
        "attfc-train profile-step --profile best.json --data faces",
        "attfc-train profile-step --preset tiny --data synthetic:50x20 --trace t.json",
        "attfc-train profile-step --preset attfc --set data.num_ids=2M --json",
    )
    app.command("profile-step", cls=Command, epilog=examples(*lines))(profile_step)


def profile_step(
    profile: Annotated[Path | None, typer.Option(help="Training profile, as attfc-plan writes it.", metavar="FILE")] = None,
    preset: Annotated[str | None, typer.Option(help="A shipped profile; see 'attfc-train presets'.", metavar="NAME")] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="As for training; random images and no waiting without it. Repeatable.", metavar="SET"),
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="As for training.", metavar="MODEL")] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a setting of the profile; 'presets show' has them. Repeatable.", metavar="SECTION.KEY=VALUE"
        ),
    ] = None,
    steps: Annotated[
        int,
        typer.Option(
            help="Steps to time phase by phase; as many again are timed whole.",
            metavar="NUMBER",
            parser=count("--steps", 1, _MOST_STEPS),
        ),
    ] = _STEPS,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", metavar="DEVICE", parser=known_device)] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    trace: Annotated[
        Path | None,
        typer.Option(help="Also write a Chrome trace of three more steps: .json or .json.gz.", metavar="FILE"),
    ] = None,
) -> None:
    """Time the phases of a real train step, beside its FLOPs, its bytes and the device's measured ceilings."""
    if (profile is None) == (preset is None):
        got = "both" if preset is not None else "neither"
        remedy = "Example: attfc-train profile-step --profile best.json --data faces."
        raise UsageError("exactly one of --profile and --preset must be given", got, remedy)
    if place(os.environ) is not None:
        got = f"WORLD_SIZE={os.environ['WORLD_SIZE']}"
        raise UsageError("profile-step profiles the step of one process", got, "Start it without torchrun.")
    if trace is not None:
        os.environ.setdefault("KINETO_LOG_LEVEL", _QUIET)  # torch's profiler reads it when torch is imported
    chosen = loaded(Source(profile, preset, None, Path(), named_by_options(data), (), override or (), None, None, teacher))

    from attfc_train.commands.profile_step_screen import show_profiled_step
    from attfc_train.timing.profiled import StepOptions

    show_profiled_step(chosen, StepOptions(device_of(device), steps, trace), as_json)
