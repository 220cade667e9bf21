"""What runs need beside their data, made once and kept in the folder of the runs: trained networks, selected images."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from attfc_train.commands.data_coreset import CoresetOptions, coreset
from attfc_train.run.loop import MODEL_FILE
from attfc_train.run.run import RunOptions, start
from attfc_train.screen import Screen
from benchmarks.family.base import OWN_SEED, base_profile
from benchmarks.heads.data_sets import DataSet
from benchmarks.heads.records import claimed


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where things are made, and for which data."""

    data: DataSet
    folder: Path

    def model(self, name: str, *sets: str) -> Path:
        """Return the bare state dict of a network trained on these data, as the base is but for some settings."""

        def train(path: Path) -> None:
            folder = path.with_name(f"{path.name}-run")
            shutil.rmtree(folder, ignore_errors=True)
            profile = base_profile(self.data, self.data.steps, OWN_SEED, sets)
            start(profile, RunOptions(folder, torch.device("cpu"), Console(quiet=True)))
            (folder / MODEL_FILE).rename(path)
            shutil.rmtree(folder)

        return self.once(f"{name}.pt", train)

    def coreset(self, name: str, keep: float, seed: int | None = None) -> Path:
        """Return the index of a share of the images: by Face-NMS with the base's own features, or at random by a seed."""

        def choose(path: Path) -> None:
            if seed is None:
                options = CoresetOptions(path, self.model("proxy"), keep=keep, device="cpu")
            else:
                options = CoresetOptions(path, keep=keep, by="random", seed=seed)
            coreset(self.data.path, options, Screen(stderr=True))

        return self.once(f"{name}.subset", choose)

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return the file `name`, which `make` makes at the path that it is given where there is none yet.

        Raises:
            BlockingIOError: another process is making it.
        """
        path = self.folder / name
        with claimed(path) as is_ours:
            if not is_ours:
                raise BlockingIOError(f"{name} is being made by another process")
            if not path.exists():
                make(path)
        return path
