"""attfc-plan with files and numbers that make no sense."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from attfc_planner import cli
from attfc_planner.gpu import detect
from attfc_planner.plan import problem
from attfc_train.errors import AttfcError, DataError, InfeasiblePlanError, ProfileError, StorageError, UsageError
from attfc_train.heads.kinds import HEADS
from attfc_train.profile.file import load_preset, profiles_folder, save_profile, with_overrides
from tests.cli.conftest import Refusal
from tests.planner.fakes import FakeMemoryModel


@pytest.fixture(autouse=True)
def planner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A memory model by formula, no GPU, and an empty folder to be in."""
    monkeypatch.setattr(problem, "traced_model", lambda base, gpu, budget, profiles: FakeMemoryModel(budget))
    monkeypatch.setattr(detect, "cuda_fingerprint", lambda: None)
    monkeypatch.chdir(tmp_path)


def refuse(refusal: Refusal, error: type[AttfcError], expected: str, *arguments: object) -> None:
    refusal(error, expected, *arguments, program="attfc-plan", main=cli.main)
    assert not Path("best.json").exists()


def card(**changes: Any) -> str:
    return json.dumps({**json.loads((profiles_folder() / "gpus" / "t4.json").read_text()), **changes})


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "must be JSON"),
        ("[" * 100_000, "must be JSON"),
        ("[]", "card.json"),
        ("{}", "card.json"),
        (card(capacity_bytes="a lot"), "capacity_bytes|Extra"),
        (card(speed=7), "speed"),
        (" " * (4 * 1024**2 + 1), "at most 4 MiB"),
    ],
)
def test_what_is_no_gpu_profile(content: str, expected: str, refusal: Refusal) -> None:
    Path("card.json").write_text(content)
    refuse(refusal, ProfileError, expected, "--gpu", "card.json", "--ids", 1000)


@pytest.mark.parametrize("name", ["", "rtx 4095", "nvidia", "\u2603"])
def test_unknown_cards(name: str, refusal: Refusal) -> None:
    refuse(refusal, UsageError, "Nearest|attfc-plan gpus", "--gpu", name, "--ids", 1000)


@pytest.mark.parametrize(
    ("data", "error", "expected"),
    [
        ("missing", DataError, "'missing', which does not exist"),
        ("synthetic:many", UsageError, "synthetic"),
        ("synthetic:1x5", DataError, "2 identities"),
    ],
)
def test_what_is_no_data_set(data: str, error: type[AttfcError], expected: str, refusal: Refusal) -> None:
    refuse(refusal, error, expected, "--gpu", "t4", "--data", data)


def test_what_is_no_tuning(refusal: Refusal) -> None:
    refuse(refusal, ProfileError, "nowhere.json", "--gpu", "t4", "--ids", 1000, "--tuned", "nowhere.json")
    save_profile(load_preset("tiny"), Path("preset.json"))
    refuse(refusal, UsageError, "must be about the same --ids", "--gpu", "t4", "--ids", 1000, "--tuned", "preset.json")


@pytest.mark.parametrize("command", [(), ("tune", "--data", "synthetic:50x4")])
@pytest.mark.parametrize("head", ["nonsense", "AttFC", ""])
def test_unknown_heads(head: str, command: tuple[str, ...], refusal: Refusal) -> None:
    """Catches a command that does not check its head, and choices that are not those of `HEADS`."""
    nearest = r"Nearest: attfc\. " if head == "AttFC" else ""
    expected = (
        rf"--head must be a known kind, but got '{head}'\. {nearest}Choose one of: {', '.join(['auto', 'any', *HEADS])}\."
    )
    options = () if command else ("--gpu", "t4", "--ids", 1000)
    refuse(refusal, UsageError, expected, *command, *options, "--head", head)


def test_a_tuning_of_another_head(refusal: Refusal) -> None:
    """Catches trainings of one head that judge another, whose knobs they do not have."""
    save_profile(load_preset("tiny"), Path("preset.json"))
    for head in ("full_fc", "partial_fc"):
        expected = "--tuned must be about the same --ids, but got None there and 1000 here"  # a preset holds no tuning
        refuse(refusal, UsageError, expected, "--gpu", "t4", "--ids", 1000, "--head", head, "--tuned", "preset.json")
    save_profile(with_overrides(load_preset("tiny"), ["head.kind=partial_fc"]), Path("preset.json"))
    refuse(refusal, UsageError, "same --ids, but got None", "--gpu", "t4", "--ids", 1000, "--tuned", "preset.json")


def test_more_identities_than_there_are_atoms(refusal: Refusal) -> None:
    refuse(refusal, InfeasiblePlanError, "--max-accuracy-drop 1 and", "--gpu", "t4", "--ids", 10**12)
    for count in (10**13, 10**30, 10**400):
        refuse(refusal, UsageError, "--ids must be at most 1,000,000,000,000", "--gpu", "t4", "--ids", count)


@pytest.mark.parametrize("option", ["--ids", "--images", "--epochs", "--max-accuracy-drop", "--trials", "--seed"])
@pytest.mark.parametrize("value", ["many", "-1", "nan", ""])
def test_numbers_that_are_none(
    option: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Typer's own message, with the same exit code as other errors of usage."""
    monkeypatch.setattr(sys, "argv", ["attfc-plan", "--gpu", "t4", "--ids", "1000", option, value])
    with pytest.raises(SystemExit) as left:
        cli.main()
    output, errors = capsys.readouterr()
    assert left.value.code == UsageError.exit_code
    assert option in errors
    assert "Traceback" not in output + errors


def test_a_plan_that_cannot_be_written(refusal: Refusal) -> None:
    Path("folder").mkdir()
    Path("file").write_text("mine")
    for output in ("folder", "file/best.json", "/proc/best.json"):
        refuse(refusal, StorageError, "must be writable", "--gpu", "t4", "--ids", 1000, "--output", output)
    assert Path("file").read_text() == "mine"
