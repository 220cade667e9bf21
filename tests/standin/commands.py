"""Whole commands of attfc in processes of their own, on a stand-in card that nobody else uses."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLAN = ("-m", "attfc_planner.cli")
TRAIN = ("-m", "attfc_train.cli")


@dataclass(frozen=True)
class Place:
    """A folder to work in, and the caches that the commands share."""

    folder: Path
    cache: Path

    def environment(self, **card: object) -> dict[str, str]:
        """Return the environment of a command; `card` holds settings of the stand-in without their prefix."""
        settings = {f"FAKEGPU_{name}": str(value) for name, value in {"ID": f"t{os.getpid()}", **card}.items()}
        caches = {"ATTFC_CACHE_DIR": str(self.cache / "attfc"), "TRITON_CACHE_DIR": str(self.cache / "triton")}
        return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", **caches, **settings}

    def start(self, *arguments: str, **card: object) -> subprocess.Popen[str]:
        """Start Python with `arguments`."""
        pipe = subprocess.PIPE
        command = [sys.executable, *arguments]
        return subprocess.Popen(command, cwd=self.folder, env=self.environment(**card), stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: str, code: int = 0, **card: object) -> tuple[str, str]:
        """Run Python with `arguments` to the end, which must be exit code `code`; return its output and its errors."""
        child = self.start(*arguments, **card)
        output, errors = child.communicate()
        assert child.returncode == code, f"{output[-2000:]}\n{errors[-4000:]}"
        return output, errors
