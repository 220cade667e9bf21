"""The encoder that is evaluated and saved: the feature encoder, or with DCQ the class encoder."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from attfc_train.commands.evaluate import EvaluateOptions, evaluate_models
from attfc_train.errors import ProfileError
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.profile.file import with_overrides
from attfc_train.profile.profile import DataSettings, ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.run import loop, run
from attfc_train.run.checkpoint import load_checkpoint
from attfc_train.run.log import read_log
from attfc_train.run.tensor_file import load_tensors
from attfc_train.step.build import build
from tests.train.profiles import HEADS, small_profile

CPU = torch.device("cpu")
VAL = "synthetic:12x3+500"


def profile_of(head: str, steps: int = 6, **head_settings: Any) -> TrainProfile:
    return TrainProfile(
        data=DataSettings(path="synthetic:20x4", num_workers=1),
        model=ModelSettings(backbone="tiny", image_size=32, embedding_size=16),
        head=HEADS[head].model_copy(update=head_settings),
        optim=OptimSettings(batch_size=8),
        run=RunSettings(precision="fp32", steps=steps, save_every=100, eval_every=2, log_every=1, val=(VAL,)),
    )


def options(folder: Path) -> run.RunOptions:
    return run.RunOptions(folder, CPU, Console(quiet=True))


def equal(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("head", "settings", "name"),
    [
        ("dcq", {}, "class_encoder"),
        ("dcq", {"exported_encoder": "feature"}, "feature_encoder"),
        ("identity", {}, "feature_encoder"),
        ("identity", {"exported_encoder": "class"}, "class_encoder"),
        ("identity-R0", {}, "feature_encoder"),
        ("full_fc", {}, "feature_encoder"),
    ],
)
def test_the_model_is_the_encoder_that_the_head_exports(
    head: str, settings: dict[str, Any], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluated, kept as the best, saved at the end; and it trains on as before. Catches one of the three that is another."""
    evaluated: list[dict[str, Any]] = []

    def evaluator(_profile: TrainProfile, _device: torch.device) -> loop.Evaluator:
        real = build_evaluator(profile, CPU)

        def evaluate(encoder: nn.Module, /, *, batch_size: int) -> Any:
            evaluated.append({key: value.clone() for key, value in encoder.state_dict().items()})
            results = real(encoder, batch_size=batch_size)
            assert all(module.training for module in encoder.modules())
            assert equal(encoder.state_dict(), evaluated[-1])
            return results

        return evaluate

    build_evaluator = run._evaluator
    monkeypatch.setattr(run, "_evaluator", evaluator)
    profile = profile_of(head, **settings)
    run.start(profile, options(tmp_path / "run"))
    saved = load_checkpoint(tmp_path / "run" / "checkpoint.pt").state
    other = saved["class_encoder" if name == "feature_encoder" else "feature_encoder"]
    assert other is None or not equal(saved[name], other)
    assert len(evaluated) == 3
    assert equal(evaluated[-1], saved[name])
    assert equal(load_tensors(tmp_path / "run" / "model.pt"), saved[name])
    accuracies = [record["accuracy"] for record in read_log(tmp_path / "run") if record["event"] == "evaluate"]
    assert equal(load_tensors(tmp_path / "run" / "best.pt"), evaluated[accuracies.index(max(accuracies))])


def test_evaluate_reports_what_the_run_did(tmp_path: Path) -> None:
    run.start(profile_of("dcq"), options(tmp_path / "run"))
    console = Console(record=True, width=200, file=StringIO())
    evaluate_models([tmp_path / "run"], EvaluateOptions(which="last"), CPU, console)
    last = [record["accuracy"] for record in read_log(tmp_path / "run") if record["event"] == "evaluate"][-1]
    assert re.search(rf"{last:.2%} +±", console.export_text())


def test_without_references_there_is_no_class_encoder_to_export() -> None:
    with pytest.raises(ValueError, match="exported_encoder 'class' needs num_references >= 1, but got 0; use"):
        AttFCSettings(num_references=0, exported_encoder="class")
    with pytest.raises(ProfileError, match="exported_encoder 'class' needs num_references >= 1"):
        with_overrides(profile_of("identity-R0"), ["head.exported_encoder=class"])


def test_a_head_that_exports_the_class_encoder_is_not_searched_without_references() -> None:
    """Catches a plan whose R = 0 nobody can load."""
    head = AttFCSettings(exported_encoder="class").resolved(40)
    refusal = head.search_refusal()
    assert refusal is not None
    assert "exported_encoder 'feature'" in refusal.rule
    assert head.searchable().search_refusal() is None
    assert [name for name, _ in head.variations() if name.startswith("references")] == []
    assert HEADS["dcq"].search_refusal() is None


@pytest.mark.parametrize("head", ["dcq", "identity-30%"])
def test_the_state_names_it(head: str) -> None:
    state = build(small_profile(head), CPU)
    assert state.class_encoder is not None
    expected = state.class_encoder.class_encoder if head == "dcq" else state.feature_encoder
    assert state.exported_encoder is expected
