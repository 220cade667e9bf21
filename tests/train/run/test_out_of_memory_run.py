"""A run in which a step runs out of memory goes on in smaller parts, with the bits of one that had them from there on."""

from __future__ import annotations

import gc
import os
import signal
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from attfc_train.errors import DeviceMemoryError, Interrupted
from attfc_train.profile.file import load_profile
from attfc_train.profile.profile import DataSettings, ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.run import loop, run
from attfc_train.run.checkpoint import load_checkpoint
from attfc_train.run.log import read_log
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.profiles import HEADS
from tests.train.run.failing import CPU, FailingAllocation, differences, in_parts
from tests.train.run.test_resume import tensors

STEPS = 6
FAILS_AT = 3


def run_profile(head: str = "identity-30%", batch_size: int = 8) -> TrainProfile:
    return TrainProfile(
        data=DataSettings(path="synthetic:20x4", num_workers=1),
        model=ModelSettings(backbone="tiny", image_size=32, embedding_size=16),
        head=HEADS[head],
        optim=OptimSettings(batch_size=batch_size),
        run=RunSettings(precision="fp32", steps=STEPS, save_every=2, eval_every=100, log_every=1),
    )


@contextmanager
def failing_steps(failures: dict[int, list[str]]) -> Iterator[None]:
    """Steps fail in these phases, once each, in their middle; before step -1 nothing does."""
    left = {step: list(phases) for step, phases in failures.items()}

    def step(state: TrainState, batch: Any) -> Any:
        if not left.get(state.step):
            return train_step(state, batch)
        with FailingAllocation(left[state.step].pop(0), place=1):
            return train_step(state, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        yield


@contextmanager
def switching_step(switches: dict[int, int]) -> Iterator[None]:
    """Steps that get more parts without having failed."""

    def step(state: TrainState, batch: Any) -> Any:
        if state.step in switches:
            in_parts(state, switches[state.step])
        return train_step(state, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", step)
        yield


def options(folder: Path, on_oom: Any = "shrink", console: Console | None = None) -> run.RunOptions:
    return run.RunOptions(folder, CPU, console or Console(quiet=True), on_oom=on_oom)


def end_of(folder: Path) -> dict[str, Any]:
    return tensors(load_checkpoint(folder / "checkpoint.pt").state)


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in read_log(folder) if record["event"] == "step"]


def test_a_run_goes_on_and_says_so(tmp_path: Path) -> None:
    """Twice in a row in one step; the run, its record, its profile and its checkpoint agree."""
    console = Console(record=True, width=300, file=StringIO())
    with failing_steps({FAILS_AT: ["backward", "enqueue"]}):
        run.start(run_profile(), options(tmp_path / "run", console=console))
    with switching_step({FAILS_AT: 4}):
        run.start(run_profile(), options(tmp_path / "plain"))
    assert differences(end_of(tmp_path / "run"), end_of(tmp_path / "plain")) == []
    assert losses(tmp_path / "run") == losses(tmp_path / "plain")
    first, second = (record for record in read_log(tmp_path / "run") if record["event"] == "oom")
    assert (first["step"], first["phase"], first["accumulation"], first["next_accumulation"]) == (FAILS_AT, "backward", 1, 2)
    assert (second["phase"], second["accumulation"], second["next_accumulation"]) == ("enqueue", 2, 4)
    assert first["memory_bytes"] > 2**20
    assert first["message"] == "CUDA out of memory"
    assert first["predicted_peak_bytes"] is None
    said = console.export_text()
    assert "step 3: out of memory in phase 'backward' (CUDA out of memory)" in said
    assert "--set optim.accumulation=4" in said
    assert load_profile(tmp_path / "run" / "profile.json").optim.accumulation == 4
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").profile.optim.accumulation == 4


def test_a_resumed_run_keeps_the_smaller_parts(tmp_path: Path) -> None:
    def stopped_after(state: TrainState, batch: Any) -> Any:
        if state.step == FAILS_AT + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return shrinking(state, batch)

    with failing_steps({FAILS_AT: ["forward"]}), pytest.MonkeyPatch.context() as patch:
        shrinking = loop.train_step
        patch.setattr(loop, "train_step", stopped_after)
        with pytest.raises(Interrupted):
            run.start(run_profile(), options(tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").profile.optim.accumulation == 2
    run.resume(options(tmp_path / "run"))
    with switching_step({FAILS_AT: 2}):
        run.start(run_profile(), options(tmp_path / "plain"))
    assert differences(end_of(tmp_path / "run"), end_of(tmp_path / "plain")) == []
    assert load_profile(tmp_path / "run" / "profile.json").optim.accumulation == 2


def test_fail_stops_and_says_what_to_do(tmp_path: Path) -> None:
    expected = (
        r"step 3 must fit .* but got CUDA out of memory in phase 'loss' with 8 queries .* --resume .* optim.accumulation=2"
    )
    with failing_steps({FAILS_AT: ["loss"]}), pytest.raises(DeviceMemoryError, match=expected):
        run.start(run_profile(), options(tmp_path / "run", "fail"))
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 2
    (event,) = (record for record in read_log(tmp_path / "run") if record["event"] == "oom")
    assert event["next_accumulation"] is None
    run.resume(options(tmp_path / "run"), ["optim.accumulation=2"])
    assert load_profile(tmp_path / "run" / "profile.json").optim.accumulation == 2


def test_what_cannot_be_cut_stops(tmp_path: Path) -> None:
    expected = r"with 3 queries at a time\. Start again with --set model.gradient_checkpointing"
    with failing_steps({0: ["forward"] * 9}), pytest.raises(DeviceMemoryError, match=expected):
        run.start(run_profile("full_fc", batch_size=9), options(tmp_path / "run"))
    assert [record["accumulation"] for record in read_log(tmp_path / "run") if record["event"] == "oom"] == [1, 3]


def test_an_error_within_a_commit_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be; the last checkpoint stays the truth."""

    def step(state: TrainState, batch: Any) -> Any:
        if state.step == FAILS_AT:
            monkeypatch.setattr("attfc_train.step.step.commit", failing)
        return train_step(state, batch)

    def failing(_writes: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. For whatever reason")

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(DeviceMemoryError, match=r"in phase 'update' .* --resume"):
        run.start(run_profile(), options(tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 2


def test_other_errors_are_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(state: TrainState, batch: Any) -> Any:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(RuntimeError, match="shapes differ"):
        run.start(run_profile(), options(tmp_path / "run"))


def test_the_failed_steps_tensors_are_gone_before_it_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locals of the frames that the exception came through, and gradients; without the help of the garbage collector."""
    held: list[weakref.ref[Tensor]] = []

    def step(state: TrainState, batch: Any) -> Any:
        if state.step == 1 and not held:
            large = torch.zeros(1000)
            held.append(weakref.ref(large))
            for parameter in state.optimizer.parameters:
                parameter.grad = torch.zeros_like(parameter)
                held.append(weakref.ref(parameter.grad))
            raise torch.OutOfMemoryError("CUDA out of memory. Here")
        assert [each for each in held if each() is not None] == []
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(gc, "collect", lambda: 0)
    run.start(run_profile(), options(tmp_path / "run"))
    assert len(held) > 10


def test_the_evaluation_takes_no_more_images_than_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def evaluator(_profile: TrainProfile, _device: torch.device) -> loop.Evaluator:
        def evaluate(feature_encoder: nn.Module, *, batch_size: int) -> dict[str, Any]:
            sizes.append(batch_size)
            return {}

        return evaluate

    monkeypatch.setattr(run, "_evaluator", evaluator)
    profile = run_profile()
    every = profile.model_copy(update={"run": profile.run.model_copy(update={"eval_every": 2})})
    with failing_steps({FAILS_AT: ["backward"]}):
        run.start(every, options(tmp_path / "run"))
    assert sizes == [8, 4, 4]
