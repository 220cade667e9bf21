"""One short training in a process of its own: ``attfc-train`` with a profile, watched through its record.

Like `attfc_planner.plan.launch`, but limited in time, silent, and stopped early where its evaluations say so. Where the tuning
is killed, its training is told to end, saves, and removes the folder of both (`attfc_train.processes`).
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from attfc_train.errors import DeviceMemoryError
from attfc_train.processes import command
from attfc_train.profile.file import save_profile
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.log import read_log
from attfc_train.scratch import Scratch, scratch
from attfc_train.units import Bytes

Outcome = Literal["finished", "stopped", "out of time", "out of memory", "failed"]
Sets: TypeAlias = tuple[tuple[float, int], ...]
"""Accuracy and number of pairs of each verification set."""

_LONGEST_REASON = 1000
"""Characters: an error's rule, its values and the remedy, which stands last."""
POLL_SECONDS = 0.25
PATIENCE_SECONDS = 30.0
"""How long a training that was told to stop may take to save and leave."""


@dataclass(frozen=True)
class ShortTraining:
    """How a short training ended, and what it measured."""

    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    """Wall time of the whole process."""
    images_per_second: float | None = None
    peak_bytes: Bytes | None = None


OnCheck: TypeAlias = Callable[[int, Sets], bool]
"""Called with the step and the accuracies of every evaluation; True stops the training."""


class Train(Protocol):
    """`run_short_training`; a test may give another."""

    def __call__(
        self, profile: TrainProfile, kind: Literal["cuda", "cpu"], *, timeout: float, on_check: OnCheck
    ) -> ShortTraining:
        """Train `profile`."""
        ...


def run_short_training(
    profile: TrainProfile, kind: Literal["cuda", "cpu"], *, timeout: float, on_check: OnCheck
) -> ShortTraining:
    """Train `profile`, which names its data and verification sets, and throw the model away.

    Args:
        timeout: seconds after which the process is stopped.
    """
    begin = time.monotonic()
    with scratch() as place:
        folder = place.folder
        save_profile(profile, folder / "profile.json")
        with _started(place, kind) as child:
            stopped = _watch(child, folder / "run", len(profile.run.val), begin + timeout, on_check)
        return _result(folder, child.returncode, stopped, time.monotonic() - begin)


@contextlib.contextmanager
def _started(place: Scratch, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start the trainer; end it when the context is left."""
    folder = place.folder
    arguments = ["--profile", str(folder / "profile.json"), "--output", str(folder / "run"), "--device", kind]
    trainer = command("attfc_train.cli", *arguments, "--on-oom", "fail", scratch=folder)
    with (folder / "output").open("wb") as output, (folder / "errors").open("wb") as errors:
        child = subprocess.Popen(trainer, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, pass_fds=(place.lock,))
        try:
            yield child
        finally:
            _end(child)


def _watch(child: subprocess.Popen[bytes], run: Path, num_sets: int, deadline: float, on_check: OnCheck) -> Outcome | None:
    """Follow the training's record; return why it is to be stopped, or None if it ended by itself."""
    seen = 0
    while True:
        # Asked before the record is read: what a training that has ended wrote is all there, so the last check is not missed.
        ended = child.poll() is not None
        checks = _checks(run, num_sets)
        for step in list(checks)[seen:]:
            seen += 1
            if on_check(step, checks[step]) and not ended:
                return "stopped"
        if ended:
            return None
        if time.monotonic() > deadline:
            return "out of time"
        time.sleep(POLL_SECONDS)


def _checks(run: Path, num_sets: int) -> Mapping[int, Sets]:
    """Return step -> accuracies of the evaluations that are complete: a line was written for every set."""
    evaluations: dict[int, list[tuple[float, int]]] = {}
    for event in read_log(run):
        if event["event"] == "evaluate":
            evaluations.setdefault(event["step"], []).append((event["accuracy"], event["num_pairs"]))
    return {step: tuple(sets) for step, sets in evaluations.items() if len(sets) == num_sets}


def _end(child: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, on which the trainer leaves after its step, and SIGKILL if it does not."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _result(folder: Path, code: int, stopped: Outcome | None, seconds: float) -> ShortTraining:
    end: dict[str, Any] = next((event for event in reversed(read_log(folder / "run")) if event["event"] == "end"), {})
    facts: dict[str, Any] = {
        "seconds": seconds,
        "images_per_second": end.get("images_per_second"),
        "peak_bytes": end.get("peak_memory_bytes"),
    }
    if stopped is not None and not end:  # one that reached its end before the signal did is finished
        return ShortTraining(stopped, **facts)
    if code == 0:
        return ShortTraining("finished", **facts)
    reason = (_lines(folder / "errors") or _lines(folder / "output") or [f"exit code {code}"])[-1][:_LONGEST_REASON]
    is_out_of_memory = code in (DeviceMemoryError.exit_code, -signal.SIGKILL)  # on a CPU the kernel kills
    return ShortTraining("out of memory" if is_out_of_memory else "failed", reason, **facts)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
