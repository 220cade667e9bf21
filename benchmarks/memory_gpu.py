"""The memory matrix on a GPU: real steps of every case, in a process that `benchmarks.memory_probe` is the program of.

While one case runs, the next process imports torch, so that a case costs its steps and little more. The planner's process
never touches the GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict
from typing import Any

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import MemoryModel
from attfc_train.cuda_environment import prepare
from attfc_train.processes import command
from attfc_train.profile.prediction import MemoryPrediction
from attfc_train.units import Bytes
from benchmarks.memory_cases import CARDS, MATRIX, Case
from benchmarks.memory_probe import Job

NO_BUDGET = 2**60
"""A capacity above all needs, so that each is replayed."""
COLD_EVERY = 4
"""One case in so many also runs capped at its prediction in a process of its own."""
LONGEST_SECONDS = 240.0
"""Time after which a process is killed."""
COLD = frozenset(MATRIX["cuda"][::COLD_EVERY])

Process = subprocess.Popen[str]


class GpuMatrix:
    """Measures cases on the GPU that is here.

    Args:
        gpu: its profile.
        program: to start for a job, which it reads as a line from stdin.
    """

    def __init__(self, gpu: GpuProfile, program: tuple[str, ...] = ()) -> None:
        self.gpu = gpu
        self._program = program or tuple(command("benchmarks.memory_probe"))
        base = MATRIX["cuda"][0].profile(gpu)
        self._model = MemoryModel(base, gpu, NO_BUDGET)
        self._waiting: Process | None = None

    def prepare(self, cases: list[Case]) -> None:
        """Trace what these cases share."""
        self._model.prepare(case.profile(self.gpu) for case in cases)

    def measure(self, case: Case, seconds_left: float) -> dict[str, Any]:
        """Return ``predicted``, ``measured``, playable ``cards`` and ``capped`` runs of the case's line."""
        prediction = self._model.estimate(case.profile(self.gpu))
        job = self._job(case, prediction)
        timeout = min(LONGEST_SECONDS, seconds_left)
        result = self._ask(job, timeout)
        if result.get("capped") and case in COLD:
            result["capped"] += self._ask(Job(**{**vars(job), "cold": True}), timeout).get("capped", [])
        return {
            "predicted": predicted_bytes(prediction),
            "measured": _measured(result),
            "cards": job.cards,
            "capped": result.get("capped", []),
        }

    def close(self) -> None:
        """End the process that waits for a job."""
        if self._waiting is not None:
            self._waiting.kill()
            self._waiting.communicate()

    def _job(self, case: Case, prediction: MemoryPrediction) -> Job:
        need = prediction.without("foreign")
        profile = case.profile(self.gpu)
        room = self.gpu.capacity_bytes - self.gpu.foreign_bytes
        terms = {term.name: term.bytes for term in prediction.terms}
        return Job(
            profile=profile.model_dump(mode="json"),
            need=need,
            context=terms["context"],
            headroom=terms["headroom"],
            cards=playable(room),
            free=need <= room,
        )

    def _ask(self, job: Job, timeout: float) -> dict[str, Any]:
        """Return the probe's figures; ``failed`` holds its last words where it has none."""
        process = self._waiting or self._start()
        self._waiting = self._start()
        try:
            said, errors = process.communicate(json.dumps(asdict(job)) + "\n", timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return {"failed": f"no end after {timeout:.0f} s"}
        if process.returncode != 0:
            return {"failed": (errors.strip().splitlines() or [f"exit code {process.returncode}"])[-1][:300]}
        result: dict[str, Any] = json.loads(said.splitlines()[-1])
        return result

    def _start(self) -> Process:
        environment = dict(os.environ)
        prepare(environment)
        pipe = subprocess.PIPE
        return subprocess.Popen(self._program, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)


def playable(room: Bytes) -> tuple[Bytes, ...]:
    """Return the cards that a device with so much free memory can play."""
    return tuple(card for card in CARDS if card <= room)


def predicted_bytes(prediction: MemoryPrediction) -> dict[str, Bytes]:
    """Return the predictions that a run's own figures are held against."""
    return {
        "allocated_bytes": prediction.without("context", "foreign", "headroom", "fragmentation"),
        "reserved_bytes": prediction.measured_bytes,
        "process_bytes": prediction.without("foreign", "headroom"),
        "total_bytes": prediction.without("foreign"),
    }


def _measured(result: dict[str, Any]) -> dict[str, Any]:
    """Return the free run's figures; ``outcome`` is ``beyond`` where the device is too small for one."""
    if "failed" in result:
        return {"outcome": "failed", "reason": result["failed"]}
    if result["free"] is None:
        return {"outcome": "beyond", "reason": ""}
    free = dict(result["free"])
    return {**(free.pop("measured") or {}), **free}
