"""Checkpoints: each is one atomic file that holds everything a run needs to go on as if it had never stopped.

Format 2: a `attfc_train.run.tensor_file` with ``format``, ``profile`` (JSON), ``state`` (`TrainState.saved`), ``rng`` and
``best_accuracy``. The sampler needs no entry: its draw depends on the step alone.

``checkpoint.pt`` is the last one, ``checkpoint.1.pt`` the one before, and so on; each stays until the next is on the disk. A
file is distrusted: its checksums are looked at first, then keys, profile and step, before `Checkpoint.restore` lets torch
compare the shapes. Each ends in a `CheckpointError`, however the file is damaged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from attfc_train.errors import CheckpointError
from attfc_train.files import keep_under, write_atomically
from attfc_train.heads.containers.resize import Kept
from attfc_train.profile.profile import TrainProfile
from attfc_train.ranks.ranks import Ranks
from attfc_train.run.tensor_file import DamagedFileError, load_tensors, save_tensors, short
from attfc_train.run.tensor_writer import Packed
from attfc_train.step.state import TrainState

FORMAT = 2
"""2: containers have a storage and say when each slot was written."""
FILE_NAME = "checkpoint.pt"
_KEYS = {"format", "profile", "state", "rng", "best_accuracy"}


def earlier_name(age: int) -> str:
    """Return the name of the checkpoint that is `age` saves older than the last one."""
    return f"checkpoint.{age}.pt"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint, whose tensors are mapped: they come into memory when they are used."""

    path: Path
    profile: TrainProfile
    state: dict[str, Any]
    rng: dict[str, Any]
    best_accuracy: float | None

    @property
    def step(self) -> int:
        """The number of optimiser steps done."""
        return int(self.state["step"])

    @property
    def exported_encoder(self) -> dict[str, Any]:
        """The state of the encoder that is evaluated (`TrainState.exported_encoder`)."""
        saved: dict[str, Any] | None = self.state.get("class_encoder") if self.profile.head.exports_class_encoder else None
        return saved or self.state["feature_encoder"]

    def restore(self, state: TrainState) -> Kept | None:
        """Restore weights, container, optimiser, scaler, step and random generators.

        Returns:
            How many centers were kept where the container has another size or form; else None.

        Raises:
            CheckpointError: `state` has another architecture.
        """
        other_container = self.profile.head.container_form != state.profile.head.container_form
        try:
            kept = state.restore(self.state, other_container)
            torch.set_rng_state(self.rng["cpu"])
            if state.device.type == "cuda" and "cuda" in self.rng:
                torch.cuda.set_rng_state(self.rng["cuda"], state.device)
        except (KeyError, IndexError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"'{self.path}' must hold the architecture of the profile", short(error), "Resume with the run's own folder."
            ) from error
        return kept


@dataclass(slots=True)
class Checkpoints:
    """The checkpoints of a run folder.

    Args:
        folder: of the run, locked.
        keep: checkpoints to keep, the last one included.
        step: of the last checkpoint; None where there is none, or none that is worth keeping.
    """

    folder: Path
    keep: int
    step: int | None = None

    def save(self, state: TrainState, best_accuracy: float | None) -> None:
        """Write `state` atomically, and keep what was the last checkpoint; one of the same step is replaced.

        All processes of a run must call it: rank 0 writes their parts of the head as they come. The others wait until it is
        written: one that left before, as after a signal, would end rank 0 in the midst of it (`attfc_train.ranks.watch`).

        Raises:
            StorageError: the disk is full or not writable; the former checkpoints are intact.
        """
        rng = {"cpu": torch.get_rng_state()}
        if state.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state(state.device)
        content = {
            "format": FORMAT,
            "profile": state.profile.model_dump_json(),
            "state": state.saved(),
            "rng": rng,
            "best_accuracy": best_accuracy,
        }
        is_kept = self.step is not None and self.step != state.step
        packed = Packed(content)
        if state.ranks.is_first:
            write_atomically(self.folder / FILE_NAME, packed.write, self._make_room if is_kept else None)
        else:
            packed.give()
        self.step = state.ranks.told(state.step)

    def _make_room(self) -> None:
        """Let every checkpoint be one save older; those that are too many go."""
        for age in range(self.keep - 2, 0, -1):
            path = self.folder / earlier_name(age)
            if path.exists():
                path.replace(self.folder / earlier_name(age + 1))
        if self.keep > 1:
            keep_under(self.folder / FILE_NAME, self.folder / earlier_name(1))
        for path in _earlier(self.folder, self.keep):
            path.unlink()


def has_checkpoint(folder: Path) -> bool:
    """Return whether there is a checkpoint in `folder`, of whatever age."""
    return (folder / FILE_NAME).exists() or bool(_earlier(folder, 1))


def _earlier(folder: Path, age: int) -> list[Path]:
    """Return the checkpoints that are at least `age` saves older than the last one, newest first."""
    found = {int(number): path for path in folder.glob("checkpoint.*.pt") if (number := path.name.split(".")[1]).isdecimal()}
    return [found[number] for number in sorted(found) if number >= age]


def load_last(folder: Path, say: Callable[[str], None]) -> Checkpoint:
    """Return the last checkpoint of a run that is intact.

    Args:
        say: prints a line; called where that is not the last one.

    Raises:
        CheckpointError: there is none, or the last one that is intact is no checkpoint of this format.
    """
    paths = [path for path in (folder / FILE_NAME, *_earlier(folder, 1)) if path.exists()]
    problems: list[DamagedFileError] = []
    for path in paths or [folder / FILE_NAME]:
        try:
            checkpoint = load_checkpoint(path)
        except DamagedFileError as error:
            problems.append(error)
            continue
        if path.name != FILE_NAME:
            _say_older(folder, checkpoint, problems, say)
        return checkpoint
    raise problems[0]


def load_same(folder: Path, ranks: Ranks, say: Callable[[str], None]) -> Checkpoint:
    """Return `load_last` as rank 0 finds it, on all processes: one might find another file damaged, or have an old folder.

    Raises:
        CheckpointError: see `load_last`; or a process does not have that one.
    """
    if ranks.is_first:
        checkpoint = load_last(folder, say)
        ranks.told((checkpoint.path.name, checkpoint.step))
        return checkpoint
    name, step = ranks.told(("", 0))
    checkpoint = load_checkpoint(folder / name)
    if checkpoint.step != step:
        raise CheckpointError(
            f"'{folder / name}' must be the same file for all processes",
            f"step {checkpoint.step:,} on rank {ranks.rank}, {step:,} on rank 0",
            "Resume from a folder on a disk that all machines see.",
        )
    return checkpoint


def _say_older(folder: Path, checkpoint: Checkpoint, problems: list[DamagedFileError], say: Callable[[str], None]) -> None:
    wrong = f"{problems[0].rule}, but got {problems[0].got}" if problems else f"there is no {FILE_NAME} in {folder}"
    say(f"warning: {wrong}. The one before takes its place: {checkpoint.path}, step {checkpoint.step:,}.")


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in a file.

    Raises:
        DamagedFileError: it is damaged.
        CheckpointError: there is none, or it is not a checkpoint of this format.
    """
    content = load_tensors(path)
    if (problem := _problem(content)) is not None:
        raise CheckpointError(f"'{path}' must be an attfc checkpoint of format {FORMAT}", problem, "Check the --resume folder.")
    try:
        profile = TrainProfile.model_validate_json(content["profile"])
    except ValidationError as error:
        raise CheckpointError(
            f"the profile in '{path}' must be valid", short(error), "Resume with the version of attfc that wrote it."
        ) from error
    if profile.data.num_ids is None or not 0 <= content["state"]["step"] <= (profile.run.steps or 0):
        got = f"step {content['state']['step']} of {profile.run.steps}, {profile.data.num_ids} identities"
        raise CheckpointError(f"'{path}' must be of a run that had started", got, "Check the --resume folder.")
    return Checkpoint(path, profile, content["state"], content["rng"], content["best_accuracy"])


def _problem(content: Any) -> str | None:
    """Return what keeps `content` from being a checkpoint; None: its keys and their types are right."""
    if not isinstance(content, dict):
        return type(content).__name__
    if set(content) != _KEYS:
        return f"keys {sorted(map(str, content))[:5]}"
    if not isinstance(content["format"], int) or content["format"] != FORMAT:
        return f"format {str(content['format'])[:20]!r}"
    state = content["state"]
    if not isinstance(state, dict) or not isinstance(state.get("step"), int) or not isinstance(content["rng"], dict):
        return "no training state"
    if not isinstance(content["profile"], str) or not isinstance(content["best_accuracy"], float | None):
        return "a profile or an accuracy of another type"
    return None


def save_model(path: Path, encoder: nn.Module) -> None:
    """Write an encoder's bare state dict, filters in the usual order, which loads where InsightFace's ``model.pt`` does."""
    save_tensors(path, {name: value.contiguous() for name, value in encoder.state_dict().items()})
