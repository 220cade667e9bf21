"""What runs need beside their data, made once and kept in the folder of the runs: trained models, selected images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.heads.data_sets import DataSet
from benchmarks.heads.records import claimed


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where things are made, and for which data."""

    data: DataSet
    folder: Path

    def model(self, name: str, *sets: str, share: float = 1.0) -> Path:
        """Return the bare state dict of a network trained on these data, by `BASE` with other settings and a seed of its own.

        Args:
            share: of the data set's steps.
        """

        def train(path: Path) -> None:
            folder = path.with_name(f"{path.name}-run")
            shutil.rmtree(folder, ignore_errors=True)
            profile = base_profile(self.data, round(share * self.data.steps), SEED, sets)
            start(profile, RunOptions(folder, torch.device("cpu"), Console(quiet=True)))
            (folder / MODEL_FILE).rename(path)
            shutil.rmtree(folder)

        return self.once(f"{name}.pt", train)

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return the file or folder `name`, which `make` makes at the path that it is given where there is none yet.

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
