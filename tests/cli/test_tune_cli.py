"""``attfc-plan tune`` from its command line: refusals, a run whose trials cost nothing, an interruption, and going on."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attfc_planner import cli
from attfc_planner.calibrate.real_steps import RealSteps
from attfc_planner.commands import tune as session
from attfc_planner.gpu import detect
from attfc_planner.plan import problem
from attfc_planner.tune.stages.short_training import ShortTraining
from attfc_train.errors import AttfcError, DataError, StorageError, UsageError, VerificationSetError
from attfc_train.export.teacher import described_teacher
from attfc_train.profile.file import load_profile
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.checkpoint import save_model
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel
from tests.train.export.networks import TINY, trained

Call = Callable[..., tuple[int, str, str]]
BASE = ("--gpu", "cpu", "--data", "synthetic:80x6", "--backbone", "tiny", "--image-size", "32", "--trials", "3")


def steps(profile: Any, kind: str, *, timeout: float) -> RealSteps:
    return RealSteps("ran", seconds=(0.1, 0.2), context_bytes=GIB // 4, process_bytes=GIB)


def training(profile: Any, kind: str, *, timeout: float, on_check: Any) -> ShortTraining:
    for check in range(1, 10):
        if on_check(profile.total_steps * check // 9, ((0.5 + check / 30, 500),)):
            return ShortTraining("stopped")
    return ShortTraining("finished", images_per_second=100.0, peak_bytes=GIB)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """The real entry point; memory by formula, no probes, and trials that cost nothing."""
    rates = {"fp32_flops": 1e11, "memory_bandwidth_bytes_per_second": 2e10}
    monkeypatch.setattr(problem, "traced_model", lambda base, gpu, budget, profiles: FakeMemoryModel(budget))
    monkeypatch.setattr(detect, "_measured", lambda kind, key, precisions: detect.Measured(dict(rates), "2026-01-02"))
    monkeypatch.setattr(detect, "cuda_fingerprint", lambda: None)
    monkeypatch.setattr(session, "run_real_steps", steps)
    monkeypatch.setattr(session, "run_short_training", training)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["attfc-plan", "tune", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        captured = capsys.readouterr()
        code = left.value.code
        return (code if isinstance(code, int) else int(code is not None)), captured.out, captured.err

    return run


def test_all_kinds_of_heads_are_tuned_and_gone_on_with(call: Call) -> None:
    """Catches a study that cannot hold two kinds, and one that is about something else when it is resumed by the other word."""
    options = (*BASE, "--epochs", "400", "--max-accuracy-drop", "9", "--head")
    code, out, err = call(*options, "any")
    assert (code, err) == (0, "")
    profile = load_profile(Path("best.json"))
    assert profile.search is not None
    assert len({record.head for record in profile.search.trainings if not record.full_fc}) > 1
    assert "head keeps" in out
    code, _, err = call(*options, "auto", "--resume")
    assert (code, err) == (0, "")
    code, _, err = call(*options, "attfc", "--resume")
    assert code == 2
    assert "must be about the same data, plan and device" in err


def test_a_tuning_ends_with_a_profile_and_its_reasons(call: Call) -> None:
    code, out, err = call(*BASE, "--output", "sub/best.json")
    assert (code, err) == (0, "")
    profile = load_profile(Path("sub/best.json"))
    assert profile.prediction is not None
    assert profile.prediction.accuracy.source.startswith("measured")
    assert profile.description.startswith("Tuned on")
    assert profile.provenance is not None
    assert profile.provenance.num_trials >= 6
    said = " ".join(out.split())
    for expected in ("Real steps", "Short trainings: what they keep", "coverage C / N", "PED-ANOVA", "it takes 10", "tied"):
        assert expected in said
    assert "synthetic:80x6@60:80" in said
    assert Path("sub/best.tune.jsonl").exists()
    json.loads(Path("sub/best.tune.jsonl").read_text().splitlines()[0])


def test_a_second_tuning_needs_resume_and_resume_a_first(call: Call) -> None:
    code, _, err = call(*BASE, "--resume")
    assert code == UsageError.exit_code
    assert "--resume needs the study 'tiny-80'" in err
    assert call(*BASE)[0] == 0
    code, _, err = call(*BASE)
    assert code == UsageError.exit_code
    assert "Continue it with --resume" in err
    code, out, err = call(*BASE, "--resume")
    assert (code, err) == (0, "")
    assert "3 trials so far" in out


def test_all_trials_learn_from_the_teacher(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a teacher that only the plan knows, and a study that goes on with another one or without any."""
    save_model(Path("model.pt"), trained(TINY))
    tried: list[TrainProfile] = []

    def seen(run: Callable[..., Any]) -> Callable[..., Any]:
        def call_it(profile: TrainProfile, kind: str, **options: Any) -> Any:
            tried.append(profile)
            return run(profile, kind, **options)

        return call_it

    monkeypatch.setattr(session, "run_real_steps", seen(steps))
    monkeypatch.setattr(session, "run_short_training", seen(training))
    code, out, err = call(*BASE, "--teacher", "model.pt")
    assert (code, err) == (0, "")
    assert "Teacher of every training: tiny at 32 pixels, weight 7, from model.pt" in out
    teacher, width = described_teacher(Path("model.pt"))
    assert {(each.teacher, each.model.embedding_size) for each in tried} == {(teacher, width)}
    assert {each.head.kind for each in tried} == {"attfc", "full_fc"}, "what the accuracies are measured against has it too"
    assert load_profile(Path("best.json")).teacher == teacher
    assert call(*BASE, "--teacher", "model.pt", "--resume")[0] == 0
    code, _, err = call(*BASE, "--resume")
    assert code == UsageError.exit_code
    assert f"but got teacher none, where the study has '{teacher.digest}'" in err


def test_a_study_of_something_else_is_refused(call: Call) -> None:
    storage = ("--storage", "sqlite:///tune.db")
    assert call(*BASE, *storage)[0] == 0
    assert call(*BASE, *storage)[0] == 0, "who names a storage may join"
    code, _, err = call(*BASE, *storage, "--epochs", "3")
    assert code == UsageError.exit_code
    assert re.search(r"same data, plan and device, but got epochs 3.0, where the study has 5.0\. .*another --study", err)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_writes_the_best_so_far(
    call: Call, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> ShortTraining:
        os.kill(os.getpid(), number)
        return training(*arguments, **options)

    monkeypatch.setattr(session, "run_short_training", interrupted)
    left, out, err = call(*BASE)
    assert left == code
    assert err.count("\n") == 1
    assert "the best so far is written" in err
    profile = load_profile(Path("best.json"))
    assert profile.prediction is not None
    assert profile.prediction.images_per_second.source.startswith("measured")
    assert "the plan's rule with measured speed and memory" in " ".join(out.split())
    monkeypatch.setattr(session, "run_short_training", training)
    assert call(*BASE, "--resume")[0] == 0


def test_without_a_trial_that_finished_the_plan_is_written(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a verdict that is asked for its setting where there is none."""
    monkeypatch.setattr(session, "run_real_steps", lambda *_, **__: RealSteps("out of time", "no step within 300 s"))
    code, out, err = call(*BASE)
    assert (code, err) == (0, "")
    assert "No setting is left over by real steps: no short trainings.\n" in out
    assert "Not tested: no trial finished; wrote the predicted plan unchanged.\n" in out
    profile = load_profile(Path("best.json"))
    assert profile.prediction is not None
    assert profile.prediction.accuracy.source.startswith("prior")


def test_too_little_time_for_trainings_is_said(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches trainings that are begun, and cut, where the time does not even start their processes."""
    monkeypatch.setattr(session, "LEAST_STARTUP_SECONDS", 1e6)
    monkeypatch.setattr(session, "run_short_training", lambda *_, **__: pytest.fail("no time"))
    code, out, err = call(*BASE)
    assert (code, err) == (0, "")
    assert "Not enough time left for a short training.\n" in out
    assert load_profile(Path("best.json")).description.startswith("Tuned on")


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        (("--storage", "mysql://x/y"), UsageError, "--storage must be postgresql://"),
        (("--storage", "postgresql://me:secret@127.0.0.1:9/x"), StorageError, r"me:\*\*\*@127.0.0.1:9/x' must be reachable"),
        (("--val", "synthetic:80x6"), VerificationSetError, "--val must hold people that are not trained on"),
        (("--data", "synthetic:12x6"), DataError, "40 identities to hold some out"),
        (("--gpu", "h200"), UsageError, "needs the GPU that was planned for|must be"),
        (("--data", "nowhere"), DataError, "'nowhere', which does not exist"),
        (("--backbone", "r51"), UsageError, "--backbone must be a known name"),
    ],
)
def test_a_refusal_is_one_line(call: Call, arguments: tuple[str, ...], error: type[AttfcError], expected: str) -> None:
    if "postgresql" in arguments[1]:
        pytest.importorskip("psycopg", reason="needs the package psycopg: pip install 'attfc[postgresql]'")
    given = [word for word in BASE if arguments[0] != "--data" or word not in BASE[2:4]]  # a second --data would be joined
    code, _, err = call(*given, *arguments)
    assert code == error.exit_code, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(expected, err), err
    assert not Path("best.json").exists()
