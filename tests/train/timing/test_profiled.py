"""Real steps that are profiled: phases add up, waiting is seen, the trace has the phases."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attfc_train.data import reader
from attfc_train.data.batch import Batch
from attfc_train.errors import DeviceMemoryError, StorageError, UsageError
from attfc_train.losses.card import Card
from attfc_train.phase import current_phase
from attfc_train.profile.prediction import Interval, MemoryPrediction, PhaseSeconds, Prediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.step.build import build
from attfc_train.timing import ceilings, profiled, steps
from attfc_train.timing.counting import counted_step
from attfc_train.timing.marks import BETWEEN, WAITING
from attfc_train.timing.profiled import StepOptions, profile_step
from attfc_train.timing.report import StepReport
from tests.train.profiles import random_batch, small_profile

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "SECONDS_PER_PROBE", 0.01)


def with_data(path: str | None, **data: Any) -> TrainProfile:
    profile = small_profile("identity-30%")
    return profile.model_copy(update={"data": profile.data.model_copy(update={"path": path, "num_ids": 40, **data})})


def profiled_step(profile: TrainProfile, num: int = 4, trace: Path | None = None) -> StepReport:
    return profile_step(profile, StepOptions(CPU, num, trace), lambda line: None)


def test_phases_add_up_to_the_step_whose_marks_cost_little() -> None:
    """Catches a phase that is lost or counted twice; a mark is a reading of the clock."""
    report = profiled_step(with_data(None))
    assert sum(row.seconds for row in report.phases) == pytest.approx(report.step_seconds)
    assert sum(row.share for row in report.phases) == pytest.approx(1)
    assert {row.phase for row in report.phases} >= {"input", "references", "forward", "loss", "backward", "update", BETWEEN}
    assert WAITING not in {row.phase for row in report.phases}, "nobody loads anything"
    assert report.marks >= 20
    assert 0 < report.mark_seconds < 1e-3
    assert report.images_per_second == pytest.approx(8 / report.step_seconds)
    between = next(row for row in report.phases if row.phase == BETWEEN)
    assert between.seconds < 0.5 * report.step_seconds, "what counts has a phase"


def test_slow_phases_are_seen_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches marks that are one place off: the loss of this head takes 50 ms more than it needs."""
    state = build(small_profile(), CPU)
    forward = state.head.forward

    def slow(*args: Any) -> Any:
        assert current_phase() == "loss"
        time.sleep(0.05)
        return forward(*args)

    monkeypatch.setattr(state.head, "forward", slow)
    times = steps.timed_steps(state, iter([random_batch(small_profile())] * 20), 2)
    assert times.phases["loss"] > 0.05
    assert times.phases["forward"] + times.phases["backward"] > 0
    assert times.marked > 0.05
    assert times.unmarked > 0.05


def test_a_slow_source_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a wait that is hidden by the loader's head start, or given to the step."""
    fill_rows = reader.ImageReader.fill_rows

    def slow(self: reader.ImageReader, *args: Any) -> Any:
        time.sleep(0.3)
        return fill_rows(self, *args)

    monkeypatch.setattr(reader.ImageReader, "fill_rows", slow)
    report = profiled_step(with_data("synthetic:40x4", num_workers=1, prefetch_batches=1), num=2)
    waiting, *others = report.phases
    assert waiting.phase == WAITING
    assert waiting.share > 0.5
    assert report.limit.startswith("waiting for data:")
    assert report.images_per_second == pytest.approx(8 / (report.step_seconds + waiting.seconds))
    assert sum(row.seconds for row in others) == pytest.approx(report.step_seconds)


def test_a_fast_source_is_hardly_waited_for() -> None:
    report = profiled_step(with_data("synthetic:40x4"), num=2)
    assert report.data == "synthetic:40x4"
    assert report.phases[0].phase == WAITING
    assert not report.limit.startswith("waiting")


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_a_trace_has_the_phases_as_ranges(name: str, tmp_path: Path) -> None:
    """Catches ranges that are left open, and a step outside of its own."""
    path = tmp_path / name
    profiled_step(with_data(None), num=1, trace=path)
    content = path.read_bytes()
    document = json.loads(gzip.decompress(content) if name.endswith(".gz") else content)
    ranges = [event for event in document["traceEvents"] if event.get("cat") == "user_annotation"]
    names = [event["name"] for event in ranges]
    assert names.count("train_step") == names.count(WAITING) == names.count("references") == names.count("backward") == 3
    inside = [event for event in ranges if event["name"] == "backward"]
    around = [event for event in ranges if event["name"] == "train_step"]
    for inner, outer in zip(inside, around, strict=True):
        assert outer["ts"] <= inner["ts"] <= inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"]
    assert any(event.get("cat") == "cpu_op" for event in document["traceEvents"])


def test_a_trace_that_cannot_be_written_names_its_option(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="choose another --trace"):
        profiled_step(with_data(None), num=1, trace=tmp_path)


def predicted(allocator: str | None) -> Prediction:
    none = Interval(low=1, high=2, source="a test")
    memory = MemoryPrediction(terms=(), budget_bytes=0, peak_phase="loss", peak_operator="mm", allocator=allocator)
    phases = (PhaseSeconds(phase="forward", low=0.001, high=0.002),)
    return Prediction(
        memory=memory, images_per_second=none, hours_per_epoch=None, limited_by="a test", phases=phases, accuracy=none
    )


@pytest.mark.parametrize(("allocator", "is_for_cpu"), [(None, True), ("expandable_segments:True", False)])
def test_a_plan_is_compared_on_its_own_kind_of_device(allocator: str | None, is_for_cpu: bool) -> None:
    profile = with_data(None).model_copy(update={"prediction": predicted(allocator)})
    rows = {row.phase: row.predicted for row in profiled_step(profile, num=1).phases}
    assert rows["forward"] == (PhaseSeconds(phase="forward", low=0.001, high=0.002) if is_for_cpu else None)
    assert rows["backward"] is None


def test_a_step_that_does_not_fit_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(state: object, batch: Batch) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a test.")

    monkeypatch.setattr(steps, "train_step", full)
    with pytest.raises(DeviceMemoryError, match=r"Profile again with --set optim\.accumulation=2"):
        profiled_step(with_data(None))


def test_without_identities_nothing_can_be_built() -> None:
    with pytest.raises(UsageError, match=r"--set data\.num_ids"):
        profiled_step(with_data(None, num_ids=None))


def test_a_short_run_is_made_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a loader that ends before the last timed step, and a run without a length."""
    made: list[int] = []
    real = steps.train_step

    def counted(state: Any, batch: Batch) -> Any:
        made.append(state.step)
        return real(state, batch)

    monkeypatch.setattr(steps, "train_step", counted)
    profile = with_data("synthetic:40x4")
    assert profile.total_steps == 8
    profiled_step(profile, num=5)
    assert len(made) == steps.UNTIMED + 10 == steps.num_steps(5, is_traced=False)
    endless = profile.model_copy(update={"run": profile.run.model_copy(update={"steps": None})})
    data = endless.data.model_copy(update={"path": None, "num_images": None})
    profiled_step(endless.model_copy(update={"data": data}), num=1)


def test_the_usual_steps_are_meant() -> None:
    """Catches a mean that one disturbed step moves."""
    seconds = [1.0, 1.1, 50.0, 0.9, 1.2, 0.0]
    assert sorted(steps._usual(seconds, lambda each: each)) == [1.0, 1.1, 1.2]


def test_better_ceilings_are_the_higher_ones() -> None:
    low, high, best = (
        ceilings.Ceilings("bf16", True, {"bf16": bf16, "tf32": tf32}, bandwidth, copy_rate)
        for bf16, tf32, bandwidth, copy_rate in ((1.0, 7.0, 4.0, 5.0), (2.0, 6.0, 3.0, 6.0), (2.0, 7.0, 4.0, 6.0))
    )
    assert low.or_better(high) == high.or_better(low) == best
    on_cpu = replace(low, copy_rate=None)
    assert on_cpu.or_better(on_cpu) == on_cpu


def test_every_arithmetic_of_a_run_is_measured_in_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches TF32 measured as plain fp32 or the other way round, and a setting of the run that the probe leaves changed."""
    measured: list[tuple[str, torch.dtype]] = []

    def seconds(work: Any, device: torch.device) -> float:
        out = work.__closure__[1].cell_contents
        measured.append((torch.get_float32_matmul_precision(), out.dtype))
        return 1.0

    monkeypatch.setattr(ceilings, "_best_seconds", seconds)
    for precision in ("high", "highest"):
        torch.set_float32_matmul_precision(precision)
        ceilings.matmul_rate(CPU, "tf32")
        ceilings.matmul_rate(CPU, "fp32")
        assert torch.get_float32_matmul_precision() == precision
    ceilings.matmul_rate(CPU, "bf16")
    assert measured == [("high", torch.float32), ("highest", torch.float32)] * 2 + [("highest", torch.bfloat16)]


def test_a_16_bit_run_of_a_cpu_has_its_loss_in_fp32() -> None:
    found = ceilings.measured_ceilings(CPU, "bf16", {"conv", "loss"})
    assert set(found.flops) == {"bf16", "fp32"}
    assert set(ceilings.measured_ceilings(CPU, "fp32", {"conv", "loss"}).flops) == {"fp32"}


def test_passes_are_counted_as_the_run_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a kernel's three passes of TF32 counted for a run that chose chunks, whose products are plain fp32."""
    profile = small_profile("identity-30%")
    costs = counted_step(profile)
    monkeypatch.setattr(profiled.Card, "of", lambda device: Card.of_capability(90))
    cuda = torch.device("cuda")
    kernels = profiled.as_made(costs, profile, cuda)
    assert {cost.kind for cost in kernels if cost.phase == "loss" and cost.flops} == {"wide kernel"}
    assert profiled.as_made(costs, profile, cuda, ()) == profiled.as_made(costs, profile, CPU) == costs


def test_a_report_has_the_ceiling_of_every_arithmetic() -> None:
    report = profiled_step(with_data(None), num=1)
    assert report.ceilings.by_arithmetic == {"fp32": report.ceilings.flops_per_second}


def test_bytes_of_a_copy_are_those_of_the_batch() -> None:
    batch = random_batch(small_profile("identity-30%"))
    tensors: Iterator[torch.Tensor] = iter((batch.query, batch.references, batch.flips, batch.labels))
    assert profiled._copied_bytes(small_profile("identity-30%")) == sum(tensor.nbytes for tensor in tensors)
