"""One tuning a GPU at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from attfc_planner.tune.studies.lock import device_lock
from attfc_train.errors import StorageError, UsageError


def test_a_second_tuning_of_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path / "new"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with device_lock("cuda"):
        with pytest.raises(UsageError, match="a GPU must be tuned by one process at a time"), device_lock("cuda"):
            pass
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        with device_lock("cuda"), device_lock("cpu"), device_lock("cpu"):
            pass
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with device_lock("cuda"):
        pass


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTFC_CACHE_DIR", "/proc/none")
    with pytest.raises(StorageError, match="ATTFC_CACHE_DIR"), device_lock("cuda"):
        pass
