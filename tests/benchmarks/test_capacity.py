"""The GPU benchmark runs: tiny, on the CPU; and takes up where it was stopped."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from attfc_train.losses.slots import Slots
from benchmarks import capacity

CPU = torch.device("cpu")


def test_every_case_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "capacity.json"
    cases = capacity.run(path, CPU, 16, (2, 4), (50,), ["chunked", "naive"])["cases"]
    assert len(cases) == 4
    assert all(case["seconds"]["p50"] > 0 and case["share_of_matrix_rate"] > 0 for case in cases.values())
    assert json.loads(path.read_text())["cases"] == cases
    monkeypatch.setattr(capacity, "measure", lambda *_: pytest.fail("measured again"))
    assert capacity.run(path, CPU, 16, (2, 4), (50,), ["chunked", "naive"])["cases"] == cases


def test_a_case_keeps_the_commit_that_it_was_measured_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for commit, names in (("older", ["naive"]), ("newer", ["naive", "chunked"])):
        monkeypatch.setattr(capacity, "provenance", lambda _, commit=commit: {"commit": commit})
        result = capacity.run(tmp_path / "capacity.json", CPU, 16, (2,), (50,), names)
    commits = {key.split()[0]: case["provenance"]["commit"] for key, case in result["cases"].items()}
    assert commits == {"naive": "older", "chunked": "newer"}
    assert all(case["matrix_operations_per_second"] > 0 for case in result["cases"].values())
    assert "provenance" not in result


def test_large_containers_are_int8_and_naive_is_left_out(tmp_path: Path) -> None:
    assert capacity.slot_type_for(100_000_000, 512, 139e9) == torch.int8
    assert capacity.slot_type_for(20_000_000, 512, 139e9) == torch.bfloat16
    assert capacity.plan("naive", 1024, 2_059_906, torch.bfloat16, 139e9) is None
    assert capacity.plan("naive", 4096, 20_000_000, torch.bfloat16, 139e9) == "logits do not fit"
    assert capacity.plan("naive", 256, 100_000_000, torch.int8, 139e9) == "needs all slots in bf16"
    assert capacity.plan("triton", 4096, 100_000_000, torch.int8, 139e9) is None


def test_one_container_lives_at_a_time_and_one_too_large_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the inputs of the last case, which kept a container beside the next one, and the end of the whole table."""
    made: list[weakref.ref[torch.Tensor]] = []
    make = capacity.container

    def container(*arguments: Any) -> Slots:
        assert [each() for each in made] == [None] * len(made)
        slots = make(*arguments)
        made.append(weakref.ref(slots.values))
        return slots

    monkeypatch.setattr(capacity, "container", container)
    cases = capacity.run(tmp_path / "capacity.json", CPU, 16, (2,), (50, 60, 10**9, 70), ["chunked"])["cases"]
    assert len(made) == 3
    assert [case.get("left_out") for case in cases.values()] == [None, None, "the container does not fit", None]


@pytest.mark.parametrize("slot_type", [torch.bfloat16, torch.int8])
def test_a_containers_bytes(slot_type: torch.dtype) -> None:
    slots = capacity.container(40, 16, slot_type, CPU)
    tensors = [tensor for tensor in (slots.values, slots.scales, slots.labels) if tensor is not None]
    assert capacity.container_bytes(40, 16, slot_type) == sum(tensor.nbytes for tensor in tensors)


def test_int8_container_is_what_its_scales_say() -> None:
    made = capacity.container(40, 16, torch.int8, CPU)
    assert made.values.dtype == torch.int8
    lengths = made.centers(torch.float32).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(40), rtol=0.02, atol=0)


def test_a_failing_case_is_a_result() -> None:
    pytest.importorskip("triton")
    inputs = {**capacity.queries(2, 16, CPU), "slots": capacity.container(50, 16, torch.float64, CPU)}
    assert "no kernel" in capacity.measure("triton", inputs, 1.0, CPU, 0.0)["failed"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_device_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["capacity"])
    with pytest.raises(SystemExit) as end:
        capacity.main()
    assert end.value.code == capacity.NO_DEVICE
    assert "needs a CUDA device" in capsys.readouterr().err
