from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from attfc_planner.gpu import detect, fingerprint
from attfc_planner.gpu.detect import find_gpu, present_cpu, present_gpu
from attfc_planner.gpu.fingerprint import CpuFingerprint, CudaFingerprint, cpu_fingerprint, cuda_fingerprint
from attfc_train.errors import UsageError
from attfc_train.units import GIB

RATES = {"fp32_flops": 1e11, "memory_bandwidth_bytes_per_second": 2e10}


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: dict(RATES))


class FakeNvml:
    NVMLError = pynvml.NVMLError

    def __init__(self, count: int = 1) -> None:
        self.count, self.opened = count, None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
        answers = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: self.count,
            "nvmlDeviceGetHandleByIndex": self._open,
            "nvmlDeviceGetHandleByUUID": self._open,
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=24 * GIB, free=20 * GIB),
            "nvmlDeviceGetCudaComputeCapability": lambda handle: (8, 9),
            "nvmlDeviceGetPowerManagementLimit": lambda handle: 450_000,
            "nvmlDeviceGetName": lambda handle: "NVIDIA GeForce RTX 4090",
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlDeviceGetMaxPcieLinkGeneration": lambda handle: 4,
            "nvmlDeviceGetMaxPcieLinkWidth": self._refuse,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(pynvml, name, answer)
        return self

    def _open(self, which: object) -> object:
        self.opened = which
        return "handle"

    def _refuse(self, handle: object) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def test_the_gpu_that_is_here_is_read_through_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    nvml = FakeNvml().install(monkeypatch)
    found = cuda_fingerprint()
    assert found == CudaFingerprint("NVIDIA GeForce RTX 4090", 24 * GIB, 4 * GIB, "580.1", 8.9, 450.0, None)
    assert nvml.opened == 0


@pytest.mark.parametrize(("visible", "opened"), [("2,3", 2), ("GPU-abc", "GPU-abc")])
def test_cuda_visible_devices_chooses(monkeypatch: pytest.MonkeyPatch, visible: str, opened: object) -> None:
    nvml = FakeNvml(4).install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cuda_fingerprint() is not None
    assert nvml.opened == opened


@pytest.mark.parametrize(("count", "visible"), [(0, "0"), (1, ""), (1, "-1")])
def test_no_visible_gpu_is_none(monkeypatch: pytest.MonkeyPatch, count: int, visible: str) -> None:
    FakeNvml(count).install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cuda_fingerprint() is None


def test_no_driver_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert cuda_fingerprint() is None


@pytest.mark.usefixtures("no_probes")
def test_a_present_card_takes_ceilings_from_the_catalogue_and_memory_from_the_driver() -> None:
    found = CudaFingerprint("NVIDIA GeForce RTX 4090", 24 * GIB, 4 * GIB, "580.1", 8.9, 400.0, None)
    gpu = present_gpu(found)
    assert gpu.slug == "rtx-4090"
    assert (gpu.capacity_bytes, gpu.foreign_bytes, gpu.driver) == (24 * GIB, 4 * GIB, "580.1")
    assert gpu.sources["capacity_bytes"] == "NVML"
    assert gpu.bf16_flops == pytest.approx(165.2e12)
    assert gpu.ceiling("fp32_flops") == RATES["fp32_flops"]


def test_a_card_that_the_catalogue_does_not_know_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {**RATES, "bf16_flops": 3e11, "pcie_bytes_per_second": 1e10}
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: rates)
    gpu = present_gpu(CudaFingerprint("NVIDIA Unheard Of", 8 * GIB, 0, "600", 12.1, None, None))
    assert (gpu.slug, gpu.architecture, gpu.bf16_flops) == ("this-gpu", "blackwell", 3e11)


def test_an_unknown_card_without_cuda_in_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: {})
    with pytest.raises(UsageError, match="CUDA build of torch"):
        present_gpu(CudaFingerprint("NVIDIA Unheard Of", 8 * GIB, 0, "600", 12.1, None, None))


@pytest.mark.usefixtures("no_probes")
def test_without_a_gpu_auto_says_so_and_plans_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "cuda_fingerprint", lambda: None)
    gpu, note = find_gpu("auto")
    assert gpu.kind == "cpu"
    assert note == f"No NVIDIA GPU found: planning for this machine's CPU ({gpu.name}) and RAM."
    assert not gpu.supports("bf16")


@pytest.mark.usefixtures("no_probes")
def test_memory_in_use_on_a_cpu_is_foreign() -> None:
    gpu = present_cpu(CpuFingerprint("A processor", 4, 32 * GIB, 24 * GIB))
    assert gpu.available_bytes == 24 * GIB
    assert gpu.num_cores == 4


def test_this_machine_has_a_processor_and_memory() -> None:
    cpu = cpu_fingerprint()
    assert cpu.name
    assert 0 < cpu.available_bytes <= cpu.capacity_bytes
    assert cpu.num_cores >= 1


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_container_limit", lambda: GIB)
    assert cpu_fingerprint().capacity_bytes == GIB


def test_probe_results_are_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from attfc_planner.gpu import probes

    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(probes, "SECONDS_PER_PROBE", 0.001)
    first = detect._measured("cpu", "a processor", ("fp32",))
    assert set(first) == {"fp32_flops", "memory_bandwidth_bytes_per_second"}
    assert min(first.values()) > 1e6
    (file,) = tmp_path.iterdir()
    file.write_text(json.dumps({"fp32_flops": 5.0}))
    assert detect._measured("cpu", "a processor", ("fp32",)) == {"fp32_flops": 5.0}
    file.write_text("not json")
    assert set(detect._measured("cpu", "a processor", ("fp32",))) == set(first)
