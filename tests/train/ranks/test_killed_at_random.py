"""Three processes of which one is killed at any moment: the others leave, and the run goes on with the same bits."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from attfc_train.errors import LostProcessError
from attfc_train.profile.file import save_profile
from attfc_train.run.checkpoint import has_checkpoint, load_checkpoint
from tests.train.ranks.commands import ended, processes
from tests.train.ranks.test_runs import differing, profile_of

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("ATTFC_KILLS", "3"))
"""Of the test; each takes about 20 seconds on two busy cores."""
SIZE = 3
AGENT_SECONDS = 0.2
"""Until torchrun has noticed."""
MOST_SECONDS = 30
"""From the kill to the end of all; a few on a machine that has nothing else to do."""


# Catches a process that waits for ever, two messages, a checkpoint that is half written, and other bits after the resume.
def test_a_run_survives_kills_at_any_moment(tmp_path: Path) -> None:
    profile = profile_of("identity-30%")
    save_profile(profile, tmp_path / "best.json")
    begin = ["--profile", "best.json", "--output"]
    started = time.monotonic()
    with processes(SIZE, tmp_path, [*begin, "whole"]) as children:
        assert [process.code for process in ended(children, tmp_path)] == [0] * SIZE
    whole_seconds = time.monotonic() - started
    generator = random.Random(7)
    run = tmp_path / "run"
    for _ in range(KILLS):
        arguments = ["--resume", "run"] if has_checkpoint(run) or (run / "profile.json").is_file() else [*begin, "run"]
        with processes(SIZE, tmp_path, arguments) as children:
            time.sleep(generator.uniform(0, whole_seconds))
            killed = generator.randrange(SIZE)
            was_alive = children[killed].is_alive()
            children[killed].kill()
            since = time.monotonic()
            time.sleep(AGENT_SECONDS)
            for child in children:  # as torchrun does it: before all have met nobody else would know
                if child.is_alive():
                    child.terminate()
            results = ended(children, tmp_path)
            assert time.monotonic() - since < MOST_SECONDS
        left = [result for rank, result in enumerate(results) if rank != killed]
        if was_alive and all(result.code == LostProcessError.exit_code for result in left):
            assert sum(result.stderr.count("error: ") for result in left) == 1, left
        if run.is_dir() and has_checkpoint(run):
            load_checkpoint(run / "checkpoint.pt")
    arguments = ["--resume", "run"] if (run / "profile.json").is_file() else [*begin, "run"]
    with processes(SIZE, tmp_path, arguments) as children:
        assert [process.code for process in ended(children, tmp_path)] == [0] * SIZE
    ends = [load_checkpoint(folder / "checkpoint.pt") for folder in (run, tmp_path / "whole")]
    assert differing(ends[0].state, ends[1].state) == []
