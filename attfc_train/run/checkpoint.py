"""Checkpoints: one atomic file that holds everything a run needs to go on as if it had never stopped.

Format 2: a ``torch.save`` archive of tensors, numbers, strings and dicts only: ``format``, ``profile`` (JSON), ``state``
(`TrainState.saved`), ``rng``, ``best_accuracy``. The sampler needs no entry: its draw depends on the step alone.

A file may come from anywhere, so it is distrusted: ``weights_only=True`` reads nothing but an allow-list of types and runs no
code, and `load_checkpoint` checks the keys, then the profile, then the step, before `Checkpoint.restore` lets torch compare
the shapes. Each ends in a `CheckpointError`, however the file is damaged.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from attfc_train.errors import CheckpointError
from attfc_train.files import write_atomically
from attfc_train.heads.containers.resize import Kept
from attfc_train.profile.profile import TrainProfile
from attfc_train.step.state import TrainState

FORMAT = 2
"""2: containers have a storage and say when each slot was written."""
FILE_NAME = "checkpoint.pt"
_KEYS = {"format", "profile", "state", "rng", "best_accuracy"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in the host's memory."""

    path: Path
    profile: TrainProfile
    state: dict[str, Any]
    rng: dict[str, Any]
    best_accuracy: float | None

    @property
    def step(self) -> int:
        """The number of optimiser steps done."""
        return int(self.state["step"])

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
                f"'{self.path}' must hold the architecture of the profile", _short(error), "Resume with the run's own folder."
            ) from error
        return kept


def save_checkpoint(path: Path, state: TrainState, best_accuracy: float | None) -> None:
    """Write `state` atomically.

    Raises:
        StorageError: the disk is full or not writable; the former checkpoint is intact.
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
    write_atomically(path, lambda file: torch.save(content, file))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Return the last checkpoint of the run in `folder`.

    Raises:
        CheckpointError: there is none, it is damaged, or it is not a checkpoint of this format.
    """
    path = folder / FILE_NAME
    content = load_tensors(path)
    if (problem := _problem(content)) is not None:
        raise CheckpointError(f"'{path}' must be an attfc checkpoint of format {FORMAT}", problem, "Check the --resume folder.")
    try:
        profile = TrainProfile.model_validate_json(content["profile"])
    except ValidationError as error:
        raise CheckpointError(
            f"the profile in '{path}' must be valid", _short(error), "Resume with the version of attfc that wrote it."
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


def load_tensors(path: Path) -> Any:
    """Return the content of a ``torch.save`` file, on the CPU: nothing but tensors and plain values.

    Raises:
        CheckpointError: the file is missing, is damaged, or contains code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"'{path}' must exist", "no such file", "Give the folder of a run that has saved.") from error
    except pickle.UnpicklingError as error:
        got = "something else in it, which was not run, or damage"
        raise CheckpointError(
            f"'{path}' must hold tensors and plain values only", got, "Use another checkpoint or start anew."
        ) from error
    except Exception as error:  # there is hardly an exception that torch.load does not raise for damaged bytes
        raise CheckpointError(
            f"'{path}' must be a readable checkpoint", _short(error), "Use another checkpoint or start anew."
        ) from error


def save_model(path: Path, encoder: nn.Module) -> None:
    """Write the bare state dict of an encoder, which loads where InsightFace's ``model.pt`` does."""
    write_atomically(path, lambda file: torch.save(encoder.state_dict(), file))


def load_model(path: Path, encoder: nn.Module) -> None:
    """Load a file of `save_model` in place.

    Raises:
        CheckpointError: the file is damaged, or of another architecture.
    """
    try:
        encoder.load_state_dict(load_tensors(path))
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"'{path}' must fit the profile's backbone", _short(error), "Check the folder.") from error


def _short(error: Exception) -> str:
    """Return the start of another library's message, or the error's type where it has none."""
    return " ".join(str(error).split())[:160] or type(error).__name__
