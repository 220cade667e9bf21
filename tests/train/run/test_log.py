"""The run record: resumable JSON lines, TensorBoard scalars."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from attfc_train.errors import StorageError
from attfc_train.run.log import RunLog, read_log

STEP = {"loss": 1.5, "images_per_second": 10.0, "data_wait_share": 0.1, "memory_bytes": 1e6, "peak_memory_bytes": 2e6}


def open_log(folder: Path, first_step: int = 0) -> RunLog:
    return RunLog(folder, 10, first_step, console=Console(quiet=True))


def test_resume_drops_what_came_after_the_checkpoint_and_a_line_cut_short(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        for step in range(1, 7):
            log.step(step, 1.0, **STEP)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"event": "step", "ste')
    with open_log(tmp_path, first_step=4) as log:
        log.event("resume", 4)
    assert [(record["event"], record["step"]) for record in read_log(tmp_path)] == [
        *(("step", step) for step in range(1, 5)),
        ("save", 4),  # killed between the checkpoint and its line
        ("resume", 4),
    ]


def test_what_the_step_of_a_checkpoint_recorded_after_it_comes_again(tmp_path: Path) -> None:
    """Catches a last evaluation, or a step that ran out of memory, that is in the record twice."""
    with open_log(tmp_path) as log:
        for event in ("start", "step", "evaluate", "save", "stop", "resume", "oom", "evaluate", "save", "end"):
            log.event(event, 4)
    with open_log(tmp_path, first_step=4) as log:
        log.event("resume", 4)
    events = [record["event"] for record in read_log(tmp_path)]
    assert events == ["start", "step", "evaluate", "save", "stop", "resume", "resume"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_a_record_that_is_no_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    with pytest.raises(StorageError, match=r"log\.jsonl' must be a file, but got a"):
        open_log(tmp_path, first_step=4)
    assert read_log(tmp_path) == []


def test_a_record_behind_a_link_stays_there(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "log.jsonl").symlink_to("elsewhere/log.jsonl")
    for first_step in (0, 1):
        with open_log(tmp_path, first_step) as log:
            log.event("save", 1)
    assert (tmp_path / "log.jsonl").is_symlink()
    assert len((tmp_path / "elsewhere" / "log.jsonl").read_text().splitlines()) == 2


def test_a_new_run_starts_an_empty_record(tmp_path: Path) -> None:
    for _ in range(2):
        with open_log(tmp_path) as log:
            log.event("start", 0)
    assert len(read_log(tmp_path)) == 1


@pytest.mark.parametrize(
    ("cosine", "expected"),
    [(0.456, "7 centers, 3 steps old, cosine 0.46 with fresh ones\n"), (float("nan"), "7 centers, 3 steps old\n")],
)
def test_the_container_in_a_few_words(cosine: float, expected: str, tmp_path: Path) -> None:
    """The cosine is left out where none of the batch's identities holds a slot."""
    screen = io.StringIO()
    with RunLog(tmp_path, 10, 0, console=Console(file=screen)) as log:
        log.step(1, 1.0, **STEP, filled_slots=7.0, mean_age_steps=3.0, center_cosine=cosine)
    assert screen.getvalue().endswith(expected)
