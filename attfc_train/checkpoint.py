"""Checkpoints: one atomic file that holds everything a run needs to go on as if it had never stopped.

Format 1: a ``torch.save`` archive of tensors, numbers, strings and dicts only, read with ``weights_only=True`` (the
allow-list): ``format``, ``profile`` (JSON), ``state`` (`TrainState.saved`), ``rng``, ``best_accuracy``. The sampler needs no
entry: what it draws depends on the step alone.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attfc_train.errors import CheckpointError
from attfc_train.files import write_atomically
from attfc_train.profile import TrainProfile
from attfc_train.state import TrainState

FORMAT = 1
FILE_NAME = "checkpoint.pt"
_KEYS = {"format", "profile", "state", "rng", "best_accuracy"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in memory (on the CPU)."""

    path: Path
    profile: TrainProfile
    state: dict[str, Any]
    rng: dict[str, Any]
    best_accuracy: float | None

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return int(self.state["step"])

    def restore(self, state: TrainState) -> None:
        """Puts weights, container, optimiser, scaler, step and random generators back.

        Raises:
            CheckpointError: `state` has another architecture.
        """
        try:
            state.restore(self.state)
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            problem = " ".join(str(error).split())[:160]
            raise CheckpointError(
                f"'{self.path}' must hold the architecture of the profile", problem, "Resume with the run's own folder."
            ) from error
        torch.set_rng_state(self.rng["cpu"])
        if state.device.type == "cuda" and "cuda" in self.rng:
            torch.cuda.set_rng_state(self.rng["cuda"], state.device)


def save_checkpoint(path: Path, state: TrainState, best_accuracy: float | None) -> None:
    """Writes `state` atomically.

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
    """The last checkpoint of the run in `folder`.

    Raises:
        CheckpointError: there is none, it is damaged, or it is not a checkpoint of this format.
    """
    path = folder / FILE_NAME
    content = load_tensors(path)
    if not isinstance(content, dict) or set(content) != _KEYS or content["format"] != FORMAT:
        found = f"keys {sorted(map(str, content))[:5]}" if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"'{path}' must be an attfc checkpoint of format {FORMAT}", found, "Check the --resume folder.")
    profile = TrainProfile.model_validate_json(content["profile"])
    return Checkpoint(path, profile, content["state"], content["rng"], content["best_accuracy"])


def load_tensors(path: Path) -> Any:
    """A ``torch.save`` file on the CPU, with nothing in it but tensors and plain values.

    Raises:
        CheckpointError: missing, damaged, or it contains code.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"'{path}' must exist", "no such file", "Give the folder of a run that has saved.") from error
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        problem = " ".join(str(error).split())[:100]
        raise CheckpointError(
            f"'{path}' must be a readable checkpoint", problem, "Use another checkpoint or start anew."
        ) from error


def save_model(path: Path, feature_encoder: nn.Module) -> None:
    """The bare state dict of the feature encoder: what InsightFace's ``model.pt`` is, and loads where that does."""
    write_atomically(path, lambda file: torch.save(feature_encoder.state_dict(), file))


def load_model(path: Path, feature_encoder: nn.Module) -> None:
    """Loads a file of `save_model` in place.

    Raises:
        CheckpointError: damaged, or of another architecture.
    """
    try:
        feature_encoder.load_state_dict(load_tensors(path))
    except (RuntimeError, TypeError, AttributeError) as error:
        problem = " ".join(str(error).split())[:160]
        raise CheckpointError(f"'{path}' must fit the profile's backbone", problem, "Check the folder.") from error
