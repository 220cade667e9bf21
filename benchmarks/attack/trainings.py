"""Small runs in forked processes, through the command line's own entry point, and what a finished run leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

import attfc_train.run.run
import attfc_train.screen  # noqa: F401  # what is loaded before the forks, they need not load again
from attfc_train import cli
from attfc_train.backbones.kinds import BACKBONES
from attfc_train.errors import CheckpointError
from attfc_train.run.log import read_log
from attfc_train.run.tensor_file import load_tensors
from benchmarks.attack.formats.records import small_profile
from benchmarks.attack.oracle import same_bits
from benchmarks.attack.outcome import HIDDEN, Ended, Outcome, judged_end

PATIENCE_SECONDS: Final = 120.0
"""A run takes a second; on a machine that does other work, ten."""
MEASURED: Final = {
    "time",
    "images_per_second",
    "data_wait_share",
    "read_wait_share",
    "decode_wait_share",
    "transfer_wait_share",
    "memory_bytes",
    "peak_memory_bytes",
    "peak_tensor_bytes",
}
"""Figures of the record that differ from run to run."""
KILLED: Final = -signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Child:
    """A command in a process of its own."""

    pid: int
    output: Path


def thin_network() -> None:
    """Let ``tiny`` have few channels in this process: its files are a hundredth as large, and a run takes a second."""
    BACKBONES["tiny"] = BACKBONES["tiny"]._replace(options={"channels": (8, 8, 8, 16)})


def start(arguments: list[str], output: Path, arm: Callable[[], object] | None = None) -> Child:
    """Fork, and run ``attfc-train ARGUMENTS`` in the child.

    Args:
        output: receives stdout; stderr goes to ``.errors`` beside it.
        arm: called in the child first.
    """
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            torch.set_num_threads(1)
            thin_network()
            _write_to(output)
            sys.argv = ["attfc-train", *arguments]
            if arm is not None:
                arm()
            cli.main()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    return Child(pid, output)


def _write_to(output: Path) -> None:
    """Let a fork write to files, with streams and warnings as a command has them, whatever its parent had done to its own."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.dup2(os.open(output, flags, 0o644), 1)
    os.dup2(os.open(output.with_suffix(".errors"), flags, 0o644), 2)
    open_streams()
    warnings.resetwarnings()
    for category in HIDDEN:
        warnings.simplefilter("ignore", category)


def open_streams(encoding: str = "utf-8") -> None:
    """Open stdout and stderr anew on what their descriptors are now."""
    sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=encoding, closefd=False, buffering=1)  # noqa: SIM115


def wait(child: Child, seconds: float = PATIENCE_SECONDS) -> Ended | None:
    """Return how a child ended; None: it did not, and was killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child.pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return Ended(code, _text(child.output), _text(child.output.with_suffix(".errors")))
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    os.waitpid(child.pid, 0)
    return None


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def run(arguments: list[str], output: Path, arm: Callable[[], object] | None = None) -> Ended | None:
    """Run ``attfc-train ARGUMENTS`` to its end; None: it hung, and was killed."""
    return wait(start(arguments, output, arm))


def profile_file(folder: Path) -> Path:
    """Write the profile of the small run; return its path."""
    path = folder / "small.json"
    path.write_text(json.dumps(small_profile()))
    return path


def start_arguments(profile: Path, folder: Path) -> list[str]:
    """Return the options that begin a run."""
    return ["--profile", str(profile), "--output", str(folder), "--device", "cpu"]


def resume_arguments(folder: Path) -> list[str]:
    """Return the options that continue a run."""
    return ["--resume", str(folder), "--device", "cpu"]


def content(folder: Path) -> dict[str, Any]:
    """Return everything that a finished run leaves, but for times and rates."""
    left: dict[str, Any] = {path.name: load_tensors(path) for path in sorted(folder.glob("*.pt"))}
    records = read_log(folder)
    # A run that was told to stop saves once more; that is in its record where no save was due.
    stops = {record["step"] for record in records if record["event"] == "stop"}
    added = {("save", step) for step in stops if step % small_profile()["run"]["save_every"]}
    # Every beginning says what of the data would hurt; it must be the same each time, and counts once.
    said = [record["messages"] for record in records if record["event"] == "data"]
    left["data"] = [messages for number, messages in enumerate(said) if messages not in said[:number]]
    records = [record for record in records if record["event"] not in ("resume", "stop", "data")]
    records = [record for record in records if (record["event"], record["step"]) not in added]
    left["log"] = [{key: value for key, value in record.items() if key not in MEASURED} for record in records]
    left["profile"] = json.loads((folder / "profile.json").read_text())
    return left


def compare(expected: dict[str, Any], folder: Path, may_lack: str = "") -> str | None:
    """Return how a finished run differs from `expected`; None: in nothing, and nothing is left over.

    Args:
        may_lack: a file that need not be there.
    """
    try:
        found = content(folder)
    except Exception as error:
        return f"what was left cannot be read: {error}"
    expected = {name: value for name, value in expected.items() if name in found or name != may_lack}
    if found.keys() != expected.keys():
        return f"files {sorted(found)} in place of {sorted(expected)}"
    different = [name for name in expected if not same_bits(expected[name], found[name])]
    if different:
        return f"other bits in {different}" + (_log_difference(expected, found) if "log" in different else "")
    left = sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
    return f"left over: {left}" if left else None


def _log_difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    events = [[(record["event"], record["step"]) for record in each["log"]] for each in (expected, found)]
    return f" (record {events[1]} in place of {events[0]})" if events[0] != events[1] else ""


def go_on(profile: Path, folder: Path, output: Path, expected: dict[str, Any], may_lack: str = "") -> Outcome:
    """Resume a run that was cut short, begin it again where there was nothing to resume, and compare it to the bit."""
    ended = run(resume_arguments(folder), output)
    if ended is not None and ended.code == CheckpointError.exit_code:
        told = judged_end(ended, {CheckpointError.exit_code})
        if not told.is_right:
            return told
        ended = run(start_arguments(profile, folder), output)
    if ended is None:
        return Outcome("hang", "the resumed run")
    told = judged_end(ended, {0})
    if not told.is_right:
        return told
    different = compare(expected, folder, may_lack)
    return Outcome("same") if different is None else Outcome("silent", different)


def undisturbed(folder: Path) -> Path:
    """Make the finished run that all others are compared with; return its folder."""
    run_folder = folder / "whole"
    ended = run(start_arguments(profile_file(folder), run_folder), folder / "whole.out")
    if ended is None or ended.code != 0:
        raise RuntimeError(f"the undisturbed run failed: {ended}")
    return run_folder


def removed(folder: Path) -> None:
    """Remove a run folder of which nothing is needed any more."""
    shutil.rmtree(folder, ignore_errors=True)
