"""What TensorBoard, Weights & Biases and MLflow are told; the services are fakes that record their calls."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from attfc_train.errors import UsageError
from attfc_train.profile.file import load_preset
from attfc_train.run import trackers
from attfc_train.run.log import RunLog, read_log
from attfc_train.run.trackers import TrackedRun, Trackers, check_trackers

STEP = {"loss": 1.5, "images_per_second": 10.0, "data_wait_share": 0.1, "memory_bytes": 1e6, "peak_memory_bytes": 2e6}
Calls = list[tuple[Any, ...]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The calls of fakes in the place of ``wandb`` and ``mlflow``."""
    made: Calls = []
    wandb: Any = ModuleType("wandb")
    run = SimpleNamespace(
        id="w1",
        log=lambda values, step: made.append(("wandb.log", step, values)),
        finish=lambda: made.append(("wandb.finish",)),
    )

    def init(**settings: Any) -> Any:
        made.append(("wandb.init", settings["id"], settings["resume"], settings["name"], settings["config"]))
        return run

    wandb.init = init
    mlflow: Any = ModuleType("mlflow")
    mlflow.set_experiment = lambda name: made.append(("mlflow.experiment", name))

    def start_run(run_id: str | None, run_name: str | None) -> Any:
        made.append(("mlflow.start", run_id, run_name))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "m1"))

    mlflow.start_run = start_run
    mlflow.log_params = lambda values: made.append(("mlflow.params", values))
    mlflow.log_metrics = lambda values, step: made.append(("mlflow.log", step, values))
    mlflow.end_run = lambda: made.append(("mlflow.end",))
    for module in (wandb, mlflow):
        module.__spec__ = ModuleSpec(module.__name__, None, origin="a fake")
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return made


def opened(folder: Path, *options: str, first_step: int = 0, said: list[str] | None = None) -> Trackers:
    told: list[str] = [] if said is None else said
    return Trackers(options, TrackedRun(folder, load_preset("tiny"), first_step), told.append)


def log(folder: Path, made: Trackers, first_step: int = 0) -> RunLog:
    return RunLog(folder, 10, first_step, console=Console(quiet=True), trackers=made)


def test_every_service_gets_the_figures_in_their_order(tmp_path: Path, calls: Calls) -> None:
    with log(tmp_path, opened(tmp_path, "--wandb", "--mlflow")) as record:
        record.step(3, 1.0, **STEP)
        record.event("evaluate", 3, set="lfw", accuracy=0.5, num_pairs=600, auc=None)
    step = {f"step/{key}": value for key, value in STEP.items()}
    assert [call for call in calls if call[0] == "wandb.log"] == [
        ("wandb.log", 3, step),
        ("wandb.log", 3, {"evaluate/accuracy": 0.5}),
    ]
    assert next(iter(step)) == "step/loss"
    assert ("mlflow.log", 3, step) in calls
    assert [call[0] for call in calls[-2:]] == ["wandb.finish", "mlflow.end"]


def test_a_service_is_told_the_settings(tmp_path: Path, calls: Calls) -> None:
    opened(tmp_path, "--wandb", "--mlflow").close()
    (init,) = (call for call in calls if call[0] == "wandb.init")
    assert (init[1], init[2], init[3]) == (None, None, tmp_path.name)
    assert init[4]["optim.batch_size"] == 128
    (params,) = (call[1] for call in calls if call[0] == "mlflow.params")
    assert params["head.margin.kind"] == "cosface"


def test_a_resumed_run_goes_on_in_the_same_one(tmp_path: Path, calls: Calls) -> None:
    """Catches a second run of the service for every stop; and a new training in the run of one that began again."""
    opened(tmp_path, "--wandb", "--mlflow").close()
    calls.clear()
    opened(tmp_path, "--wandb", "--mlflow", first_step=5).close()
    assert [call[1:3] for call in calls if call[0] == "wandb.init"] == [("w1", "allow")]
    assert [call[1:] for call in calls if call[0] == "mlflow.start"] == [("m1", None)]
    assert "mlflow.params" not in [call[0] for call in calls]
    calls.clear()
    opened(tmp_path, "--wandb", first_step=0).close()
    assert [call[1] for call in calls if call[0] == "wandb.init"] == [None]


@pytest.mark.parametrize("content", ["", "[1]", '{"wandb": 3}', "\x00"])
def test_a_damaged_list_of_runs_is_none(content: str, tmp_path: Path, calls: Calls) -> None:
    (tmp_path / trackers.IDS_FILE).write_text(content)
    opened(tmp_path, "--wandb", first_step=5).close()
    assert json.loads((tmp_path / trackers.IDS_FILE).read_text()) == {"wandb": "w1"}


def test_what_is_not_finite_is_not_sent(tmp_path: Path, calls: Calls) -> None:
    with log(tmp_path, opened(tmp_path, "--mlflow")) as record:
        record.event("step", 1, loss=float("nan"), rate=0.5, count=3)
        record.event("save", 1)
    assert [call for call in calls if call[0] == "mlflow.log"] == [("mlflow.log", 1, {"step/rate": 0.5})]


def test_a_service_that_goes_away_ends_no_training(tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_values: Any, **_settings: Any) -> None:
        raise ConnectionError("the server has gone\nand more")

    said: list[str] = []
    made = opened(tmp_path, "--mlflow", "--wandb", said=said)
    monkeypatch.setattr(sys.modules["mlflow"], "log_metrics", away)
    with log(tmp_path, made) as record:
        for step in (1, 2):
            record.step(step, 1.0, **STEP)
    assert said == ["warning: --mlflow takes no more figures (the server has gone); log.jsonl goes on"]
    assert len([call for call in calls if call[0] == "wandb.log"]) == 2
    assert len(read_log(tmp_path)) == 2


def test_a_service_that_refuses_to_begin_is_one_line(tmp_path: Path, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_settings: Any) -> None:
        raise PermissionError("api_key not configured")

    monkeypatch.setattr(sys.modules["wandb"], "init", refused)
    with pytest.raises(UsageError, match=r"--wandb must be able to begin, but got api_key not configured\. Log in"):
        opened(tmp_path, "--mlflow", "--wandb")
    assert calls[-1] == ("mlflow.end",), "what had begun is finished"


@pytest.mark.parametrize(("option", "extra"), [("--tensorboard", "log"), ("--wandb", "wandb"), ("--mlflow", "mlflow")])
def test_a_package_that_is_missing_is_one_line(option: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=rf"{option} needs the package .*, but got none installed.*attfc\[{extra}\]"):
        check_trackers([option])


def test_a_folder_of_that_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases itself leaves a folder ``wandb`` where it ran."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "wandb").mkdir()
    if importlib.util.find_spec("wandb").origin is not None:  # type: ignore[union-attr]  # it is there
        pytest.skip("the package is installed")
    with pytest.raises(UsageError, match="--wandb needs the package wandb"):
        check_trackers(["--wandb"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_the_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the [log] extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with log(tmp_path, opened(tmp_path, "--tensorboard")) as record:
        record.step(3, 1.0, **STEP)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(scalar.step, scalar.value) for scalar in events.Scalars("step/loss")] == [(3, 1.5)]
