"""The examples run as a user runs them, and learn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def output_of(name: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_loop_of_ones_own_learns() -> None:
    losses = [float(found) for found in re.findall(r"loss (\d+\.\d+)", output_of("own_loop.py"))]
    assert len(losses) == 6
    assert losses[-1] < 0.3 * losses[0]


def test_the_head_takes_20_lines_or_so() -> None:
    """Catches an example that grows until nobody reads it."""
    lines = (EXAMPLES / "own_loop.py").read_text(encoding="utf-8").partition("# The head, in 20 lines.")[2].splitlines()
    assert 10 <= len([line for line in lines if line.strip()]) <= 20


@pytest.mark.slow
def test_a_lightning_module_learns() -> None:
    pytest.importorskip("lightning", reason="needs the package lightning (extra 'interop')")
    found = re.findall(r"^loss (\d+\.\d+)$", output_of("lightning_module.py"), re.MULTILINE)
    assert found
    assert float(found[0]) < 0.5
