"""What users' drivers answer, played by a library of our own: one line with the answer's name, never a traceback or a guess."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from attfc_train.units import MIB

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "tests/standin/nvml_faults.c"
COMPILER = next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)
pytestmark = pytest.mark.skipif(
    COMPILER is None or not sys.platform.startswith("linux"), reason="needs Linux and a C compiler, to play drivers"
)

Play = Callable[..., dict[str, Any]]
NAMES = {value: name for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")}
CODES = [*range(1, 40), 77, 998, 999, 4711, 2**31 - 1]
"""All return codes of today's interface, and some of no interface."""
STARTLESS = {pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED}
NEEDED = ("F_COUNT", "F_HANDLE", "F_MEM", "F_CC", "F_NAMERC")
OPTIONAL = ("F_DRV", "F_POWER", "F_PCIE")
GONE = {1, 9, 15, 16, 18}
UUIDS = "GPU-12345678-aaaa,GPU-12345678-bbbb,GPU-9abcdef0-cccc"
THREE = {"F_COUNT_N": "3", "F_UUIDS": UUIDS}
VISIBLE = ("0", "1", "2", "0,x", "2,0", " 1", "+1", "1gpu2", "GPU-9", "GPU-12345678-b", "GPU-9,GPU-1", "GPU-9,0", "0,GPU-9")
HIDDEN = ("", "-1", "-1,0", "NoDevFiles", "none", " ", "gpu-9")
WRONG = ("3", "0,0", "GPU-12345678", "GPU-", "GPU-x", "GPU-9,GPU-9", "GPU-9,GPU-9a", "9" * 5000, "MIG-x", "MIG-")


def cases() -> list[dict[str, str]]:
    """Return all environments that are played, in one process."""
    codes = [{question: str(code)} for question in ("F_INIT", "F_SHUTDOWN", *NEEDED, *OPTIONAL) for code in CODES]
    visible = [{**THREE, "CUDA_VISIBLE_DEVICES": setting} for setting in (*VISIBLE, *HIDDEN, *WRONG)]
    return [*codes, *visible, *OTHERS]


LOST = {**THREE, "F_HANDLE": "15", "F_HANDLE_AT": "1"}
FORBIDDEN = {**THREE, "F_HANDLE": "4", "F_HANDLE_AT": "0"}
SLICES = {"F_MIG": "1", "F_SLICES": "2"}
FULL = {"F_FREE_MIB": "100"}
MIXED = {**THREE, "F_NAMES": "NVIDIA GeForce RTX 3060,NVIDIA GeForce RTX 4090,NVIDIA GeForce RTX 4090"}
ORDERS = ("FASTEST_FIRST", "", "pci_bus_id", "PCI_BUS_ID ")
OTHERS: list[dict[str, str]] = [
    {},
    THREE,
    {"F_COUNT_N": "0"},
    LOST,
    {**LOST, "CUDA_VISIBLE_DEVICES": "1"},
    {**LOST, "CUDA_VISIBLE_DEVICES": "2"},
    FORBIDDEN,
    {**FORBIDDEN, "CUDA_VISIBLE_DEVICES": "1"},
    {**FORBIDDEN, "CUDA_VISIBLE_DEVICES": "2"},
    SLICES,
    {"F_MIG": "1"},
    {"F_MIG": "1", "F_SLICE": "13"},
    {**SLICES, "CUDA_VISIBLE_DEVICES": "MIG-01"},
    {**SLICES, "CUDA_VISIBLE_DEVICES": "MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/2/0"},
    {**SLICES, "CUDA_VISIBLE_DEVICES": "MIG-0"},
    {**SLICES, "CUDA_VISIBLE_DEVICES": "GPU-8"},
    {"F_MEM": "3", "F_NAME": "NVIDIA GB10", "F_MAJOR": "12", "F_MINOR": "1"},
    {"F_TOTAL_MIB": "0", "F_FREE_MIB": "0"},
    {"F_MAJOR": "0"},
    FULL,
    {**FULL, "F_HOLDERS": "11:20000,12:300,13:-1,14:5"},
    {**FULL, "F_HOLDERS": "11:20000", "F_PROCESS_NAMERC": "6"},
    {**FULL, "F_HOLDERS": "11:20000", "F_PROCESS_NAME": "/opt/a\x1b[31m b"},
    {**FULL, "F_HOLDERS": "11:20000", "F_PROCESSES": "4"},
    {"F_NAME": "\xff"},
    MIXED,
    {**MIXED, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
    {**MIXED, "CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": "2"},
    {**MIXED, "CUDA_DEVICE_ORDER": "FASTEST_FIRST", "CUDA_VISIBLE_DEVICES": "GPU-9"},
    {**THREE, "CUDA_DEVICE_ORDER": "FASTEST_FIRST"},
    {**SLICES, **MIXED, "CUDA_DEVICE_ORDER": "FASTEST_FIRST"},
    *({**MIXED, "CUDA_DEVICE_ORDER": order} for order in ORDERS),
    {"F_INIT": "18", "CUDA_VISIBLE_DEVICES": "0"},
]


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """``play(F_INIT="18")``: what was found with such a driver."""
    folder = tmp_path_factory.mktemp("driver")
    assert COMPILER is not None
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    environment |= {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(ROOT), "ATTFC_CACHE_DIR": str(folder / "cache")}
    program = [sys.executable, "-m", "tests.planner.gpu.driver_cases"]
    played = subprocess.run(program, input=json.dumps(cases()), capture_output=True, text=True, env=environment, check=False)
    assert played.returncode == 0, played.stderr[-3000:]
    results = json.loads(played.stdout)
    by_case = {frozenset(case.items()): result for case, result in zip(cases(), results, strict=True)}
    return lambda **driver: dict(by_case[frozenset(driver.items())])


def refused(result: dict[str, Any]) -> str:
    """Return the line of a refusal."""
    assert result.get("code") == 2, result
    assert result["output"] == ""
    (line,) = result["error"].splitlines()
    rule, got, rest = line.removeprefix("error: ").partition(", but got ")
    assert line.startswith("error: ")
    assert rule
    assert got
    assert rest.endswith("or cpu."), "the way out"
    assert len(line) < 6000
    return str(line)


def test_a_driver_that_answers_is_planned_for(play: Play) -> None:
    gpu = play()
    assert (gpu["slug"], gpu["kind"], gpu["capacity_bytes"], gpu["foreign_bytes"]) == (
        "rtx-4090",
        "cuda",
        24564 * MIB,
        564 * MIB,
    )
    assert (gpu["note"], gpu["driver"], gpu["holders"]) == ("", "580.95.05", [])


@pytest.mark.parametrize("question", ["F_INIT", *NEEDED])
@pytest.mark.parametrize("code", CODES)
def test_every_answer_but_success_is_one_line_with_its_name(play: Play, question: str, code: int) -> None:
    """Catches ``except NVMLError: return None``: a driver that was updated while it ran was said to be no GPU."""
    result = play(**{question: str(code)})
    if question == "F_INIT" and code in STARTLESS:
        assert (result["kind"], result["note"].count("\n")) == ("cpu", 0)
        assert ("NVML_ERROR_DRIVER_NOT_LOADED" in result["note"]) == (code == pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return
    if question == "F_MEM" and code == pynvml.NVML_ERROR_NOT_SUPPORTED:
        assert "NVML_ERROR_NOT_SUPPORTED" in result["note"]
        return
    line = refused(result)
    assert NAMES.get(code, f"NVML error {code}") in line
    assert "CUDA_VISIBLE_DEVICES" not in line, "it is not set"
    assert line.startswith("error: NVML must ")


@pytest.mark.parametrize("question", OPTIONAL)
@pytest.mark.parametrize("code", CODES)
def test_what_may_stay_open_is_said_and_nothing_more(play: Play, question: str, code: int) -> None:
    """Catches a traceback for an unknown version of the driver."""
    result = play(**{question: str(code)})
    if code in GONE:
        assert NAMES[code] in refused(result)
        return
    assert result["slug"] == "rtx-4090"
    assert result["note"].count("\n") == 0
    assert NAMES.get(code, f"NVML error {code}") in result["note"]
    assert result["driver"] == ("unknown" if question == "F_DRV" else "580.95.05")


@pytest.mark.parametrize("code", CODES)
def test_a_driver_that_does_not_shut_down_has_answered(play: Play, code: int) -> None:
    assert play(F_SHUTDOWN=str(code))["slug"] == "rtx-4090"


def test_the_remedy_of_an_updated_driver_is_a_restart(play: Play) -> None:
    line = refused(play(F_INIT="18"))
    assert "NVML_ERROR_LIB_RM_VERSION_MISMATCH" in line
    assert "restart the machine" in line
    assert "CUDA_VISIBLE_DEVICES" not in refused(play(F_INIT="18", CUDA_VISIBLE_DEVICES="0"))


@pytest.mark.parametrize("setting", VISIBLE)
def test_every_spelling_that_cuda_takes(play: Play, setting: str) -> None:
    """Catches ``nvmlDeviceGetHandleByUUID`` alone, which takes whole UUIDs only, and ``isdecimal``."""
    first = setting.split(",")[0].strip()
    index = {"GPU-9": 2, "GPU-12345678-b": 1, "+1": 1, "1gpu2": 1}.get(first)
    assert play(**THREE, CUDA_VISIBLE_DEVICES=setting)["uuid"] == UUIDS.split(",")[int(first) if index is None else index]


@pytest.mark.parametrize("setting", HIDDEN)
def test_a_setting_that_hides_all_is_named(play: Play, setting: str) -> None:
    result = play(**THREE, CUDA_VISIBLE_DEVICES=setting)
    assert result["kind"] == "cpu"
    assert f"CUDA_VISIBLE_DEVICES is '{setting}'" in result["note"]


@pytest.mark.parametrize("setting", WRONG)
def test_a_setting_that_names_what_is_not_here_is_refused(play: Play, setting: str) -> None:
    assert "CUDA_VISIBLE_DEVICES must name a device of this machine" in refused(play(**THREE, CUDA_VISIBLE_DEVICES=setting))


def test_of_several_gpus_only_the_first_visible_must_answer(play: Play) -> None:
    assert play(**LOST)["uuid"] == "GPU-12345678-aaaa"
    assert play(**LOST, CUDA_VISIBLE_DEVICES="2")["uuid"] == "GPU-9abcdef0-cccc"
    assert "NVML_ERROR_GPU_IS_LOST" in refused(play(**LOST, CUDA_VISIBLE_DEVICES="1"))


def test_cuda_passes_over_gpus_that_this_account_may_not_open(play: Play) -> None:
    assert play(**FORBIDDEN)["uuid"] == "GPU-12345678-bbbb"
    assert play(**FORBIDDEN, CUDA_VISIBLE_DEVICES="1")["uuid"] == "GPU-9abcdef0-cccc"
    assert "NVML_ERROR_NO_PERMISSION" in refused(play(**FORBIDDEN, CUDA_VISIBLE_DEVICES="2"))


@pytest.mark.parametrize("order", ORDERS)
def test_numbers_that_cuda_and_nvml_count_otherwise_are_told_of(play: Play, order: str) -> None:
    """CUDA takes every word but one for its default, the fastest first, and NVML numbers by PCI bus."""
    result = play(**MIXED, CUDA_DEVICE_ORDER=order)
    assert result["name"] == "NVIDIA GeForce RTX 3060"
    assert result["note"].startswith(f"CUDA_DEVICE_ORDER is '{order}', so that CUDA may take NVIDIA GeForce RTX 4090 for GPU 0")
    second = play(**MIXED, CUDA_DEVICE_ORDER="FASTEST_FIRST", CUDA_VISIBLE_DEVICES="2")
    assert "NVIDIA GeForce RTX 3060 for GPU 2" in second["note"]
    of_a_slice = play(**SLICES, **MIXED, CUDA_DEVICE_ORDER="FASTEST_FIRST")["note"].splitlines()
    assert ["MIG is on" in line for line in of_a_slice] == [True, False]


def test_numbers_that_can_only_be_one_cards_are_not(play: Play) -> None:
    """Catches a line about cards that are all alike, or where a UUID says which."""
    assert play(**MIXED)["note"] == ""
    assert play(**MIXED, CUDA_DEVICE_ORDER="PCI_BUS_ID")["note"] == ""
    assert play(**THREE, CUDA_DEVICE_ORDER="FASTEST_FIRST")["note"] == ""
    assert play(**MIXED, CUDA_DEVICE_ORDER="FASTEST_FIRST", CUDA_VISIBLE_DEVICES="GPU-9")["note"] == ""


@pytest.mark.parametrize("content", [b"", b"not a library", b"\x7fELF"])
def test_a_library_that_cannot_be_loaded_is_told_of(content: bytes, tmp_path: Path) -> None:
    """A container may have a library of no bytes: NVML's interface says that there is none, as on a machine without a card."""
    (tmp_path / "libnvidia-ml.so.1").write_bytes(content)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    program = "from attfc_planner.gpu.fingerprint import cuda_fingerprint, why_no_gpu; print(cuda_fingerprint(), why_no_gpu())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True).stdout
    assert said.startswith("None the driver's library cannot be loaded, ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("setting", [{}, {"CUDA_VISIBLE_DEVICES": "GPU-8"}])
def test_a_divided_gpu_without_a_slice_named_warns(play: Play, setting: dict[str, str]) -> None:
    if not setting:
        note = play(F_MIG="1", F_SLICE="13")["note"]
        assert "planning for the whole card" in note
        assert "NVML_ERROR_FUNCTION_NOT_FOUND" in note
    result = play(**SLICES, **setting)
    assert result["uuid"].startswith("MIG-00")
    assert "MIG is on" in result["note"]
    assert "CUDA_VISIBLE_DEVICES=MIG-" in result["note"]


def test_a_slice_is_named_by_its_uuid_or_its_older_name(play: Play) -> None:
    older = "MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/2/0"
    for name in ("MIG-01", older):
        result = play(**SLICES, CUDA_VISIBLE_DEVICES=name)
        assert (result["uuid"][:6], result["note"]) == ("MIG-01", "")
    assert "none, or several" in refused(play(**SLICES, CUDA_VISIBLE_DEVICES="MIG-0"))
    assert "must have a slice while MIG is on" in refused(play(F_MIG="1"))


def test_a_gpu_without_memory_of_its_own_has_the_machines(play: Play) -> None:
    """Catches a DGX Spark that is refused: its driver knows no memory of the GPU, and CUDA offers the RAM."""
    result = play(F_MEM="3", F_NAME="NVIDIA GB10", F_MAJOR="12", F_MINOR="1")
    ram = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert result["slug"] == "this-gpu"
    assert 0 < result["capacity_bytes"] <= ram
    assert result["foreign_bytes"] > 0
    assert "NVML_ERROR_NOT_SUPPORTED" in result["note"]
    assert "planning with the RAM" in result["note"]


def test_answers_that_make_no_sense_are_refused(play: Play) -> None:
    assert "0 bytes" in refused(play(F_TOTAL_MIB="0", F_FREE_MIB="0"))
    assert "compute capability" in refused(play(F_MAJOR="0"))


def test_who_holds_the_memory_is_named(play: Play) -> None:
    result = play(**FULL, F_HOLDERS="11:20000,12:300,13:-1,14:5")
    assert result["holders"] == [
        "python3 (process 11) 19.53 GiB",
        "python3 (process 12) 300.0 MiB",
        "python3 (process 14) 5.0 MiB",
        "1 more",
    ]
    assert "Others hold 23.89 GiB of NVIDIA GeForce RTX 4090" in result["note"]
    assert "python3 (process 11) 19.53 GiB" in result["note"]
    (strange,) = play(**FULL, F_HOLDERS="11:20000", F_PROCESS_NAME="/opt/a\x1b[31m b")["holders"]
    assert strange == "a?[31m b (process 11) 19.53 GiB"
    assert "(process 11) 19.53 GiB" in play(**FULL, F_HOLDERS="11:20000", F_PROCESS_NAMERC="6")["holders"][0]
    assert play(**FULL, F_HOLDERS="11:20000", F_PROCESSES="4")["holders"] == []
    assert "nvidia-smi or ps may show who" in play(**FULL)["note"]
