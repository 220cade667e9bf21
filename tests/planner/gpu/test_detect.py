from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from attfc_planner.gpu import detect, fingerprint
from attfc_planner.gpu.detect import Measured, find_gpu, is_here, present_cpu, present_gpu, require_here, torch_note
from attfc_planner.gpu.fingerprint import (
    CpuFingerprint,
    CudaFingerprint,
    cpu_fingerprint,
    cuda_fingerprint,
    reserved_by_driver,
)
from attfc_planner.gpu.measurement_cache import EXPANDABLE
from attfc_train.cache_folder import write_kept
from attfc_train.cuda_environment import PLANNED_ALLOCATOR
from attfc_train.errors import ProfileError, UsageError
from attfc_train.units import GIB, MIB
from tests.planner.fakes import make_gpu

RATES = {"fp32_flops": 1e11, "memory_bandwidth_bytes_per_second": 2e10}


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: Measured(dict(RATES), "2026-01-02"))


class FakeNvml:
    NVMLError = pynvml.NVMLError

    def __init__(self, count: int = 1, reserved: int | None = 0, mig: bool = False) -> None:
        """Args: reserved: bytes that the driver keeps; None: a driver that does not tell. mig: the card is divided."""
        self.count, self.opened = count, None
        self.reserved, self.mig = reserved, mig

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
        answers = {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: self.count,
            "nvmlDeviceGetHandleByIndex": self._open,
            "nvmlDeviceGetHandleByUUID": self._open,
            "nvmlDeviceGetMemoryInfo": self._memory,
            "nvmlDeviceGetMigMode": lambda handle: (int(self.mig), int(self.mig)),
            "nvmlDeviceGetMigDeviceHandleByIndex": lambda handle, index: f"instance {index} of {handle}",
            "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": lambda handle: "handle",
            "nvmlDeviceGetCudaComputeCapability": self._compute_capability,
            "nvmlDeviceGetPowerManagementLimit": lambda handle: 450_000,
            "nvmlDeviceGetName": lambda handle: "NVIDIA GeForce RTX 4090" + (" MIG 3g.12gb" if handle != "handle" else ""),
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

    def _memory(self, handle: object, version: int | None = None) -> SimpleNamespace:
        if version is not None and self.reserved is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return SimpleNamespace(total=24 * GIB, free=20 * GIB, **({} if version is None else {"reserved": self.reserved}))

    def _compute_capability(self, handle: object) -> tuple[int, int]:
        if handle != "handle":
            self._refuse(handle)
        return 8, 9

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


# Catches nvidia-smi's total as the capacity, and the driver's reserve counted as memory that others hold.
@pytest.mark.parametrize(
    ("reserved", "kept"), [(500 * MIB, 500 * MIB), (None, reserved_by_driver(24 * GIB))], ids=["driver 510", "older driver"]
)
def test_the_drivers_reserve_is_neither_capacity_nor_foreign(
    monkeypatch: pytest.MonkeyPatch, reserved: int | None, kept: int
) -> None:
    FakeNvml(reserved=reserved).install(monkeypatch)
    found = cuda_fingerprint()
    assert found is not None
    assert found.capacity_bytes == 24 * GIB - kept
    assert found.foreign_bytes == 4 * GIB - kept


def test_of_a_divided_card_the_first_instance_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA sees that one only; it answers for its name and memory, its card for the compute capability."""
    FakeNvml(mig=True).install(monkeypatch)
    found = cuda_fingerprint()
    assert found is not None
    assert (found.name, found.compute_capability) == ("NVIDIA GeForce RTX 4090 MIG 3g.12gb", 8.9)


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
    assert gpu.sources["capacity_bytes"] == "NVML: the driver's total less its reserve"
    assert gpu.source == "NVML and probes on this machine, 2026-01-02"
    assert gpu.bf16_flops == pytest.approx(165.2e12)
    assert gpu.ceiling("fp32_flops") == RATES["fp32_flops"]


# Catches a capacity that NVML alone says, and memory that counts as foreign though CUDA never offered it.
def test_a_present_card_has_the_memory_that_cuda_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {**RATES, "capacity_bytes": 23.5 * GIB}
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: Measured(rates, "2026-01-02"))
    gpu = present_gpu(CudaFingerprint("NVIDIA GeForce RTX 4090", 24 * GIB, GIB, "580.1", 8.9, 400.0, None))
    assert (gpu.capacity_bytes, gpu.foreign_bytes) == (23.5 * GIB, GIB // 2)
    assert gpu.sources["capacity_bytes"] == "torch.cuda.mem_get_info on this device"
    ecc = present_gpu(CudaFingerprint("NVIDIA GeForce RTX 4090", 22 * GIB, 0, "580.1", 8.9, 400.0, None))
    assert (ecc.capacity_bytes, ecc.foreign_bytes) == (22 * GIB, 0)  # measured before ECC took its part


@pytest.mark.parametrize(
    "name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "GRID A100-10C", "NVIDIA A40-48Q"]
)
def test_laptops_chips_and_parts_of_cards_are_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the rates of the whole desktop or data-centre card under such a name."""
    rates = {**RATES, "bf16_flops": 3e11, "pcie_bytes_per_second": 1e10, "capacity_bytes": 15.5 * GIB, EXPANDABLE: 1.0}
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: Measured(rates, "2026-01-02"))
    gpu = present_gpu(CudaFingerprint(name, 16 * GIB, 0, "600", 8.9, None, None))
    assert (gpu.slug, gpu.bf16_flops, gpu.capacity_bytes) == ("this-gpu", 3e11, 15.5 * GIB)


def test_the_same_name_with_other_memory_is_another_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: Measured({}, "2026-01-02"))
    small = CudaFingerprint("NVIDIA GeForce RTX 3060", 8 * GIB, 0, "580.1", 8.6, None, None)
    assert present_gpu(small).slug == "rtx-3060-8"
    monkeypatch.setattr(detect, "cuda_fingerprint", lambda: small)
    assert is_here(find_gpu("rtx-3060-8")[0])
    assert not is_here(find_gpu("rtx-3060-12")[0])


@pytest.mark.parametrize(("word", "capability"), [("v100-32", "7.0"), ("P100 12 GB", "6.0"), ("1080 Ti", "6.1")])
def test_cards_that_todays_torch_has_no_kernels_for_are_said(word: str, capability: str) -> None:
    card, note = find_gpu(word)
    assert note is not None
    assert note.startswith(f"{card.name} has compute capability {capability}, and torch's usual builds (CUDA 13) begin at 7.5")
    assert "CUDA 12.6 build of torch 2.11 to 2.14" in note
    assert find_gpu("t4")[1] is None
    assert torch_note(card.model_copy(update={"measured": RATES})) is None  # a torch that can use it is here


@pytest.mark.parametrize(
    ("setting", "expandable", "reason"),
    [
        (None, 1.0, None),
        (None, None, None),  # a card too full to be probed
        (None, 0.0, "expandable ones are not supported here"),
        ("expandable_segments:True,max_split_size_mb:64", 1.0, None),
        ("max_split_size_mb:64", 0.0, "PYTORCH_ALLOC_CONF is 'max_split_size_mb:64'"),
        ("max_split_size_mb:64", None, "PYTORCH_ALLOC_CONF is 'max_split_size_mb:64'"),
        ("", 0.0, "PYTORCH_ALLOC_CONF is ''"),
    ],
)
def test_a_present_card_says_why_its_segments_are_native(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, expandable: float | None, reason: str | None
) -> None:
    """Catches a plan for segments that training will not have."""
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    if setting is not None:
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", setting)
    rates = RATES if expandable is None else {**RATES, EXPANDABLE: expandable}
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: Measured(rates, "2026-01-02"))
    gpu = present_gpu(CudaFingerprint("NVIDIA GeForce RTX 4090", 24 * GIB, 0, "580.1", 8.9, 400.0, None))
    assert gpu.native_segments == reason


def test_the_probe_asks_for_what_training_will_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a probe without the planned setting, which would find native segments everywhere."""
    asked: list[dict[str, str]] = []

    def run(*_: object, env: dict[str, str], **__: object) -> SimpleNamespace:
        asked.append(env)
        return SimpleNamespace(returncode=0, stdout="{}")

    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.setattr(detect.subprocess, "run", run)
    detect._probed("cuda", ("fp32",))
    assert asked[0]["PYTORCH_ALLOC_CONF"] == PLANNED_ALLOCATOR
    assert asked[0]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_card_that_the_catalogue_does_not_know_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {**RATES, "bf16_flops": 3e11, "pcie_bytes_per_second": 1e10}
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: Measured(rates, "2026-01-02"))
    gpu = present_gpu(CudaFingerprint("NVIDIA Unheard Of", 8 * GIB, 0, "600", 12.1, None, None))
    assert (gpu.slug, gpu.architecture, gpu.bf16_flops) == ("this-gpu", "blackwell", 3e11)


def test_an_unknown_card_without_cuda_in_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: Measured({}, "2026-01-02"))
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
    assert gpu.foreign_bytes == 8 * GIB
    assert gpu.num_cores == 4
    assert gpu.source == "this machine's CPU and RAM, probes on this machine, 2026-01-02"


def test_this_machine_has_a_processor_and_memory() -> None:
    cpu = cpu_fingerprint()
    assert cpu.name
    assert 0 < cpu.available_bytes <= cpu.capacity_bytes


# Catches `os.cpu_count`, which counts cores that this process may not use.
def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 8})
    assert cpu_fingerprint().num_cores == 3


def test_a_containers_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_container_limit", lambda: GIB)
    assert cpu_fingerprint().capacity_bytes == GIB


def test_a_card_that_cannot_be_probed_has_the_catalogues_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: Measured({}, "2026-01-02"))
    gpu = present_gpu(CudaFingerprint("NVIDIA GeForce RTX 4090", 24 * GIB, 4 * GIB, "580.1", 8.9, 400.0, None))
    assert gpu.measured is None
    assert gpu.source == "catalogue entry rtx-4090, not measured"


@pytest.fixture
def probes_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, tuple[str, ...]]]:
    """An empty cache, and a list of the probes that ran."""
    run: list[tuple[str, tuple[str, ...]]] = []

    def fake(kind: str, precisions: tuple[str, ...]) -> dict[str, float]:
        run.append((kind, precisions))
        return dict(RATES)

    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(detect, "_probed", fake)
    return run


def test_the_probe_runs_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = detect._probed("cpu", ("fp32",))
    assert set(rates) == {"fp32_flops", "memory_bandwidth_bytes_per_second"}
    assert min(rates.values()) > 1e6
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert detect._probed("cuda", ("fp32",)) == {}
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UsageError, match="this CPU must be measured, but got 'exit code 1'"):
        detect._probed("cpu", ("fp32",))


def test_probe_results_are_cached_for_a_number_of_threads(
    probes_run: list[object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = detect._measured("cpu", "a processor", ("fp32",))
    assert first == Measured(RATES, datetime.now(UTC).date().isoformat())
    assert detect._measured("cpu", "a processor", ("fp32",)) == first
    assert len(probes_run) == len(list(tmp_path.iterdir())) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "57")
    detect._measured("cpu", "a processor", ("fp32",))
    assert len(probes_run) == 2


def days_ago(days: int) -> str:
    return (datetime.now(UTC).date() - timedelta(days=days)).isoformat()


@pytest.mark.parametrize(
    ("document", "num_probes"),
    [
        ({"date": days_ago(29), "rates": RATES}, 1),
        ({"date": days_ago(31), "rates": RATES}, 2),
        ({"date": "long ago", "rates": RATES}, 2),
        ({"date": 5, "rates": RATES}, 2),
        ({"rates": RATES}, 2),
        (RATES, 2),
        ({"date": days_ago(0), "rates": {"fp32_flops": 5.0}}, 2),
        ({"date": days_ago(0), "rates": {**RATES, "fp32_flops": float("nan")}}, 2),
        ({"date": days_ago(0), "rates": {**RATES, "fp32_flops": 10**400}}, 2),
        ({"date": days_ago(0), "rates": [1.0]}, 2),
        ([], 2),
        (None, 2),
    ],
)
def test_old_and_damaged_measurements_are_made_again(
    document: object, num_probes: int, probes_run: list[object], tmp_path: Path
) -> None:
    detect._measured("cpu", "a processor", ("fp32",))
    (file,) = tmp_path.iterdir()
    write_kept(file, document)
    assert detect._measured("cpu", "a processor", ("fp32",)).rates == RATES
    assert len(probes_run) == num_probes


@pytest.mark.parametrize("word", ["../t4", "cards/rtx-4090", "/t4"])
def test_a_name_with_a_slash_is_a_file(word: str) -> None:
    with pytest.raises(ProfileError, match=re.escape(word)):
        find_gpu(word)


def test_training_needs_the_card_that_was_planned_for(monkeypatch: pytest.MonkeyPatch) -> None:
    t4 = find_gpu("t4")[0]
    present: list[CudaFingerprint | None] = [None]
    monkeypatch.setattr(detect, "cuda_fingerprint", lambda: present[0])
    with pytest.raises(
        UsageError, match=r"planned for \(NVIDIA T4\), but got a machine without an NVIDIA GPU. Plan with --gpu auto"
    ):
        require_here(t4)
    present[0] = CudaFingerprint("NVIDIA GeForce RTX 4090", 24 * GIB, 0, "580.1", 8.9, None, None)
    with pytest.raises(UsageError, match="but got 'NVIDIA GeForce RTX 4090'"):
        require_here(t4)
    require_here(find_gpu("rtx-4090")[0])
    present[0] = CudaFingerprint("Tesla T4", 16 * GIB, 0, "580.1", 7.5, None, None)
    assert is_here(t4)
    assert is_here(make_gpu(kind="cpu"))
