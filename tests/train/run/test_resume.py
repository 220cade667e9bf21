"""A run that is killed and resumed ends with the same bits as one that is not; a run that is told to stop says how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from attfc_train.errors import CheckpointError, Interrupted, NonFiniteLossError, StorageError, UsageError, VerificationSetError
from attfc_train.profile.file import save_profile
from attfc_train.profile.profile import DataSettings, ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.run import loop, run
from attfc_train.run.checkpoint import load_checkpoint
from attfc_train.run.log import read_log
from attfc_train.run.tensor_writer import Packed
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.profiles import HEADS

STEPS = 12
SAVE_EVERY = 3

CHILD = """
import os, signal, sys, torch
from attfc_train.run import loop
from attfc_train.cli import main
torch.set_num_threads(1)
step, kill_at = loop.train_step, int(sys.argv.pop(1))
def train_step(state, batch):
    if state.step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(state, batch)
loop.train_step = train_step
main()
"""


def profile_of(head: str = "identity-30%", **settings: Any) -> TrainProfile:
    """An epoch is 10 steps, so that the run crosses an epoch's end."""
    return TrainProfile(
        data=DataSettings(path="synthetic:20x4", num_workers=2, cache_bytes=0),
        model=ModelSettings(backbone="tiny", image_size=32, embedding_size=16),
        head=HEADS[head],
        optim=OptimSettings(batch_size=8, accumulation=2),
        run=RunSettings(
            **{"precision": "fp32", "steps": STEPS, "save_every": SAVE_EVERY, "eval_every": 5, "log_every": 1, **settings},
            val=("synthetic:12x3+500",),
        ),
    )


def options(folder: Path) -> run.RunOptions:
    return run.RunOptions(folder, torch.device("cpu"), Console(quiet=True))


def tensors(saved: Any, prefix: str = "") -> dict[str, Any]:
    """Every leaf of a nested state by path."""
    if isinstance(saved, dict):
        saved = list(saved.items())
    elif isinstance(saved, (list, tuple)):
        saved = list(enumerate(saved))
    else:
        return {prefix: saved}
    return {key: leaf for name, value in saved for key, leaf in tensors(value, f"{prefix}/{name}").items()}


def assert_same_end(left: Path, right: Path) -> None:
    a, b = (tensors(load_checkpoint(folder / "checkpoint.pt").state) for folder in (left, right))
    assert a.keys() == b.keys()
    assert [key for key in a if not same(a[key], b[key])] == []


def same(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor) and left.dtype == torch.float8_e4m3fn:
        left = left.view(torch.uint8)
        right = right.view(torch.uint8)
    return torch.equal(left, right) if isinstance(left, torch.Tensor) else bool(left == right)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    run.start(profile_of(), options(folder))
    return folder


@pytest.mark.parametrize("kill_at", [3, 7, 11])
def test_sigkill_and_resume_is_bit_identical(kill_at: int, uninterrupted: Path, tmp_path: Path) -> None:
    save_profile(profile_of(), tmp_path / "profile.json")
    folder = tmp_path / "run"
    arguments = ["--profile", str(tmp_path / "profile.json"), "--output", str(folder), "--device", "cpu"]
    child = subprocess.run([sys.executable, "-c", CHILD, str(kill_at), *arguments], capture_output=True, text=True, check=False)
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert load_checkpoint(folder / "checkpoint.pt").step == kill_at // SAVE_EVERY * SAVE_EVERY
    run.resume(options(folder))
    assert_same_end(uninterrupted, folder)
    logged = [{k: r.get(k) for k in ("step", "loss")} for r in read_log(folder) if r["event"] == "step"]
    assert logged == [{k: r.get(k) for k in ("step", "loss")} for r in read_log(uninterrupted) if r["event"] == "step"]


@pytest.mark.parametrize(
    "head",
    [
        *("full_fc", "partial_fc", "identity", "identity-R0", "fifo", "stored-int8", "identity-fp8", "dcq", "f2c-int8"),
        *("identity-adaface", "partial_fc-curricularface"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_head_resumes_from_a_stop_signal(
    head: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = profile_of(head, steps=6, precision=precision, eval_every=100)
    run.start(profile, options(tmp_path / "whole"))

    def interrupted_step(state: TrainState, batch: Any) -> Any:
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", interrupted_step)
    with pytest.raises(Interrupted, match="--resume") as caught:
        run.start(profile, options(tmp_path / "stopped"))
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert load_checkpoint(tmp_path / "stopped" / "checkpoint.pt").step == 4
    monkeypatch.setattr(loop, "train_step", train_step)
    run.resume(options(tmp_path / "stopped"))
    assert_same_end(tmp_path / "whole", tmp_path / "stopped")


def test_nan_stops_with_records_and_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned_step(state: TrainState, batch: Any) -> Any:
        if state.step == 7:
            with torch.no_grad():
                next(iter(state.feature_encoder.parameters())).fill_(torch.nan)
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", poisoned_step)
    with pytest.raises(NonFiniteLossError, match=r"at step 7; its batch: .*identity.*checkpoint\.pt") as caught:
        run.start(profile_of(log_every=100, eval_every=100), options(tmp_path / "run"))
    assert str(caught.value).count("identity") >= 8
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert checkpoint.step == 6
    assert all(leaf.isfinite().all() for leaf in tensors(checkpoint.state).values() if isinstance(leaf, torch.Tensor))


def test_full_disk_keeps_the_former_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(_packed: Packed, file: Any) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    def step_then_full(state: TrainState, batch: Any) -> Any:
        if state.step == 4:
            monkeypatch.setattr(Packed, "write", full_disk)
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", step_then_full)
    with pytest.raises(StorageError, match="No space left on device"):
        run.start(profile_of(eval_every=100), options(tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 3
    assert [path.name for path in (tmp_path / "run").iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_resumed_run_lets_go_of_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a file that takes room on the disk until the run ends, though the next checkpoint has replaced it."""
    folder = stopped_run(tmp_path / "run", monkeypatch)
    is_mapped = []

    def step(state: TrainState, batch: Any) -> Any:
        is_mapped.append(str(folder) in Path("/proc/self/maps").read_text())
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", step)
    run.resume(options(folder))
    assert set(is_mapped) == {False}


def test_a_run_folder_is_never_overwritten(uninterrupted: Path) -> None:
    with pytest.raises(UsageError, match="--resume"):
        run.start(profile_of(), options(uninterrupted))


def test_resume_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must exist"):
        run.resume(options(tmp_path))


def test_the_run_leaves_models_and_a_record(uninterrupted: Path) -> None:
    names = {path.name for path in uninterrupted.iterdir()}
    summary = {"run.json", "README.md", "curves.svg"}
    assert names == {"profile.json", "log.jsonl", "checkpoint.pt", "checkpoint.1.pt", "model.pt", "best.pt"} | summary
    events = [record["event"] for record in read_log(uninterrupted)]
    assert events.count("evaluate") == 3
    assert events[0] == "start"
    assert events[-1] == "end"
    record = read_log(uninterrupted)[-1]
    assert record["images_per_second"] > 0
    assert record["peak_memory_bytes"] > 2**20


def test_a_finished_run_is_left_alone(uninterrupted: Path) -> None:
    before = (uninterrupted / "log.jsonl").read_text()
    run.resume(options(uninterrupted))
    assert (uninterrupted / "log.jsonl").read_text() == before


def stopped_run(folder: Path, monkeypatch: pytest.MonkeyPatch, head: str = "identity-30%") -> Path:
    def interrupted_step(state: TrainState, batch: Any) -> Any:
        if state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", interrupted_step)
    with pytest.raises(Interrupted):
        run.start(profile_of(head, steps=6, eval_every=100), options(folder))
    monkeypatch.setattr(loop, "train_step", train_step)
    return folder


def test_a_resumed_run_takes_the_settings_that_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped_run(tmp_path / "run", monkeypatch)
    with pytest.raises(UsageError, match=r"keeps what decides the run, but got --set optim.batch_size"):
        run.resume(options(folder), ["optim.batch_size=4"])
    run.resume(options(folder), ["optim.learning_rate=0.25", "optim.accumulation=4"])
    rates = [record["learning_rate"] for record in read_log(folder) if record["event"] == "step"]
    assert rates[2] < 0.1 < rates[3]


RESIZED = {
    "head.dcc_size=3": "3 of 6",
    "head.dcc_size=20": "6 of 6",
    "head.storage=int8": "6 of 6",
    "head.queue_mode=stored": "6 of 6",
}


@pytest.mark.parametrize("setting", RESIZED)
def test_a_resumed_run_may_change_its_container(setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller, a slot for everyone, another storage, another queue; and such a run resumes like any other."""
    folder = stopped_run(tmp_path / "run", monkeypatch)
    before = load_checkpoint(folder / "checkpoint.pt").state["head"]
    console = Console(record=True, width=200, file=StringIO())
    more = ["head.queue_length=3"] if "stored" in setting else []
    run.resume(run.RunOptions(folder, torch.device("cpu"), console), [setting, *more])
    assert f"container: {RESIZED[setting]} centers kept" in console.export_text()
    checkpoint = load_checkpoint(folder / "checkpoint.pt")
    after = checkpoint.state["head"]
    assert checkpoint.profile.dcc_size == len(after["container.slot_labels"])
    assert (after["container.last_update"] >= 0).sum() >= (before["container.last_update"] >= 0).sum() // 2
    assert checkpoint.step == 6
    assert all(record["loss"] is not None for record in read_log(folder) if record["event"] == "step")


@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_learned_rows_keep_their_storage(storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In int8 the checkpoint was called another architecture's; to bf16 the rows were rounded without a word."""
    folder = stopped_run(tmp_path / "run", monkeypatch, "full_fc")
    with pytest.raises(UsageError, match=rf"keeps the form of head 'full_fc'.*, but got --set head.storage={storage}\. Leave"):
        run.resume(options(folder), [f"head.storage={storage}"])
    run.resume(options(folder), ["head.storage=fp32", "optim.learning_rate=0.01"])
    assert load_checkpoint(folder / "checkpoint.pt").step == 6


def test_the_log_tells_the_containers_health(uninterrupted: Path) -> None:
    records = [record for record in read_log(uninterrupted) if record["event"] == "step"]
    assert [record["filled_slots"] for record in records][-1] == 6
    assert all(record["identities_held"] == record["filled_slots"] for record in records)
    assert all(0 <= record["mean_age_steps"] <= record["max_age_steps"] < STEPS for record in records)
    assert records[0]["conflict_share"] == 0
    assert records[0]["center_cosine"] is None
    assert any(record["conflict_share"] > 0 and -1 <= record["center_cosine"] <= 1 for record in records)


def test_the_state_is_safe_before_the_last_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_args: Any, **_settings: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        run.start(profile_of(steps=4, save_every=100), options(tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 4


@pytest.mark.parametrize("part", ["", "@0:5"])
def test_people_that_are_trained_on_are_no_verification_set(tmp_path: Path, part: str) -> None:
    profile = profile_of()
    same = profile.model_copy(update={"run": profile.run.model_copy(update={"val": (f"{profile.data.path}{part}",)})})
    with pytest.raises(VerificationSetError, match="not trained on"):
        run.start(same, options(tmp_path / "run"))


def test_fp16_that_never_finds_a_scale_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflowing_step(state: TrainState, batch: Any) -> Any:
        assert state.scaler is not None
        state.scaler.skipped.fill_(1000)
        state.scaler.scale.fill_(torch.inf)
        return train_step(state, batch)

    monkeypatch.setattr(loop, "train_step", overflowing_step)
    with pytest.raises(NonFiniteLossError):
        run.start(profile_of("full_fc", precision="fp16"), options(tmp_path / "run"))


def test_the_device_is_prepared_before_anything_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a state is built the loss kernels are timed, which must be under the settings that they run with."""
    order: list[str] = []
    prepare = run.prepare_device
    built = run.build
    monkeypatch.setattr(run, "prepare_device", lambda *given: (order.append("prepare"), prepare(*given)))
    monkeypatch.setattr(run, "build", lambda *given, **named: (order.append("build"), built(*given, **named))[1])
    profile = profile_of(steps=2, save_every=1)
    run.start(profile, options(tmp_path / "run"))
    (tmp_path / "run" / "model.pt").unlink()
    run.resume(options(tmp_path / "run"))
    assert order == ["prepare", "build"] * 2
