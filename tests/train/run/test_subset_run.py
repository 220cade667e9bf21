"""A training on an index over a data set: resumed bit for bit, and never with other faces."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from attfc_train.data.formats.subset import write_subset
from attfc_train.data.source import open_dataset
from attfc_train.errors import DataError, Interrupted, VerificationSetError
from attfc_train.profile.profile import TrainProfile
from attfc_train.run import loop, run
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.run.test_resume import assert_same_end, options, profile_of

SOURCE = "synthetic:20x4"


def index(path: Path, kept: list[int]) -> str:
    write_subset(path, SOURCE, open_dataset(SOURCE), kept)
    return str(path)


def profile_on(data: str, **settings: Any) -> TrainProfile:
    profile = profile_of(steps=6, eval_every=100, **settings)
    return profile.model_copy(update={"data": profile.data.model_copy(update={"path": data})})


def test_it_resumes_bit_for_bit_and_only_on_the_same_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = [position for position in range(80) if position % 5]
    profile = profile_on(index(tmp_path / "a.subset", kept))
    run.start(profile, options(tmp_path / "whole"))

    def interrupted_step(state: TrainState, batch: Any) -> Any:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", interrupted_step)
    with pytest.raises(Interrupted):
        run.start(profile, options(tmp_path / "stopped"))
    monkeypatch.setattr(loop, "train_step", train_step)
    # As many images of each identity, but others of two of them: the head would go on, and nobody would see it.
    index(tmp_path / "a.subset", sorted({*kept, 0, 5} - {1, 6}))
    with pytest.raises(DataError, match="must have the labels with which the run was started"):
        run.resume(options(tmp_path / "stopped"))
    index(tmp_path / "a.subset", kept)
    run.resume(options(tmp_path / "stopped"))
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


def test_people_of_its_source_are_trained_on(tmp_path: Path) -> None:
    """Catches --val drawn from the very people: an index has another name than its data set."""
    profile = profile_on(index(tmp_path / "a.subset", list(range(0, 80, 2))))
    profile = profile.model_copy(update={"run": profile.run.model_copy(update={"val": (SOURCE,)})})
    with pytest.raises(VerificationSetError, match="people that are not trained on"):
        run.start(profile, options(tmp_path / "run"))
