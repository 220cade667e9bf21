"""The launch of the trainer with a plan, and the comparison of its record with the prediction."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.plan.plan import Plan
from attfc_train.document import MOST_BYTES
from attfc_train.interrupt import stop_signals
from attfc_train.processes import command
from attfc_train.profile.prediction import Prediction
from attfc_train.run.log import read_log
from attfc_train.units import Bytes, format_bytes


def train_arguments(plan: Plan, profile_path: Path, data: str, run_folder: Path) -> list[str]:
    """Return ``attfc-train``'s options; the device is named, so that a plan for a GPU does not quietly train on the CPU."""
    arguments = ["--profile", str(profile_path), "--data", data, "--output", str(run_folder), "--device", plan.gpu.kind]
    return [*arguments, "--teacher", "MODEL"] if plan.profile.teacher.is_missing else arguments


def torchrun_arguments(gpus: int, nodes: int = 1) -> list[str]:
    """Return torchrun's options for a plan of several GPUs, which stand before ``-m attfc_train``.

    On several machines each starts the same command; HOST is the name of one of them.
    """
    meeting = ["--nnodes", str(nodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", "HOST:29400"] if nodes > 1 else []
    return [*meeting, "--nproc-per-node", str(gpus // nodes)]


def train_command(plan: Plan, arguments: Sequence[str]) -> list[str]:
    """Return the command that trains a plan: attfc-train, or torchrun where it is for several GPUs."""
    prediction = plan.profile.prediction
    if prediction is None or prediction.several is None:
        return ["attfc-train", *arguments]
    started = torchrun_arguments(plan.profile.run.gpus, prediction.several.nodes)
    return ["torchrun", *started, "-m", "attfc_train", *arguments]


def missing_bytes(plan: Plan, foreign_bytes: Bytes) -> Bytes:
    """Return what the plan lacks while others hold `foreign_bytes` of the device; 0 where it fits."""
    assert plan.profile.prediction is not None
    needed = plan.profile.prediction.memory.without("foreign")
    return max(0, needed + foreign_bytes - plan.gpu.capacity_bytes)


def held_by_others(gpu: GpuProfile, foreign_bytes: Bytes, holders: tuple[str, ...] = ()) -> GpuProfile:
    """Return the device with the memory that others hold of it now."""
    sources = {**gpu.sources, "foreign_bytes": "measured again before the launch"}
    return gpu.model_copy(update={"foreign_bytes": foreign_bytes, "holders": holders, "sources": sources})


def new_run_folder(name: str, parent: Path = Path("runs")) -> Path:
    """Return the first of ``runs/NAME``, ``runs/NAME-2``, ``-3`` ... that does not exist: a run never overwrites another."""
    folders = (parent / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(folder for folder in folders if not folder.exists())


def launch(arguments: list[str], gpus: int = 1) -> int:
    """Run the trainer as a child with its own memory, and return its exit code; 128 + n after signal n.

    Args:
        gpus: of this machine, a process each.

    The trainer saves its state when it is told to stop, and this process waits for that; should this process be killed, the
    trainer saves and stops too.
    """
    module = ["attfc_train.cli"]
    if gpus > 1:  # what the program torchrun is
        module = ["torch.distributed.run", *torchrun_arguments(gpus), "-m", "attfc_train"]
    with subprocess.Popen(command(*module, *arguments)) as child, _stopping(child):
        code = child.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _stopping(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave SIGINT to `child` and pass SIGTERM and SIGHUP on to it."""
    # Ctrl-C reaches the child by itself, as a member of the process group; SIGTERM goes to one process only. A child that is
    # reached twice takes both for one signal.
    handlers: dict[int, Any] = {number: lambda number, _: child.send_signal(number) for number in stop_signals()}
    handlers[signal.SIGINT] = signal.SIG_IGN
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def read_end(run_folder: Path) -> dict[str, Any] | None:
    """Return the ``end`` event of a run's record; None where the run did not finish."""
    return next((record for record in reversed(read_log(run_folder)) if record["event"] == "end"), None)


def comparison(prediction: Prediction, end: dict[str, Any], kind: Literal["cuda", "cpu"]) -> list[tuple[str, str, str]]:
    """Return rows of (figure, predicted, measured).

    The record's memory is what the trainer's process took: the resident set on a CPU, what the allocator reserved on a GPU. So
    the terms that lie outside are left out of the prediction.
    """
    speed = prediction.images_per_second
    prior = prediction.accuracy
    memory_bytes = prediction.memory.measured_bytes
    without = "without context and headroom" if kind == "cuda" else "without headroom"
    prior_text = f"prior {prior.low:+.2f} to {prior.high:+.2f} points against full FC"
    return [
        ("images/s", f"{speed.low:,.0f} to {speed.high:,.0f}", _shown(end.get("images_per_second"), "{:,.1f}".format)),
        (f"peak memory ({without})", format_bytes(memory_bytes), _shown(end.get("peak_memory_bytes"), format_bytes)),
        ("accuracy", prior_text, _shown(end.get("accuracy"), lambda share: f"{100 * share:.1f} %", "- (no --val)")),
    ]


def _shown(value: object, show: Callable[[Any], str], otherwise: str = "-") -> str:
    """Return a figure of the record as text; `otherwise` where the record lacks it."""
    is_number = isinstance(value, int | float) and abs(value) <= MOST_BYTES  # of a record that anybody may have written
    return show(value) if is_number else otherwise
