"""attfc-plan explain and attfc-plan fit from the command line."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest

from attfc_planner import cli
from attfc_planner.commands import fit as fit_command
from attfc_planner.explain import explain
from attfc_planner.explain.variations import variations
from attfc_planner.gpu import detect
from attfc_train.errors import ProfileError, StorageError, UsageError
from tests.cli.conftest import Refusal
from tests.planner.fakes import FakeMemoryModel

WriteProfile = Callable[..., Path]
ORIGIN = {
    "attfc_version": "0.1.0",
    "torch_version": "2.13.0",
    "created": "2026-01-02",
    "gpu": "NVIDIA T4",
    "gpu_source": "catalogue entry t4, not measured",
    "command": "attfc-plan",
    "seed": 0,
    "num_trials": 1,
}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU, and an empty folder to be in."""
    monkeypatch.setattr(detect, "cuda_fingerprint", lambda: None)
    monkeypatch.setattr(fit_command, "fits", lambda request, gpu, _: fits(request, gpu, FakeMemoryModel(gpu.capacity_bytes)))
    monkeypatch.chdir(tmp_path)


fits = fit_command.fits


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["attfc-plan", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert isinstance(left.value.code, int)
    return left.value.code


def test_a_profile_is_explained_and_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], profile_file: WriteProfile
) -> None:
    monkeypatch.setattr(explain, "variations", lambda *arguments: variations(*arguments)[:1])  # each is a trace
    path = profile_file(data__num_ids=100, provenance=ORIGIN)
    before = path.read_bytes()
    assert call(monkeypatch, "explain", path, "--plot", "sub/memory.svg") == 0
    out, err = capsys.readouterr()
    assert err == ""
    for piece in ("on NVIDIA T4", "Memory over the step", "gradient checkpointing", "Written: sub/memory"):
        assert piece in out
    assert "no prediction to compare with" in out
    ElementTree.parse("sub/memory.svg")
    assert path.read_bytes() == before


def test_what_cannot_be_explained_is_refused(refusal: Refusal, profile_file: WriteProfile) -> None:
    def refuse(error: type, expected: str, *arguments: object) -> None:
        refusal(error, expected, "explain", *arguments, program="attfc-plan", main=cli.main)

    refuse(ProfileError, "missing.json", "missing.json")
    path = profile_file(provenance=ORIGIN)
    refuse(ProfileError, "data.num_ids must be known", path)
    refuse(UsageError, "--plot must be another file", path, "--plot", path)
    refuse(UsageError, "Nearest: .*rtx-4090", path, "--gpu", "rtx-4095")
    Path("file").write_text("mine")
    refuse(StorageError, "must be writable.*--plot", path, "--plot", "file/memory.svg")
    path = profile_file(data__num_ids=100, model__backbone="r51", provenance=ORIGIN)
    refuse(ProfileError, "model.backbone must be a known name", path)
    path = profile_file(data__num_ids=100, run__precision="bf16", provenance=ORIGIN)
    refuse(ProfileError, "run.precision must be one that NVIDIA T4 has, but got 'bf16'", path)
    path = profile_file(data__num_ids=100, provenance={**ORIGIN, "gpu": "Test card", "gpu_source": "catalogue entry test"})
    refuse(UsageError, "--gpu must be given for a profile that was planned elsewhere, but got 'Test card'", path)


def test_fits_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--backbone", "r50", "--share", "0.1", "--storage", "int8", "--precision", "fp16")
    assert call(monkeypatch, "fit", "--gpu", "rtx-3090", *options) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "NVIDIA GeForce RTX 3090: 23.70 GiB" in out
    assert "fp16, slots for 0.1 of the identities, centers in int8" in out
    assert "r100" not in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--backbone", "r51"), "--backbone must be a known name"),
        (("--storage", "int4"), "--storage must be fp32, bf16, fp8 or int8, but got 'int4'"),
        (("--precision", "bf16"), "--precision must be one of fp16, fp32 on NVIDIA T4"),
        (("--precision", "bf17"), "--precision must be bf16, fp16 or fp32"),
    ],
)
def test_what_cannot_be_fitted_is_refused(refusal: Refusal, arguments: tuple[str, ...], expected: str) -> None:
    refusal(UsageError, expected, "fit", "--gpu", "t4", *arguments, program="attfc-plan", main=cli.main)
