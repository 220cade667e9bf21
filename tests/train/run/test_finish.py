"""A run that is killed between any two of its writes goes on to the same bits and the same record."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attfc_train.run import log, run
from attfc_train.run.log import read_log
from attfc_train.run.tensor_file import load_tensors
from tests.train.run.test_resume import options, profile_of, same, tensors

KILLED = 9
END = 32
"""Calls from the last step on; earlier ones repeat each other, and a third of them is tried."""
PROFILE = profile_of(steps=4, save_every=2, eval_every=3)


def content(folder: Path) -> dict[str, Any]:
    """Everything that a finished run leaves, but for times and rates."""
    left = {path.name: load_tensors(path) for path in folder.glob("*.pt")}
    waits = {f"{what}_wait_share" for what in ("data", "read", "decode", "transfer")}
    measured = waits | {"time", "images_per_second", "memory_bytes", "peak_memory_bytes", "peak_tensor_bytes"}
    records = [record for record in read_log(folder) if record["event"] not in ("resume", "stop")]
    summary = json.loads((folder / "run.json").read_text())
    left["run.json"] = {key: summary[key] for key in ("best", "last", "loss", "steps", "profile", "data")}
    left["curves.svg"] = (folder / "curves.svg").read_text()
    left["README.md"] = re.sub(r"- (speed|planned) .*", "", (folder / "README.md").read_text())
    left["log"] = [{key: value for key, value in record.items() if key not in measured} for record in records]
    return tensors(left)


class Killer:
    """Ends the process before a call: of a flush, a rename, a second name, a removal, or within a line of the record.

    Args:
        at: the number of the call; None: only count.
    """

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.calls = 0

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **settings: Any) -> Any:
            self.strike()
            return function(*arguments, **settings)

        return counted

    def strike(self) -> None:
        if self.calls == self.at:
            os._exit(KILLED)
        self.calls += 1


class HalfLines:
    """The record's file, which is killed with half of a line on the disk."""

    def __init__(self, file: Any, killer: Killer) -> None:
        self._file = file
        self._killer = killer

    def write(self, line: str) -> None:
        if self._killer.calls == self._killer.at:
            self._file.write(line[: len(line) // 2])
            self._file.flush()
        self._killer.strike()
        self._file.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def armed(patch: pytest.MonkeyPatch, at: int | None) -> Killer:
    killer = Killer(at)
    for name in ("fsync", "replace", "link", "unlink"):
        patch.setattr(os, name, killer(getattr(os, name)))
    opened = log._open
    patch.setattr(log, "_open", lambda path: HalfLines(opened(path), killer))
    return killer


def killed(folder: Path, at: int, resumes: bool = False) -> bool:
    """Train in a process that is killed at a call, and return whether it was."""
    child = os.fork()
    if child == 0:
        armed(pytest.MonkeyPatch(), at)
        run.resume(options(folder)) if resumes else run.start(PROFILE, options(folder))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What an uninterrupted run leaves, and its number of calls."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        killer = armed(patch, None)
        run.start(PROFILE, options(folder))
    return content(folder), killer.calls


def assert_same(folder: Path, expected: dict[str, Any]) -> None:
    found = content(folder)
    assert found.keys() == expected.keys()
    assert [key for key in expected if not same(found[key], expected[key])] == []
    assert list(folder.glob(".*")) == [], "no lock and no temporary file"


def test_every_place(whole: tuple[dict[str, Any], int], tmp_path: Path) -> None:
    """Catches the end of a run that is taken for done by its model alone, and the last evaluation recorded twice."""
    expected, calls = whole
    assert calls > 30
    for at in (*range(0, calls - END, 3), *range(calls - END, calls)):
        folder = tmp_path / str(at)
        assert killed(folder, at), at
        if (folder / "profile.json").exists():
            run.resume(options(folder))
        else:  # nothing was there yet
            run.start(PROFILE, options(folder))
        assert_same(folder, expected)


@pytest.mark.parametrize("at", [3, 30])
def test_killed_again_while_it_is_resumed(at: int, whole: tuple[dict[str, Any], int], tmp_path: Path) -> None:
    expected, calls = whole
    folder = tmp_path / "run"
    assert killed(folder, calls - 12)
    for again in range(at, -1, -3):
        killed(folder, again, resumes=True)
    run.resume(options(folder))
    assert_same(folder, expected)
