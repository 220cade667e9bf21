"""Whether a recorded worker still lives, and one tuning a GPU at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from attfc_planner.gpu.fingerprint import CudaFingerprint
from attfc_planner.tune.studies import worker
from attfc_planner.tune.studies.worker import SILENT_SECONDS, Worker, device_lock, is_alive, machine, this_worker
from attfc_train.errors import StorageError, UsageError


def test_this_process_lives_however_silent() -> None:
    assert is_alive(this_worker().document(), None, 1e9)


def test_an_ended_process_does_not_live() -> None:
    code = "import json; from attfc_planner.tune.studies.worker import this_worker; print(json.dumps(this_worker().document()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not is_alive(json.loads(said), 1e9, 1e9), "a heartbeat of this very moment does not matter here"


def test_a_number_that_is_used_again_is_another_process() -> None:
    own = this_worker()
    assert not is_alive(Worker(machine(), own.pid, own.started - 1).document(), 1e9, 1e9)


def test_elsewhere_the_heartbeat_decides() -> None:
    other = Worker("another:1:2", 1, 1).document()
    assert is_alive(other, 1e9 - SILENT_SECONDS + 1, 1e9)
    assert not is_alive(other, 1e9 - SILENT_SECONDS - 1, 1e9)
    assert not is_alive(other, None, 1e9)
    assert not is_alive("nonsense", None, 1e9)


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


def test_one_gpu_by_two_names_is_one_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches a lock by the words of CUDA_VISIBLE_DEVICES: the number and the UUID of one GPU were two locks."""
    gpu = CudaFingerprint("A card", 1, 0, "1", 8.9, None, None, uuid="GPU-8932f937")
    monkeypatch.setattr(worker, "cuda_fingerprint", lambda: gpu)
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with device_lock("cuda"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-89")
        with pytest.raises(UsageError, match="GPU-8932f937"), device_lock("cuda"):
            pass


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTFC_CACHE_DIR", "/proc/none")
    with pytest.raises(StorageError, match="ATTFC_CACHE_DIR"), device_lock("cuda"):
        pass
