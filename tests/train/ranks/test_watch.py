"""Whoever fails or is killed, all leave, and one message says why."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from attfc_train.errors import DataError, LostProcessError, StorageError, UsageError
from attfc_train.profile.file import save_profile
from attfc_train.ranks import launch, watch
from attfc_train.ranks.group import ProcessRanks
from attfc_train.ranks.launch import Place, device_for, place, together
from attfc_train.ranks.ranks import Ranks
from attfc_train.ranks.watch import Peer, Watch
from attfc_train.run.checkpoint import load_checkpoint
from tests.train.ranks.commands import Ended, Failing, free_port, processes
from tests.train.ranks.commands import ended as ended_processes
from tests.train.ranks.gloo import in_processes
from tests.train.ranks.test_runs import profile_of

Connected = Callable[[], tuple[socket.socket, socket.socket]]


@pytest.fixture
def connected() -> Iterator[Connected]:
    """Makes two ends of a connection, which are closed after the test."""
    with contextlib.ExitStack() as stack:

        def pair() -> tuple[socket.socket, socket.socket]:
            here, there = socket.socketpair()
            return stack.enter_context(here), stack.enter_context(there)

        yield pair


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Codes with which the watch would have ended the process, at once."""
    codes: list[int] = []
    monkeypatch.setattr(watch, "GRACE", 0.05)
    monkeypatch.setattr(watch.os, "_exit", codes.append)
    return codes


# Catches a loss that nobody notices, and one that is taken for the end of another process's work.
def test_a_lost_process_ends_the_others(ended: list[int], connected: Connected, capfd: pytest.CaptureFixture[str]) -> None:
    here, there = connected()
    other, kept = connected()
    Watch(0, [Peer(1, here), Peer(2, other)], "Go on so.")
    there.close()
    assert kept.recv(1000) == b'{"leave": 13}\n'
    deadline = time.monotonic() + 5
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended == [LostProcessError.exit_code]
    assert capfd.readouterr().err == (
        "error: all processes of a run must stay to its end, but got the loss of rank 1, which was killed or whose machine is "
        "gone. Go on so.\n"
    )


def test_who_is_done_is_not_lost(ended: list[int], connected: Connected) -> None:
    here, there = connected()
    first = Watch(0, [Peer(1, here)])
    other = Watch(1, [Peer(0, there)])
    other.leave()
    first.leave()
    assert first.verdict(0.2) is None
    assert other.verdict(0.2) is None
    assert ended == []


def test_an_error_is_told_by_rank_0_with_its_code(ended: list[int], connected: Connected) -> None:
    here, there = connected()
    first = Watch(0, [Peer(1, here)])
    other = Watch(1, [Peer(0, there)])
    other.leave(DataError("a rule", "a value", "A remedy."))
    verdict = first.verdict(5)
    assert str(verdict) == "a rule, but got a value. A remedy."
    assert verdict is not None
    assert verdict.exit_code == DataError.exit_code
    first.leave(verdict)  # it raises the error itself: the watch does not end the process
    time.sleep(0.2)
    assert ended == []


# Catches a watch that ends with the first piece of a line, and then sees nobody go.
def test_a_torn_line_is_read_whole(ended: list[int], connected: Connected) -> None:
    here, there = connected()
    first = Watch(0, [Peer(1, here)])
    there.sendall(b'{"failed": ["a rule", "a val')
    assert first.verdict(0.2) is None
    there.sendall(b'ue", "A remedy."], "code": 4}\n{"do')
    assert str(first.verdict(5)) == "a rule, but got a value. A remedy."
    first.leave(first.verdict(0))
    assert ended == []


# Catches the timeout of the meeting on exchanges, which wait for whoever verifies or reads.
def test_exchanges_wait_for_days() -> None:
    assert in_processes(2, seconds_of_exchanges, free_port()) == [7 * 24 * 3600] * 2


def seconds_of_exchanges(ranks: Ranks, port: int) -> float:
    torch.distributed.destroy_process_group()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with together(Place(ranks.rank, ranks.size, ranks.rank, "127.0.0.1", port), "Go on so.") as met:
        used = met.on(torch.device("cpu"))
        assert isinstance(used, ProcessRanks)
        group = used.devices.group
        assert group is not None
        return float(group._get_backend(torch.device("cpu")).options._timeout.total_seconds())


# Catches the traceback, or the fault, of processes that do not reach each other.
def test_who_meets_nobody_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(port))
    monkeypatch.setattr(launch, "MEET_TIMEOUT", timedelta(seconds=1))
    where = rf"all 2 processes must meet at 127\.0\.0\.1, port {port}, but got on rank 1 '.*(timed out|timeout).*'"
    with pytest.raises(LostProcessError, match=where), together(Place(1, 2, 1, "127.0.0.1", port), "Go on so."):
        pass


def test_the_place_is_what_torchrun_says() -> None:
    given = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
    assert place(given) == Place(3, 8, 1, "node0", 29500)
    assert place({}) is None
    assert place({**given, "WORLD_SIZE": "1"}) is None
    for name, value in (
        ("RANK", "8"),
        ("RANK", "x"),
        ("LOCAL_RANK", "-1"),
        ("MASTER_PORT", ""),
        ("MASTER_PORT", "70000"),
        ("MASTER_ADDR", ""),
    ):
        with pytest.raises(UsageError, match=f"{name}={value}"):
            place({**given, name: value})
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        with pytest.raises(UsageError, match="torchrun --nproc-per-node"):
            place({key: value for key, value in given.items() if key != name})


def test_processes_do_not_share_a_gpu() -> None:
    here = Place(3, 8, 1, "node0", 29500)
    assert device_for("cuda", here) == "cuda:1"
    assert device_for("cpu", here) == "cpu"
    assert device_for("cuda:2", None) == "cuda:2"
    with pytest.raises(UsageError, match="'cuda:2' for 8 processes"):
        device_for("cuda:2", here)


def run_of_two(folder: Path, failing: Failing, *arguments: str) -> list[Ended]:
    """How two processes end, one of which fails before its fifth step."""
    with processes(2, folder, arguments, failing) as children:
        return ended_processes(children, folder)


# Catches processes that wait for the killed one for ever, a traceback, and two messages or none.
@pytest.mark.parametrize("who", [0, 1])
def test_a_killed_process_ends_the_run_with_one_message(who: int, tmp_path: Path) -> None:
    save_profile(profile_of("identity-30%"), tmp_path / "best.json")
    results = run_of_two(tmp_path, Failing(who, "kill"), "--profile", "best.json", "--output", "run")
    assert results[who] == (-signal.SIGKILL, "")
    code, text = results[1 - who]
    assert code == LostProcessError.exit_code
    assert text.startswith(f"error: all processes of a run must stay to its end, but got the loss of rank {who},")
    assert "--resume run" in text
    assert text.count("\n") == 1
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 3


# Catches a step that is repeated by one process alone, and a message of each process.
def test_out_of_memory_on_one_process_stops_all_where_it_must(tmp_path: Path) -> None:
    save_profile(profile_of("full_fc"), tmp_path / "best.json")
    arguments = ["--profile", "best.json", "--output", "run", "--on-oom", "fail"]
    (first, text), (other, silence) = run_of_two(tmp_path, Failing(1, "memory"), *arguments)
    assert (first, other, silence) == (10, 10, "")
    assert text.startswith(
        "error: step 4 must fit into the memory of cpu, but got no room on rank 1 with 6 queries at a time. --resume run"
    )
    assert "--set optim.accumulation=4" in text
    assert text.count("\n") == 1


# Catches a process that goes on alone, and one that saves at another step.
def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path: Path) -> None:
    save_profile(profile_of("partial_fc"), tmp_path / "best.json")
    (first, text), (other, silence) = run_of_two(tmp_path, Failing(1, "stop"), "--profile", "best.json", "--output", "run")
    assert (first, other, silence) == (143, 143, "")
    assert text == "Stopped at step 5 of 9, saved. Continue: torchrun --nproc-per-node 2 -m attfc_train --resume run\n"
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 5


# Catches a process that leaves while rank 0 writes, whose message ends rank 0 before the checkpoint is whole.
def test_a_stop_waits_for_the_checkpoint(tmp_path: Path) -> None:
    save_profile(profile_of("partial_fc"), tmp_path / "best.json")
    failing = Failing(0, "stop slowly")
    (first, text), (other, silence) = run_of_two(tmp_path, failing, "--profile", "best.json", "--output", "run")
    assert (first, other, silence) == (143, 143, "")
    assert text.startswith("Stopped at step 5 of 9, saved.")
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 5


# Catches a rank 0 that waits for ever for the rows of a process that is gone, or says that its own disk is not writable.
def test_a_process_that_is_killed_while_all_save_is_told_as_lost(tmp_path: Path) -> None:
    save_profile(profile_of("identity-30%"), tmp_path / "best.json")
    failing = Failing(1, "kill saving")
    (first, text), (other, silence) = run_of_two(tmp_path, failing, "--profile", "best.json", "--output", "run")
    assert (first, other, silence) == (LostProcessError.exit_code, -signal.SIGKILL, "")
    assert text.startswith("error: all processes of a run must stay to its end, but got the loss of rank 1,")
    assert text.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


# Catches a process that waits for ever for rank 0 to take its rows.
def test_a_full_disk_ends_all_with_one_message(tmp_path: Path) -> None:
    save_profile(profile_of("identity-30%"), tmp_path / "best.json")
    failing = Failing(0, "full disk")
    (first, text), (other, silence) = run_of_two(tmp_path, failing, "--profile", "best.json", "--output", "run")
    assert (first, other, silence) == (StorageError.exit_code, StorageError.exit_code, "")
    assert "run/checkpoint.pt' must be writable, but got No space left on device." in text
    assert text.count("\n") == 1
    assert [path.name for path in (tmp_path / "run").glob("*checkpoint*")] == []


# Catches a fault that the others take for a killed process, and tell besides.
@pytest.mark.parametrize("who", [0, 1])
def test_a_fault_is_told_once(who: int, tmp_path: Path) -> None:
    save_profile(profile_of("partial_fc"), tmp_path / "best.json")
    failing = Failing(who, "fault")
    (first, text), (other, silence) = run_of_two(tmp_path, failing, "--profile", "best.json", "--output", "run")
    assert (first, other, silence) == (70, 70, "")
    assert text.startswith("error: attfc must handle whatever it is given, but got KeyError: 'a key'")
    assert text.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
def test_a_gpu_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    save_profile(profile_of("partial_fc"), tmp_path / "best.json")
    arguments = "--profile", "best.json", "--output", "run", "--device", "cuda"
    (first, text), (other, silence) = run_of_two(tmp_path, Failing(0, "kill"), *arguments)
    assert (first, other, silence) == (2, 2, "")
    assert text == "error: --device must exist on this machine, but got 'cuda:0'. Use --device cpu, or check the driver.\n"


# Catches the same line from every process.
def test_a_wrong_option_is_told_once(tmp_path: Path) -> None:
    (first, text), (other, silence) = run_of_two(tmp_path, Failing(0, "kill"), "--profile", "nowhere.json")
    assert (first, other, silence) == (3, 3, "")
    assert text.startswith("error: ")
    assert "nowhere.json" in text
    assert text.count("\n") == 1
