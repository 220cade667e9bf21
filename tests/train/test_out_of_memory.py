"""A step that runs out of memory, wherever it does, is undone and repeated in smaller parts: the run ends with the bits of one
that had those parts from that step on."""

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
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from attfc_planner.recorder import Recorder
from attfc_train import loop, run
from attfc_train.build import build
from attfc_train.checkpoint import load_checkpoint
from attfc_train.errors import DeviceMemoryError, Interrupted
from attfc_train.log import read_log
from attfc_train.out_of_memory import in_smaller_parts, observed, release
from attfc_train.phase import current_phase
from attfc_train.profile import DataSettings, ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.profile_file import load_profile
from attfc_train.state import TrainState
from attfc_train.step import train_step
from tests.train.profiles import HEADS, random_batch, small_profile
from tests.train.test_resume import same, tensors

CPU = torch.device("cpu")
PHASES = ("input", "momentum", "references", "forward", "loss", "backward", "update", "enqueue")


class FailingAllocation(TorchDispatchMode):
    """Counts what is allocated by phase; allocation `place` of `phase` fails, as allocators do: before the operator runs."""

    def __init__(self, phase: str | None = None, place: int = 0) -> None:
        super().__init__()
        self.phase, self.place = phase, place
        self.counts = dict.fromkeys(PHASES, 0)
        self.lost: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        now = current_phase()
        if now in self.counts and any(value.alias_info is None for value in func._schema.returns):
            self.counts[now] += 1
            if now == self.phase and self.counts[now] == self.place + 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has ...")
        result = func(*args, **(kwargs or {}))
        if self.phase and isinstance(result, Tensor):
            self.lost.append(weakref.ref(result))
        return result


def in_parts(state: TrainState, parts: int) -> None:
    optim = state.profile.optim.model_copy(update={"accumulation": parts})
    state.profile = state.profile.model_copy(update={"optim": optim})


def everything(state: TrainState) -> dict[str, Any]:
    return {key: leaf.clone() if isinstance(leaf, Tensor) else leaf for key, leaf in tensors(state.saved()).items()}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    assert one.keys() == other.keys()
    return [key for key in one if not same(one[key], other[key])]


def profile_of(head: str, precision: str = "fp32", **optim: Any) -> TrainProfile:
    return small_profile(head, precision, num_ids=20, **optim)


def failed_and_repeated(state: TrainState, batch: Any, mode: FailingAllocation) -> None:
    """What the loop does, by hand."""
    try:
        with mode:
            train_step(state, batch)
    except torch.OutOfMemoryError as error:
        failure = observed(error, CPU)
    assert failure.phase == mode.phase
    release(state)
    assert [one for one in mode.lost if (kept := one()) is not None and kept.requires_grad and kept.grad_fn] == []
    smaller = in_smaller_parts(state.profile)
    assert smaller is not None
    state.profile = smaller
    train_step(state, batch)


CASES = [
    ("identity-30%", "fp32"),
    ("identity-R0", "fp16"),
    ("fifo", "fp32"),
    ("stored-int8", "fp32"),
    ("full_fc", "fp32"),
    ("partial_fc", "fp16"),
]


@pytest.mark.parametrize(("head", "precision"), CASES)
def test_wherever_a_step_fails_nothing_is_lost(head: str, precision: str) -> None:
    """The last allocation of a phase, or the middle one (in the second micro-batch); each phase in a step of its own."""
    profile = profile_of(head, precision)
    failing, plain = build(profile, CPU), build(profile, CPU)
    in_parts(plain, 2)
    in_parts(failing, 2)
    counted = FailingAllocation()
    with counted:
        train_step(failing, random_batch(profile))
    train_step(plain, random_batch(profile))
    in_the_middle = ("references", "forward", "loss", "backward")
    places = {phase: num // 2 if phase in in_the_middle else num - 1 for phase, num in counted.counts.items() if num}
    assert set(places) >= {"input", "forward", "loss", "backward", "update"}
    for number, (phase, place) in enumerate(places.items()):
        batch = random_batch(profile, number)
        in_parts(failing, 2)
        failed_and_repeated(failing, batch, FailingAllocation(phase, place))
        in_parts(plain, 4)
        train_step(plain, batch)
        assert differences(everything(failing), everything(plain)) == [], (phase, place)


@pytest.mark.parametrize(("head", "precision"), CASES)
def test_a_commit_allocates_nothing(head: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it cannot fail, and it need not be undone; nor do the momentum update and the copies before it."""
    profile = profile_of(head, precision)
    state = build(profile, CPU)
    train_step(state, random_batch(profile))
    seen: list[int] = []
    with Recorder(fake=False) as recorder:
        begin, end = state.start.begin_commit, state.start.end_commit
        monkeypatch.setattr(state.start, "begin_commit", lambda: (begin(), seen.append(len(recorder.nbytes))))
        monkeypatch.setattr(state.start, "end_commit", lambda: (end(), seen.append(len(recorder.nbytes))))
        train_step(state, random_batch(profile, 1))
    assert seen[0] == seen[1] > 100
    assert "momentum" not in recorder.phases


def test_a_smaller_part_is_the_next_divisor() -> None:
    def path(batch_size: int, parts: int = 1) -> list[int]:
        profile, steps = small_profile(batch_size=batch_size, accumulation=parts), [parts]
        while (smaller := in_smaller_parts(profile)) is not None:
            profile = smaller
            steps.append(profile.optim.accumulation)
            assert OptimSettings.model_validate(profile.optim.model_dump()) == profile.optim
        return steps

    assert path(128) == [1, 2, 4, 8, 16, 32, 64]
    assert path(384, 3) == [3, 6, 12, 24, 48, 96, 192]
    assert path(6) == [1, 2, 3]
    assert path(9) == [1, 3]
    assert path(7) == [1]
    assert path(45) == [1, 3, 9, 15]
    assert path(4096)[-1] == 1024


STEPS, FAILS_AT = 6, 3


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
    return tensors(load_checkpoint(folder).state)


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
    assert load_checkpoint(tmp_path / "run").profile.optim.accumulation == 4


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
    assert load_checkpoint(tmp_path / "run").profile.optim.accumulation == 2
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
    assert load_checkpoint(tmp_path / "run").step == 2
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
            monkeypatch.setattr("attfc_train.step.commit", failing)
        return train_step(state, batch)

    def failing(_writes: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. For whatever reason")

    monkeypatch.setattr(loop, "train_step", step)
    with pytest.raises(DeviceMemoryError, match=r"in phase 'enqueue' .* --resume"):
        run.start(run_profile(), options(tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run").step == 2


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
        assert [one for one in held if one() is not None] == []
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", step)
    monkeypatch.setattr(gc, "collect", lambda: 0)
    run.start(run_profile(), options(tmp_path / "run"))
    assert len(held) > 10
