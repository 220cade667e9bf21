"""A step that runs out of memory, wherever it does, is undone; repeated, it is the step of a run that had smaller parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attfc_planner.trace.recorder import Recorder
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.out_of_memory import in_smaller_parts, is_out_of_memory, observed, release
from attfc_train.step.build import build
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.profiles import HEADS, random_batch, small_profile
from tests.train.run.failing import CPU, FailingAllocation, differences, everything, in_parts
from tests.train.step.spoiled_places import spoiled_places


def profile_of(head: str, precision: str = "fp32", **optim: Any) -> TrainProfile:
    """A batch that four parts divide, and each of its halves where it has two."""
    batch_size = 8 * (1 + HEADS[head].is_paired)
    return small_profile(head, precision, num_ids=20, batch_size=batch_size, **optim)


def failed_and_repeated(state: TrainState, batch: Any, mode: FailingAllocation) -> None:
    """What the loop does, by hand."""
    try:
        with mode:
            train_step(state, batch)
    except torch.OutOfMemoryError as error:
        failure = observed(error, CPU)
    assert failure.phase == mode.phase
    release(state)
    assert [each for each in mode.lost if (kept := each()) is not None and kept.requires_grad and kept.grad_fn] == []
    smaller = in_smaller_parts(state.profile)
    assert smaller is not None
    state.profile = smaller
    train_step(state, batch)


CASES = [
    ("identity-30%", "fp32"),
    ("identity-R0", "fp16"),
    ("fifo", "fp32"),
    ("dcq", "fp32"),
    ("stored-int8", "fp32"),
    ("full_fc", "fp32"),
    ("full_fc-int8", "fp32"),
    ("partial_fc", "fp16"),
    ("partial_fc-bf16", "fp32"),
    ("partial_fc-fp8", "fp16"),
    ("f2c-int8", "fp32"),
    ("full_fc-adaface", "fp16"),
    ("partial_fc-curricularface", "fp32"),
    ("identity-learned-curricularface", "fp32"),
    ("f2c-curricularface", "fp32"),
]


@pytest.mark.parametrize(("head", "precision"), CASES)
def test_wherever_a_step_fails_nothing_is_lost(head: str, precision: str) -> None:
    """The last allocation of a phase, or the middle one (in the second micro-batch); each phase in a step of its own.

    With batches as a GPU has them: a repeated step has its batch in the other place.
    """
    profile = profile_of(head, precision)
    failing = build(profile, CPU)
    failing.inputs = spoiled_places(profile)
    plain = build(profile, CPU)
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
        begin = state.start.begin_commit
        end = state.start.end_commit
        monkeypatch.setattr(state.start, "begin_commit", lambda: (begin(), seen.append(len(recorder.nbytes))))
        monkeypatch.setattr(state.start, "end_commit", lambda: (end(), seen.append(len(recorder.nbytes))))
        train_step(state, random_batch(profile, 1))
    assert seen[0] == seen[1] > 100
    assert "momentum" not in recorder.phases


def test_a_smaller_part_is_the_next_divisor() -> None:
    def path(batch_size: int, parts: int = 1, head: str = "identity") -> list[int]:
        profile = small_profile(head, batch_size=batch_size, accumulation=parts)
        steps = [parts]
        while (smaller := in_smaller_parts(profile)) is not None:
            profile = smaller
            steps.append(profile.optim.accumulation)
            assert TrainProfile.model_validate(profile.model_dump()) == profile
        return steps

    assert path(128) == [1, 2, 4, 8, 16, 32, 64]
    assert path(384, 3) == [3, 6, 12, 24, 48, 96, 192]
    assert path(6) == [1, 2, 3]
    assert path(9) == [1, 3]
    assert path(7) == [1]
    assert path(45) == [1, 3, 9, 15]
    assert path(4096)[-1] == 1024
    assert path(128, head="f2c") == [1, 2, 4, 8, 16, 32], "a half has 64"
    assert path(12, head="f2c") == [1, 2, 3]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."), True),
        # cuDNN's engines want workspaces: where none has room, torch says so in these two ways.
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("unable to open"), False),
    ],
)
def test_all_that_means_out_of_memory_is_known(error: Exception, expected: bool) -> None:
    """Catches a sign that is taken out: a full card would end the run as a fault of the program."""
    assert is_out_of_memory(error) is expected
