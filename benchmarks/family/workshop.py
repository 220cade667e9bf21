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
