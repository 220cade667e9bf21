from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from attfc_planner.accuracy.prior import midpoint
from attfc_planner.plan.plan import Plan, make_plan
from attfc_planner.plan.problem import pose
from attfc_planner.plan.request import PlanRequest
from attfc_planner.screens.plan import memory_view, show_plan
from attfc_planner.speed.model import predict_speed
from attfc_train.profile.file import load_profile, save_profile
from attfc_train.profile.prediction import MemoryPrediction, MemoryTerm
from attfc_train.units import GIB, MIB
from tests.planner.fakes import FakeMemoryModel, make_gpu


def plan(num_images: int | None = 42_474_557) -> Plan:
    request = PlanRequest(num_ids=2_059_906, num_images=num_images)
    return make_plan(pose(request, make_gpu(foreign_bytes=GIB), lambda *_: FakeMemoryModel()))


def shown(made: Plan, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_plan(console, made, "attfc-train --profile best.json", "best.json")
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_screen_shows_everything_that_was_promised(width: int) -> None:
    made = plan()
    text = shown(made, width)
    for piece in (
        "DCC size",
        "queue length",
        "batch size",
        "references",
        "gradient checkpointing",
        "time per epoch",
        "time to train",
    ):
        assert piece in text
    for piece in (
        "accuracy prior",
        "not measured on your data",
        "Pareto front and runners-up",
        "Rule: balanced",
        "1.00 GiB of it in use by others",
        "█",
    ):
        assert piece in " ".join(text.replace("│", " ").split())
    assert 0.01 < 1 - made.chosen.memory.total_bytes / made.chosen.memory.budget_bytes < 1
    assert "░" in text
    for term in made.chosen.memory.terms:
        assert f"■ {term.name}" in text
    assert "Next: attfc-train --profile best.json" in text
    assert max(map(len, text.splitlines())) <= max(width, 120)
    search = made.profile.search
    assert search is not None
    words = " ".join(text.replace("│", " ").split())
    assert search.verdict
    assert words.endswith(search.verdict), "the last thing that is read"
    assert words.index(search.verdict) < words.index("Chosen setting"), "and the first"
    assert words.count("bytes per identity") == 1
    for row in search.comparison:
        assert f"{row.memory_bytes / GIB:.1f} " in text
        low, high = f"{row.accuracy.low:+.2f}", f"{row.accuracy.high:+.2f}"
        assert f"{low} to {high}" in text or (width <= 80 and low in text and high in text), "broken, but not cut"
    assert "…" not in text[: text.index("Chosen setting")]


def test_native_segments_are_said_in_a_line() -> None:
    """Catches a plan that is larger than on another machine and does not say why."""
    expandable = plan(1000)
    gpu = expandable.gpu.model_copy(update={"native_segments": "expandable ones are not supported here"})
    line = "Memory is predicted with native segments: expandable ones are not supported here."
    assert line in shown(replace(expandable, gpu=gpu), 100).splitlines()
    assert "native" not in shown(expandable, 100)


def test_without_images_the_hours_are_not_invented() -> None:
    assert "unknown: give --images or --data" in shown(plan(None), 100)


@pytest.mark.parametrize(("used_mib", "bar"), [(512, "█" * 20 + "░" * 20), (1018, "█" * 40), (1010, "█" * 39 + "░")])
def test_the_bar_is_as_wide_as_the_budget(used_mib: int, bar: str) -> None:
    """Less than half a character that is left is not drawn."""
    terms = tuple(MemoryTerm(name=name, bytes=used_mib * MIB, source="x") for name in "ab")
    memory = MemoryPrediction(terms=terms, budget_bytes=2 * GIB, peak_phase="backward", peak_operator="mm")
    console = Console(file=io.StringIO(), width=40, color_system=None)
    console.print(memory_view(memory, 40))
    assert console.file.getvalue().splitlines()[0] == bar  # type: ignore[attr-defined]


def hosted(cores: int | None, **changes: object) -> Plan:
    request = PlanRequest(num_ids=2_059_906, num_images=42_474_557, cores=cores, image_size=224, **changes)  # type: ignore[arg-type]
    return make_plan(pose(request, make_gpu(), lambda *_: FakeMemoryModel()))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_training_that_waits_for_images_says_so_first_and_last_and_names_the_cores(width: int, tmp_path: Path) -> None:
    """Catches a limit that only a small row tells, and a file that forgets it."""
    made = hosted(1)
    words = " ".join(shown(made, width).replace("│", " ").split())
    prediction = made.profile.prediction
    assert prediction is not None
    assert prediction.loading is not None
    needed = prediction.loading.needed_cores
    note = "Data loading limits this training: 1 core decodes about"
    assert words.count(note) == 2
    assert words.index(note) < words.index("Chosen setting") < words.rindex(note)
    assert f"{needed} cores would feed it." in words
    assert "limited by data loading (1 core)" in words
    assert f"; {needed} cores would keep up" in words
    assert "at most what 1 core decodes" in words
    save_profile(made.profile, tmp_path / "best.json")
    assert load_profile(tmp_path / "best.json").prediction == prediction


def test_the_cores_that_a_plan_names_are_enough() -> None:
    """Catches advice that leaves the same setting waiting."""
    made = hosted(1, head="attfc")
    assert made.profile.prediction is not None
    assert made.profile.prediction.loading is not None
    needed = made.profile.prediction.loading.needed_cores
    gpu = made.gpu.in_host(needed)
    speed = predict_speed(made.profile, gpu, FakeMemoryModel().op_costs(made.profile))
    assert "data loading" not in speed.limited_by
    assert midpoint(speed.images_per_second) > made.chosen.images_per_second


def test_an_unknown_host_is_told_how_many_cores_it_needs() -> None:
    made = hosted(None)
    words = " ".join(shown(made, 80).replace("│", " ").split())
    assert re.search(r"data loading takes about \d+ cores? of the host; --cores says how many it has", words)
    assert "Data loading limits" not in words
    assert made.profile.search is not None
    assert "data rate" not in {each.name for each in made.profile.search.constraints}
