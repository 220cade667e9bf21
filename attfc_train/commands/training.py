"""``attfc-train`` without a command: start a run, or go on with one; torch is loaded once the arguments are right."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from attfc_train.commands.models import must_exist
from attfc_train.errors import CheckpointError, UsageError
from attfc_train.exits import check_device
from attfc_train.ranks.launch import Place, device_for, place, together
from attfc_train.ranks.ranks import Ranks

if TYPE_CHECKING:
    import torch

    from attfc_train.profile.profile import TrainProfile
    from attfc_train.run.collapse import OnCollapse
    from attfc_train.run.longer import Initialise
    from attfc_train.run.out_of_memory import OnOom
    from attfc_train.run.run import RunOptions


@dataclass(frozen=True, slots=True)
class Source:
    """The options that say what is trained."""

    profile: Path | None
    preset: str | None
    resume: Path | None
    output: Path
    data: str | None
    val: Sequence[str]
    override: Sequence[str]
    extend: float | None
    init: Path | None
    teacher: str | None = None

    @property
    def assignments(self) -> list[str]:
        """The assignments of ``--set``, then those of ``--data``, ``--val`` and ``--teacher``, which win over them."""
        given = {"data.path": self.data, "run.val": list(self.val) or None, "teacher.path": self.teacher}
        return [*self.override, *(f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None)]


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """The options of this process, as they were typed."""

    device: str
    trackers: Sequence[str]
    """Options such as ``--tensorboard``."""
    on_oom: str
    on_collapse: str


def train(source: Source, given: Sequence[str], process: ProcessOptions) -> None:
    """Train a profile or a preset, or resume a run.

    Args:
        given: the options that stand on the command line.

    Raises:
        UsageError, ProfileError, CheckpointError: an option or a setting makes no sense; torch was not loaded.
    """
    here = place(os.environ)
    folder = source.resume or source.output
    go_on = f"Continue from its last checkpoint with the same torchrun and --resume {folder}; without one start again."
    with together(here, go_on) as ranks:  # of several processes one tells what is wrong
        _train(source, given, process, _Crew(ranks, here))


@dataclass(frozen=True, slots=True)
class _Crew:
    """The processes of the run, and this one's place among them; None: it is alone."""

    ranks: Ranks
    here: Place | None


def _train(source: Source, given: Sequence[str], process: ProcessOptions, crew: _Crew) -> None:
    sources = [name for name in given if name in ("--profile", "--preset", "--resume")]
    if len(sources) != 1:
        remedy = "Example: attfc-train --preset tiny --data synthetic:500x20. See attfc-train --help."
        got = " and ".join(sources) or "none"
        raise UsageError("exactly one of --profile, --preset and --resume must be given", got, remedy)
    from attfc_train.run.trackers import check_trackers

    check_trackers(process.trackers)
    if source.resume is not None:
        _resume(source.resume, source, given, process, crew)
        return
    if source.extend is not None:
        raise UsageError("--extend needs a run to continue", "no --resume", "Add --resume RUN, or set run.epochs.")
    profile = loaded(source)
    if source.init is not None:
        must_exist([source.init], "--init")

    from attfc_train.export.teacher import open_teacher
    from attfc_train.run import run

    run.start(profile, _run_options(source.output, process, crew), _initialiser(source.init), open_teacher)


def _resume(folder: Path, source: Source, given: Sequence[str], process: ProcessOptions, crew: _Crew) -> None:
    superfluous = [name for name in given if name in ("--val", "--output", "--init")]
    if superfluous:
        raise UsageError("--resume takes its settings from the run", " and ".join(superfluous), "Leave them out.")
    if not os.path.isdir(folder):
        got = "a file" if os.path.exists(folder) else "no such folder"
        raise CheckpointError(f"the run '{folder}' must exist", got, "Give the folder of a run that has saved.")

    from attfc_train.run.longer import check_resumable

    check_resumable(source.assignments)

    from attfc_train.export.teacher import open_teacher
    from attfc_train.run import run

    run.resume(_run_options(folder, process, crew), source.assignments, source.extend, open_teacher)


def loaded(source: Source) -> TrainProfile:
    """Return the checked profile or preset of the options, with their assignments.

    Raises:
        UsageError, ProfileError: it cannot be read, or breaks a rule.
    """
    from attfc_train.profile.file import load_preset, load_profile, with_overrides

    if source.preset is not None:
        loaded = load_preset(source.preset)
    else:
        assert source.profile is not None
        loaded = load_profile(source.profile)
    return with_overrides(loaded, source.assignments)


def _run_options(folder: Path, process: ProcessOptions, crew: _Crew) -> RunOptions:
    from attfc_train.run.run import RunOptions
    from attfc_train.screen import Screen

    device = device_of(device_for(process.device, crew.here))
    policies = cast("OnOom", process.on_oom), cast("OnCollapse", process.on_collapse)
    screen = Screen(quiet=not crew.ranks.is_first)
    return RunOptions(folder, device, screen, process.trackers, *policies, crew.ranks.on(device))


def _initialiser(init: Path | None) -> Initialise | None:
    if init is None:
        return None
    from attfc_train.export.model_file import initialise

    return partial(initialise, path=init)


def device_of(name: str) -> torch.device:
    """Return the device of a value of ``--device``.

    Raises:
        UsageError: it is not on this machine.
    """
    import torch

    return torch.device(check_device(name))
