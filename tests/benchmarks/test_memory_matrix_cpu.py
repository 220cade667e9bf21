"""The memory matrix on this CPU, in a few of its cases: real allocations and a real process against the prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attfc_train.heads.attfc.settings import AttFCSettings
from benchmarks.memory_cases import MATRIX, Case
from benchmarks.memory_cpu import CpuMatrix
from tests.planner.trace.profiles import device

CASES = [
    Case("tiny", 64, 32, 1.0, 20_000, "bf16", True),
    Case("mbf", 32, 8, 0.1, 100_000, "fp32", True),
]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_allocations_are_predicted_to_the_byte_and_the_process_is_covered(case: Case) -> None:
    fields = CpuMatrix(device("cpu")).measure(case, 300)
    predicted = fields["predicted"]
    measured = fields["measured"]
    assert measured["outcome"] == "ran", measured["reason"]
    assert predicted["allocated_bytes"] == measured["allocated_bytes"] > 0
    assert predicted["events"] == measured["events"] > 1000
    assert measured["same_storages"]
    assert measured["same_order"]
    assert measured["process_bytes"] <= predicted["total_bytes"]
    assert measured["process_bytes"] > 0.6 * predicted["process_bytes"], "a bound that is far too high proves nothing"


def test_a_case_becomes_the_profile_that_it_names() -> None:
    case = Case("r50", 112, 384, 0.3, 2_059_906, "bf16", True)
    profile = case.profile(device())
    assert (profile.model.backbone, profile.optim.batch_size, profile.run.precision) == ("r50", 384, "bf16")
    assert isinstance(profile.head, AttFCSettings)
    assert profile.head.dcc_size == round(0.3 * 2_059_906)
    assert profile.model.gradient_checkpointing
    assert case.profile(device("cpu")).run.precision == "bf16", "also where a plan would not offer it"
    assert replace(case, precision="fp32").name != case.name


def test_the_matrix_is_the_product_and_each_beginning_a_sample() -> None:
    cases = MATRIX["cuda"]
    assert len(set(cases)) == 3 * 4 * 3 * 2 * 2
    beginning = cases[:36]
    for field in ("backbone", "batch_size", "share", "precision", "checkpointing"):
        assert {getattr(case, field) for case in beginning} == {getattr(case, field) for case in cases}
