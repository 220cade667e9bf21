"""Real faces: a short run of the shipped preset learns to tell people apart that it has never seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rich.console import Console

from attfc_train.profile.file import load_preset, with_overrides
from attfc_train.run import run
from attfc_train.run.log import read_log

RAW_PIXELS = 0.658
"""What comparing pixels reaches on the same pairs."""


@pytest.mark.slow
def test_a_short_run_on_real_faces_beats_pixels(faces: Path, tmp_path: Path) -> None:
    settings = [f"data.path={faces / 'lfw_train'}", "run.steps=90", f'run.val=["{faces / "lfw_fold8.bin"}"]']
    profile = with_overrides(load_preset("tiny"), settings)
    run.start(profile, run.RunOptions(tmp_path / "run", torch.device("cpu"), Console(quiet=True)))
    (accuracy,) = [record["accuracy"] for record in read_log(tmp_path / "run") if record["event"] == "evaluate"]
    assert accuracy > RAW_PIXELS + 0.06
