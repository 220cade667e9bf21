"""Every kind of network trains, is evaluated, stops and goes on with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attfc_train.backbones.kinds import Checkpointing
from attfc_train.profile.profile import ModelSettings, TrainProfile
from attfc_train.run import loop, run
from attfc_train.run.log import read_log
from attfc_train.step.state import TrainState
from tests.train.run.test_resume import assert_same_end, options, profile_of


def of_network(name: str, checkpointing: Checkpointing) -> TrainProfile:
    model = ModelSettings(
        backbone=name, image_size=32, embedding_size=16, gradient_checkpointing=checkpointing, batchnorm_variance="biased"
    )
    return profile_of(steps=3, save_every=2, eval_every=3).model_copy(update={"model": model})


@pytest.mark.parametrize(
    ("name", "checkpointing"),
    [("vargfacenet", False), ("vargfacenet_nose", True), ("mixfacenet_xs", "wide"), ("shufflemixfacenet_xs", False)],
)
def test_a_resumed_run_ends_with_the_same_bits(
    name: str, checkpointing: Checkpointing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = of_network(name, checkpointing)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run.start(profile, options(tmp_path / "whole"))
        step = loop.train_step

        def interrupted(state: TrainState, batch: object) -> object:
            if state.step == 2:
                raise KeyboardInterrupt
            return step(state, batch)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(loop, "train_step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                run.start(profile, options(tmp_path / "stopped"))
        run.resume(options(tmp_path / "stopped"))
    finally:
        torch.set_num_threads(threads)
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")
    events = {record["event"] for record in read_log(tmp_path / "stopped")}
    assert {"resume", "evaluate", "end"} <= events
