"""The attack itself notices what it is there for: each kind of failure, in a format that is made to fail so."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from attfc_train.errors import DataError, UsageError
from benchmarks.attack import outcome, shards
from benchmarks.attack.documents import difference, parsed
from benchmarks.attack.formats.base import Format
from benchmarks.attack.mutations import CHANGES, Field, mutated
from benchmarks.attack.oracle import judge_document, judge_images, same_bits
from benchmarks.attack.outcome import Kind, Silent, observe


def refused() -> None:
    raise DataError("a rule must hold", "a value", "Do this.")


def refused_otherwise() -> None:
    raise UsageError("a rule must hold", "a value", "Do this.")


def broken() -> None:
    raise KeyError("label")


def endless() -> None:
    while True:
        time.sleep(0.01)


def noisy() -> None:
    warnings.warn("overflow", RuntimeWarning, stacklevel=1)


def greedy() -> None:
    raise MemoryError


def silent(_taken: object) -> Kind:
    raise Silent("a label changed")


@pytest.mark.parametrize(
    ("use", "judge", "kind"),
    [
        (refused, None, "refused"),
        (refused_otherwise, None, "words"),
        (broken, None, "traceback"),
        (sys.exit, None, "traceback"),
        (endless, None, "hang"),
        (noisy, None, "noise"),
        (greedy, None, "memory"),
        (int, silent, "silent"),
        (int, None, "same"),
    ],
)
def test_every_kind_of_outcome(
    use: Callable[[], Any], judge: Callable[[Any], Kind] | None, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = outcome.time_limit
    monkeypatch.setattr(outcome, "time_limit", lambda: limit(0.2))
    assert observe(use, judge or (lambda _: "same"), (DataError,)).kind == kind


class Dying(Format):
    """Ends its process at some cases, hangs where no signal reaches it at another, and is fine at the others."""

    name = "records"

    def attack(self, random: Random) -> str:
        self.case = random.random()
        self.number = int((self.folder / "number").read_text()) if (self.folder / "number").exists() else 0
        (self.folder / "number").write_text(str(self.number + 1))
        return "nothing"

    def use(self) -> None:
        if self.number == 1:
            os.kill(os.getpid(), signal.SIGSEGV)

    def judge(self, taken: Any) -> Kind:
        return "same"


def test_a_process_that_dies_costs_its_case_alone(tmp_path: Path) -> None:
    """Catches a tally that stops at a crash, or that counts it as nothing."""
    tally = shards.run_format(Dying, "records", 0, 5, time.monotonic() + 60, tmp_path)
    assert tally.tried == 5
    assert tally.kinds["crash"] == 2, "each new process counts anew"
    assert "signal 11" in tally.failures[0].outcome.detail


class Stuck(Dying):
    """Blocks every signal that a process can block."""

    def use(self) -> None:
        if self.number == 0:
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(60)


def test_a_process_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PATIENCE_SECONDS", 0.5)
    tally = shards.run_format(Stuck, "records", 0, 1, time.monotonic() + 60, tmp_path)
    assert dict(tally.kinds) == {"hang": 1}


def test_everything_follows_from_the_seed() -> None:
    content = bytes(range(256)) * 8
    fields = [Field(4, 4), Field(8, 4, "float")]
    first, second, other = (mutated(Random(seed), content, fields) for seed in ("0/a/1", "0/a/1", "0/a/2"))
    assert first == second
    assert first != other


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_mutations_change_something_most_of_the_time(change: Any) -> None:
    content = Random(0).randbytes(1024) + b"\n\t" * 20
    results = []
    for number in range(20):
        copy = bytearray(content)
        change(Random(number), copy)
        results.append(bytes(copy) != content)
    assert sum(results) > 10


ITEMS = [(0, b"first image"), (0, b"second one"), (1, b"third")]
FRAMES = [b"<0" + image + b">" for _, image in ITEMS]
CONTENT = b"".join(FRAMES)


@pytest.mark.parametrize(
    ("taken", "is_said", "kind"),
    [
        (ITEMS, False, "same"),
        (ITEMS[:2], True, "said"),
        (ITEMS[:2], False, None),
        ([*ITEMS[:2], (0, b"third")], False, None),
        ([*ITEMS, ITEMS[0]], False, None),
        ([*ITEMS, ITEMS[0]], True, None),
    ],
)
def test_the_judge_of_images(taken: list[tuple[int, bytes]], is_said: bool, kind: Kind | None) -> None:
    """An image is lost, has another label, or is there twice."""
    if kind is None:
        with pytest.raises(Silent):
            judge_images(ITEMS, FRAMES, CONTENT, taken, is_said)
    else:
        assert judge_images(ITEMS, FRAMES, CONTENT, taken, is_said) == kind


def test_the_judge_of_documents() -> None:
    assert judge_document(b'{"a": 1, "b": {"c": [1.0, 2]}}', {"a": 1, "b": {"c": [1, 2], "d": 3}}) == "other"
    for content in (b'{"a": "1"}', b'{"a": true}', b'{"a": 2, "a": 1}', b'{"a": 1, "x": 2}', b"{'a': 1}"):
        with pytest.raises(Silent):
            judge_document(content, {"a": 1})


def test_bits_are_compared() -> None:
    """Catches ``==``: NaN equals NaN here, and 0.0 is not -0.0 in a tensor."""
    nan = float("nan")
    assert same_bits({"a": [torch.tensor([nan]), nan]}, {"a": [torch.tensor([nan]), nan]})
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert not same_bits(np.zeros(2, np.int64), np.zeros(2, np.int32))
    assert not same_bits({"a": 1}, {"a": True})


def test_a_difference_is_named() -> None:
    assert difference({"a": {"b": "1"}}, {"a": {"b": 1}}) == "a.b: '1' was taken as 1"
    assert difference({"a": None}, {"a": 5}) is None, "null asks for the default"
    assert parsed(b'{"a": 1, "a": 1}') == {"a": 1}
