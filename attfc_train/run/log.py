"""The run record: JSON lines, what trackers are told, and one live line on the screen.

``log.jsonl`` has one object per line with ``step`` and ``event``: ``start``, ``step``, ``evaluate``, ``save``, ``resume``,
``stop``, ``oom``, ``allocator``, ``collapse``, ``data`` (what was passed over), ``images`` (drawn and replaced since the run
began) or ``end``. After a resume it holds what an uninterrupted run would have
written, plus the ``stop`` and ``resume`` lines: the record is on the disk before a checkpoint is, and a resumed run drops what
came after that (`_resumed`). A figure that is not finite is null.

``start``, ``resume``, ``oom`` and ``end`` have ``predicted_peak_bytes``, null without a plan for the settings that train;
``peak_memory_bytes`` is what it predicts, measured since those settings train. An ``oom`` is a step that ran out of memory in
``phase`` on ``rank`` with ``accumulation`` parts and was repeated with ``next_accumulation`` (null: the run stopped). An
``allocator`` follows the start where other segments are in force than the plan assumed: ``predicted_peak_bytes`` is then about
these.

A ``step`` has ``stranger_cosine`` (mean over queries of different identities) and ``chance_loss``, the loss if nothing told
them apart; a ``collapse`` says that features are alike and the loss stays there (`attfc_train.run.collapse`).

A ``step``, and the ``end``, have ``data_wait_share``, the share of the time in which training stood still for data, and its
parts ``read_wait_share`` (the disk), ``decode_wait_share`` and ``transfer_wait_share`` (the copy to the device).

A ``step`` with a teacher has ``teacher_cosine``, the mean of the last batch's with its embeddings; the distance that it is made
of is not in ``loss``.

A ``step`` of a head with a container also has ``filled_slots``, ``identities_held`` (distinct), ``mean_age_steps`` and
``max_age_steps`` (since a slot was written), and of the last batch ``conflict_share`` (samples whose identity holds a slot),
``found_age_steps`` (mean age of those slots), ``center_cosine`` (stored against fresh center) and ``center_cosine_per_step``
(its slope against age: the drift); of F2C's head ``outside_share`` too (queries of the second half that are not in the pool).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from attfc_train.document import MOST
from attfc_train.errors import StorageError
from attfc_train.files import sync_folder, write_text_atomically
from attfc_train.run.live_line import LineState, LiveLine
from attfc_train.run.trackers import Trackers
from attfc_train.units import format_bytes, format_seconds

FILE_NAME = "log.jsonl"


class RunLog:
    """The record of one run, as a context manager; every method is called from the loop's thread.

    Args:
        folder: the run folder.
        total_steps: of the whole run.
        first_step: where this process starts.
        trackers: take the figures too; they are closed with the log.
    """

    def __init__(
        self, folder: Path, total_steps: int, first_step: int, *, console: Console, trackers: Trackers | None = None
    ) -> None:
        self.folder = folder
        self.console = console
        self._trackers = trackers
        _keep_until(folder / FILE_NAME, first_step)
        self._file = _open(folder / FILE_NAME)
        self.line = LiveLine(console, LineState(total_steps, first_step))

    def __enter__(self) -> Self:
        self.line.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.line.stop()
        with contextlib.suppress(OSError):  # what could not be written was reported when it was written
            self._file.close()
        if self._trackers is not None:
            self._trackers.close()

    def event(self, event: str, step: int, **values: Any) -> None:
        """Append one line to the record, and hand its floats to the trackers."""
        record = {"event": event, "step": step, "time": round(time.time(), 3), **values}
        try:
            self._file.write(json.dumps({key: _finite(value) for key, value in record.items()}) + "\n")
            self._file.flush()
        except OSError as error:
            raise self._not_writable(error) from error
        if self._trackers is not None:
            self._trackers.scalars(event, step, values)

    def sync(self) -> None:
        """Return when all lines are on the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> StorageError:
        remedy = "Free disk space, then --resume."
        return StorageError(f"'{self._file.name}' must be writable", str(error.strerror), remedy)

    def step(self, step: int, seconds_left: float, **values: float) -> None:
        """Record a logged step and show it in the live line; off a terminal, print it."""
        self.event("step", step, **values)
        state = self.line.state
        state.seconds_per_step = seconds_left / max(1, state.total - step) if step < state.total else 0.0
        state.container = "  ".join([*_container_text(values), *_teacher_text(values)])
        state.values = values
        self.line.reached(step)
        if self.console.is_terminal:
            return
        text = (
            f"loss {values['loss']:.3f}  {values['images_per_second']:.0f} images/s  data {values['data_wait_share']:.0%}  "
            f"memory {format_bytes(int(values['memory_bytes']))} (peak {format_bytes(int(values['peak_memory_bytes']))})  "
            f"left {format_seconds(seconds_left)}"
        )
        self.say(f"step {step}/{state.total}  {'  '.join([text, *_container_text(values), *_teacher_text(values)])}")

    def say(self, text: str) -> None:
        """Print a line above the live line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class NoLog(RunLog):
    """The record of a process that keeps none: rank 0 writes that of all."""

    def __init__(self, folder: Path, total_steps: int, first_step: int, *, console: Console) -> None:
        self.folder = folder
        self.console = console
        self.line = LiveLine(console, LineState(total_steps, first_step))

    def __enter__(self) -> Self:
        """Begin nothing."""
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        """End nothing."""

    def event(self, event: str, step: int, **values: Any) -> None:
        """Write nothing."""

    def sync(self) -> None:
        """Write nothing."""

    def step(self, step: int, seconds_left: float, **values: float) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""


def _container_text(values: dict[str, float]) -> list[str]:
    """Return the container in a few words; nothing for heads without one."""
    if "filled_slots" not in values:
        return []
    filled = values["filled_slots"]
    age = values["mean_age_steps"]
    cosine = values["center_cosine"]
    compared = f", cosine {cosine:.2f} with fresh ones" if math.isfinite(cosine) else ""
    return [f"{filled:,.0f} centers, {age:,.0f} steps old{compared}"]


def _teacher_text(values: dict[str, float]) -> list[str]:
    """Return how near the teacher is; nothing without one."""
    return [f"teacher at cosine {values['teacher_cosine']:.2f}"] if "teacher_cosine" in values else []


def _finite(value: Any) -> Any:
    """Return None for NaN and infinity, which JSON does not know."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return all complete lines of a run's record; a damaged line, such as one cut short by a kill, is left out."""
    path = folder / FILE_NAME
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get("step"), int) and isinstance(record.get("event"), str):
                records.append(record)
    return records


def replaced_before(records: Sequence[Mapping[str, Any]]) -> int:
    """Return how many images a run had replaced by others, as its record last said."""
    counts = (record.get("replaced") for record in reversed(records) if record["event"] == "images")
    return next((count for count in counts if type(count) is int and 0 <= count <= MOST), 0)


def _keep_until(path: Path, step: int) -> None:
    """Drop what a killed process recorded after the checkpoint that is being resumed from."""
    if os.path.lexists(path):
        kept = _resumed(read_log(path.parent), step) if step else []
        write_text_atomically(path, "".join(json.dumps(record) + "\n" for record in kept))


def _resumed(records: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    """Return the records that stay when a run is resumed at `step`.

    What the checkpoint's step recorded after its ``save`` comes again: a step that runs out of memory, the last evaluation.
    """
    earlier = [record for record in records if record["step"] <= step]
    places = [place for place, record in enumerate(earlier) if (record["event"], record["step"]) == ("save", step)]
    if not places:  # killed between the checkpoint and its line
        return [*earlier, {"event": "save", "step": step, "time": round(time.time(), 3)}]
    later = [record for record in earlier[places[0] + 1 :] if record["event"] in ("stop", "resume", "allocator", "data")]
    return [*earlier[: places[0] + 1], *later]


def _open(path: Path) -> Any:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        sync_folder(path.parent)  # its name, too, must be on the disk before a checkpoint's
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise StorageError(f"'{path}' must be writable", str(error.strerror), "Choose another --output.") from error
