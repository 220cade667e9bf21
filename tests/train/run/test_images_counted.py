"""Images that cannot be decoded are counted over the whole run, however often it is stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.errors import Interrupted
from attfc_train.run import loop, run
from attfc_train.run.log import read_log, replaced_before
from attfc_train.step.step import train_step
from tests.cli.conftest import face
from tests.train.run.test_resume import options, profile_of


def test_a_stop_does_not_forget_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a share of ``data.max_corrupt_share`` that begins anew with every process."""
    labels = [identity for identity in range(20) for _ in range(4)]
    encoded = (face(label, place) if place % 5 else b"no image" for place, label in enumerate(labels))
    write_recordio(tmp_path / "train.rec", labels, encoded)
    profile = profile_of("full_fc", steps=6, eval_every=100, save_every=100)
    data = profile.data.model_copy(update={"path": str(tmp_path), "max_corrupt_share": 1.0})
    profile = profile.model_copy(update={"data": data})
    run.start(profile, options(tmp_path / "whole"))

    def stopped(state: Any, batch: Any) -> Any:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(state, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", stopped)
        with pytest.raises(Interrupted):
            run.start(profile, options(tmp_path / "stopped"))
    half = replaced_before(read_log(tmp_path / "stopped"))
    run.resume(options(tmp_path / "stopped"))
    whole, resumed = (read_log(tmp_path / name)[-1]["corrupt_images"] for name in ("whole", "stopped"))
    assert 0 < half < whole
    assert resumed == whole


@pytest.mark.parametrize("value", [-1, True, "7", None, 10**13, 1.5])
def test_a_count_that_is_none_in_a_damaged_record(value: Any) -> None:
    assert replaced_before([{"event": "images", "step": 1, "replaced": value}]) == 0
    assert (
        replaced_before([{"event": "images", "step": 1, "replaced": 3}, {"event": "images", "step": 2, "replaced": value}]) == 3
    )
