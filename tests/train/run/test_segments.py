"""A first allocation finds out which segments there are, on devices that are not there."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from attfc_train.cuda_environment import NATIVE_ALLOCATOR, PLANNED_ALLOCATOR, expands, use_native_segments
from attfc_train.run import segments
from attfc_train.run.segments import claim_segments, has_expandable_segments

CUDA = torch.device("cuda")


class Device:
    """A GPU whose allocator and driver are given."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, snapshot: list[bool] | Exception, error: Exception | None = None
    ) -> None:
        self.snapshot = snapshot
        self.error = error
        self.set: list[str] = []
        monkeypatch.setattr(torch, "empty", self._allocate)
        monkeypatch.setattr(torch.cuda, "memory_snapshot", self._segments)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(segments, "set_allocator", self.set.append)
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", PLANNED_ALLOCATOR)
        monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)

    def _allocate(self, *_: object, **__: object) -> object:
        if self.error is not None:
            raise self.error
        return object()

    def _segments(self) -> list[dict[str, Any]]:
        if isinstance(self.snapshot, Exception):
            raise self.snapshot
        return [{"is_expandable": each} for each in self.snapshot]


def test_what_was_asked_for_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch, [True])
    assert claim_segments(CUDA)
    assert device.set == []
    assert os.environ["PYTORCH_ALLOC_CONF"] == PLANNED_ALLOCATOR


@pytest.mark.parametrize(
    ("snapshot", "error"),
    [
        ([False], None),  # Windows: a warning, and native segments
        ([], RuntimeError("CUDA driver error: unknown error")),  # WSL2 (pytorch#192330)
        (RuntimeError("CUDAMallocAsyncAllocator does not yet support snapshot."), None),
    ],
    ids=["warned of", "driver error", "another allocator"],
)
def test_what_is_not_there_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, snapshot: list[bool] | Exception, error: Exception | None
) -> None:
    """Catches a driver error that ends the run, and an environment that goes on saying what is not so."""
    device = Device(monkeypatch, snapshot, error)
    assert not claim_segments(CUDA)
    assert device.set == [NATIVE_ALLOCATOR]
    assert os.environ["PYTORCH_ALLOC_CONF"] == NATIVE_ALLOCATOR


def test_a_full_card_says_nothing_about_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches native segments for want of 2 MiB: the check of the free memory has the better answer."""
    device = Device(monkeypatch, [], torch.OutOfMemoryError("CUDA out of memory."))
    assert claim_segments(CUDA)
    assert device.set == []


def test_nothing_is_tried_where_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    Device(monkeypatch, [], AssertionError("allocated"))
    assert claim_segments(torch.device("cpu"))
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:128")
    assert claim_segments(CUDA)


def test_one_expandable_segment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    Device(monkeypatch, [False, True])
    assert has_expandable_segments()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (PLANNED_ALLOCATOR, True),
        ("garbage_collection_threshold:0.8, expandable_segments:true", True),
        ("expandable_segments : True", True),
        (NATIVE_ALLOCATOR, False),
        ("expandable_segments:True,expandable_segments:False", False),
        ("max_split_size_mb:128", False),
        ("", False),
    ],
)
def test_a_setting_asks_for_expandable_segments_or_not(setting: str, expected: bool) -> None:
    assert expands(setting) == expected


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_the_other_items_of_a_setting_stay(name: str) -> None:
    environment = {name: "roundup_power2_divisions:[256:1,512:2],Expandable_Segments : true,max_split_size_mb:64"}
    setting = use_native_segments(environment)
    assert environment == {name: f"roundup_power2_divisions:[256:1,512:2],{NATIVE_ALLOCATOR},max_split_size_mb:64"}
    assert setting == environment[name]
