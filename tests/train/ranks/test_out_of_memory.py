"""One process that runs out of memory lets all begin the step again in smaller parts; what was learned stays."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from attfc_train.errors import CheckpointError, LostProcessError
from attfc_train.profile.file import load_profile, save_profile
from attfc_train.ranks import watch
from attfc_train.ranks.ranks import Ranks
from attfc_train.ranks.watch import Peer, Watch
from attfc_train.run import loop, run
from attfc_train.run.checkpoint import load_checkpoint, load_same
from attfc_train.run.log import read_log
from attfc_train.step import gradient_sums
from attfc_train.step.state import TrainState
from tests.train.ranks.commands import EVERY, Failing, ended, processes
from tests.train.ranks.gloo import in_processes
from tests.train.ranks.test_runs import differing, options, profile_of
from tests.train.run.failing import in_parts

ARGUMENTS = ["--profile", "best.json", "--output", "run"]
FAILS_AT = 4


def train_in_parts(ranks: Ranks, head: str, folder: Path, parts: int) -> None:
    """Train without a failure, in more parts from the step on in which the other run fails."""
    step = loop.train_step

    def train_step(state: TrainState, batch: Any) -> Any:
        if state.step == FAILS_AT:
            in_parts(state, parts)
        return step(state, batch)

    loop.train_step = train_step  # in this process alone, which ends with the test
    gradient_sums.BUCKET_BYTES = 4096
    run.start(profile_of(head), options(folder, ranks))


CASES = [
    ("identity-30%", 2, Failing(1, "memory", "backward", times=1)),
    ("stored-int8", 2, Failing(0, "memory", "references", times=1)),
    ("full_fc", 3, Failing(2, "memory", "loss", times=1)),
    ("partial_fc", 2, Failing(1, "memory", "update", times=1)),
    ("fifo", 3, Failing(1, "memory", "enqueue", times=1)),
    ("dcq", 2, Failing(EVERY, "memory", "forward", times=1)),
    ("identity-R0", 2, Failing(0, "memory", times=1)),
    ("full_fc-int8", 2, Failing(1, "memory", "input", times=2)),
    ("full_fc", 3, Failing(1, "memory", "backward", times=1, place=78)),
    ("full_fc", 2, Failing(EVERY, "memory", "backward", times=1, place=70)),
]
"""The last two fail in the last part of the step, with sums of gradients under way: buckets are small here."""


# Catches processes that wait for each other for ever, a step that one of them makes twice, weights that one has changed
# already, and a repeated step with other bits than one that was begun so.
@pytest.mark.parametrize(("head", "size", "failing"), CASES, ids=lambda value: str(value).replace("'", ""))
def test_all_begin_the_step_again(head: str, size: int, failing: Failing, tmp_path: Path) -> None:
    save_profile(profile_of(head), tmp_path / "best.json")
    with processes(size, tmp_path, ARGUMENTS, failing) as children:
        results = ended(children, tmp_path)
    assert [result.code for result in results] == [0] * size, results
    events = [record for record in read_log(tmp_path / "run") if record["event"] == "oom"]
    assert [event["step"] for event in events] == [FAILS_AT] * failing.times
    assert {event["rank"] for event in events} == {0 if failing.rank == EVERY else failing.rank}
    assert [event["phase"] for event in events] == [failing.phase] * failing.times
    parts = events[-1]["next_accumulation"]
    said, *silence = (" ".join((tmp_path / f"stdout.{rank}").read_text().split()) for rank in range(size))
    told = f"step {FAILS_AT}: out of memory in phase '{failing.phase}' on rank {events[-1]['rank']} ("
    assert told in said
    assert f"to begin so: --set optim.accumulation={parts}" in said
    assert silence == [""] * (size - 1)
    assert load_profile(tmp_path / "run/profile.json").optim.accumulation == parts
    in_processes(size, train_in_parts, head, tmp_path / "plain", parts)
    left, right = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("run", "plain"))
    assert differing(left.state, right.state) == []
    losses = [[r["loss"] for r in read_log(tmp_path / name) if r["event"] == "step"] for name in ("run", "plain")]
    assert losses[0] == losses[1]


# Catches a run that repeats a step for ever.
def test_what_cannot_be_cut_stops_all(tmp_path: Path) -> None:
    save_profile(profile_of("full_fc"), tmp_path / "best.json")
    with processes(2, tmp_path, ARGUMENTS, Failing(1, "memory", "loss")) as children:
        (first, text), (other, silence) = ended(children, tmp_path)
    assert (first, other, silence) == (10, 10, "")
    assert text.startswith(
        "error: step 4 must fit into the memory of cpu, but got CUDA out of memory in phase 'loss' on rank 1 with 2 "
    )
    assert text.count("\n") == 1
    parts = [record["next_accumulation"] for record in read_log(tmp_path / "run") if record["event"] == "oom"]
    assert parts == [4, 6]


# Catches a loss in the midst of a repeated step that nobody tells.
def test_a_process_that_is_killed_afterwards_is_told(tmp_path: Path) -> None:
    save_profile(profile_of("full_fc"), tmp_path / "best.json")
    with processes(2, tmp_path, ARGUMENTS, Failing(1, "memory then kill", "loss", times=1)) as children:
        (first, text), _ = ended(children, tmp_path)
    assert first == LostProcessError.exit_code
    assert "the loss of rank 1" in text
    assert text.count("\n") == 1


class Talk:
    """Rank 0's watch, and the other ends of its connections."""

    def __init__(self, size: int) -> None:
        pairs = [socket.socketpair() for _ in range(size - 1)]
        self.sockets = [end for pair in pairs for end in pair]
        self.ends = [there for _, there in pairs]
        self.watch = Watch(0, [Peer(rank, here) for rank, (here, _) in enumerate(pairs, 1)], "Go on so.")

    def close(self) -> None:
        self.watch.leave()
        for end in self.ends:
            end.sendall(b'{"done": 1}\n')
        self.watch._thread.join(5)
        for end in self.sockets:
            end.close()


def test_news_reach_all_and_old_ones_mean_nothing() -> None:
    talk = Talk(3)
    calls: list[int] = []
    talk.watch.when_broken_off(lambda: calls.append(1))
    assert not talk.watch.is_broken_off(0.05)
    talk.ends[0].sendall(b'{"again": 0}\n')
    assert talk.watch.is_broken_off(5)
    assert talk.ends[1].recv(100) == b'{"again": 0}\n'
    talk.watch.begin_again()
    talk.watch.go_on()
    talk.ends[1].sendall(b'{"again": 0}\n')  # it had failed in the same step
    assert not talk.watch.is_broken_off(0.2)
    talk.ends[1].sendall(b'{"again": 1}\n')
    assert talk.watch.is_broken_off(5)
    assert talk.ends[0].recv(100) == b'{"again": 1}\n'
    talk.watch.begin_again()
    assert len(calls) == 2
    talk.close()


def test_a_process_that_does_not_come_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run that hangs where a process never gets out of its exchange."""
    codes: list[int] = []
    monkeypatch.setattr(watch, "AGAIN_SECONDS", 0.3)
    monkeypatch.setattr(watch, "GRACE", 0.05)
    monkeypatch.setattr(watch.os, "_exit", codes.append)
    talk = Talk(2)
    talk.watch.break_off()
    assert isinstance(talk.watch.verdict(5), LostProcessError)
    deadline = time.monotonic() + 5
    while not codes and time.monotonic() < deadline:
        time.sleep(0.01)
    assert codes == [LostProcessError.exit_code]
    for end in talk.sockets:
        end.close()


def test_who_came_together_has_no_deadline_and_who_is_on_the_way_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run that waits for ever for a process that hangs while groups are made anew."""
    monkeypatch.setattr(watch, "AGAIN_SECONDS", 3.0)
    talk = Talk(2)
    talk.watch.break_off()
    talk.watch.begin_again()
    assert talk.watch._deadline < time.monotonic() + 3
    talk.watch.go_on()
    assert talk.watch._deadline == float("inf")
    talk.ends[0].sendall(b'{"again": 1}\n')
    assert talk.watch.is_broken_off(5)
    talk.watch.begin_again()
    talk.ends[0].sendall(b'{"again": 2}\n')  # another process was faster, and failed again
    assert talk.watch.is_broken_off(5)
    talk.watch.go_on()
    assert talk.watch._deadline < time.monotonic() + 3, "that of the next step"
    talk.close()


def test_exchanges_are_ended_once_and_before_the_next_ones_begin() -> None:
    """Catches an abort of the exchanges that were made anew, and a thread that watches nobody while it takes its time."""
    talk = Talk(3)
    calls: list[str] = []

    def slow() -> None:
        time.sleep(0.3)
        calls.append("ended")

    talk.watch.when_broken_off(slow)
    for end in talk.ends:
        end.sendall(b'{"again": 0}\n')
    assert talk.watch.is_broken_off(5)
    assert talk.ends[0].recv(100) == b'{"again": 0}\n', "told on at once"
    assert calls == []
    talk.watch.begin_again()
    assert calls == ["ended"]
    talk.close()


def load(ranks: Ranks, folder: Path, damaged_on: int) -> tuple[str, int]:
    if ranks.rank == damaged_on:
        flawed = folder / f"rank{ranks.rank}"
        shutil.copytree(folder / "run", flawed)
        (flawed / "checkpoint.pt").write_bytes(b"damaged")
        folder = flawed
    else:
        folder = folder / "run"
    try:
        checkpoint = load_same(folder, ranks, lambda _: None)
    except CheckpointError as error:
        return str(error), -1
    return checkpoint.path.name, checkpoint.step


# Catches processes that go on from different steps.
@pytest.mark.parametrize("damaged_on", [0, 1])
def test_all_go_on_from_what_rank_0_finds(damaged_on: int, tmp_path: Path) -> None:
    in_processes(1, train_in_parts, "full_fc", tmp_path / "run", 2)
    (name, step), (other, other_step) = in_processes(2, load, tmp_path, damaged_on)
    if damaged_on == 0:
        assert (name, other) == ("checkpoint.1.pt",) * 2
        assert step == other_step > 0
    else:
        assert name == "checkpoint.pt"
        assert "rank1/checkpoint.pt' must be a readable checkpoint" in other
