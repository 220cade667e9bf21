"""An explanation of a real small profile: what it says, how it looks on the screen and as a picture."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from attfc_planner.explain.explain import Explanation, differences, explain, explained_profile, grouped_terms
from attfc_planner.gpu.catalog import get_card
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import MemoryModel
from attfc_planner.plan.plan import make_plan
from attfc_planner.plan.problem import pose
from attfc_planner.plan.request import PlanRequest
from attfc_planner.screens.explain import show_explanation
from attfc_planner.screens.timeline_svg import timeline_svg
from attfc_train.errors import ProfileError
from attfc_train.profile.prediction import NCCL_BUFFERS
from attfc_train.profile.profile import DataSettings, TrainProfile
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel, make_gpu
from tests.planner.measured import imagined
from tests.planner.settings import setting as setting_of
from tests.planner.trace.profiles import small_profile


@pytest.fixture(scope="module")
def profile() -> TrainProfile:
    return small_profile({"dcc_size": 400_000, "chunk_slots": 65_536}, num_ids=500_000, batch_size=512)


def test_a_plan_for_several_gpus_has_a_heading_for_every_term(profile: TrainProfile) -> None:
    """Catches an explanation that ends at NCCL's buffers, which one GPU does not have."""
    several = profile.model_copy(update={"run": profile.run.model_copy(update={"gpus": 2})})
    memory = MemoryModel(several, get_card("h100-sxm").beside_others(2), 80 * GIB).exact(several)
    assert NCCL_BUFFERS in [term.name for term in memory.terms]
    grouped = {term.name for terms in grouped_terms(memory).values() for term in terms}
    assert grouped == {term.name for term in memory.terms if term.bytes}


@pytest.fixture(scope="module")
def gpu() -> GpuProfile:
    return make_gpu(4 * GIB)


@pytest.fixture(scope="module")
def model(profile: TrainProfile, gpu: GpuProfile, tmp_path_factory: pytest.TempPathFactory) -> MemoryModel:
    return MemoryModel(profile, gpu, gpu.capacity_bytes, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def explained(profile: TrainProfile, gpu: GpuProfile, model: MemoryModel) -> Explanation:
    return explain(profile, gpu, model)


def test_it_is_the_prediction_of_a_plan(explained: Explanation, model: MemoryModel, profile: TrainProfile) -> None:
    assert explained.memory == model.exact(profile)
    grouped = [term for terms in grouped_terms(explained.memory).values() for term in terms]
    assert sum(term.bytes for term in grouped) == explained.memory.total_bytes
    assert explained.peak_in_step
    beside = explained.memory.total_bytes - explained.timeline.peak_bytes
    assert explained.room_bytes == 4 * GIB - beside


def test_knobs_change_what_their_own_traces_say(explained: Explanation) -> None:
    knobs = {knob.name: knob for knob in explained.knobs}
    assert [knob.bytes_changed for knob in explained.knobs] == sorted(knob.bytes_changed for knob in explained.knobs)
    assert knobs["gradient checkpointing"].bytes_changed < 0
    assert knobs["gradient checkpointing"].time_changed > 0
    assert knobs["precision fp32 -> bf16"].time_changed < 0
    assert knobs["DCC size 400,000 -> 200,000"].bytes_changed < 0
    assert knobs["DCC size 400,000 -> 200,000"].points_changed is not None
    narrower = knobs["storage fp32 -> int8"].points_changed
    assert narrower is not None
    assert narrower < 0
    assert knobs["precision fp32 -> bf16"].points_changed is None
    assert knobs["storage fp32 -> int8"].bytes_changed <= knobs["storage fp32 -> bf16"].bytes_changed


@pytest.mark.parametrize(("phase", "when"), [("evaluation", "after"), ("build", "before"), (None, None)])
def test_a_peak_outside_of_the_step_is_said(explained: Explanation, phase: str | None, when: str | None) -> None:
    memory = explained.memory.model_copy(update={"peak_phase": phase}) if phase else explained.memory
    console = Console(file=io.StringIO(), width=120, color_system=None)
    show_explanation(console, replace(explained, memory=memory, peak_in_step=phase is None), ())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    said = [line for line in text.splitlines() if "the step that is drawn below" in line]
    assert len(said) == (phase is not None), text
    if phase:
        assert f"That is {when} the step" in said[0]
        assert f"in phase '{phase}'" in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_shows_everything(explained: Explanation, width: int) -> None:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_explanation(console, explained, ("The numbers differ.",))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    for term in explained.memory.terms:
        assert term.name in text
    for piece in ("largest at the peak", "forward", "backward", "▲ peak", "█", "gradient checkpointing", "age of centers"):
        assert piece in text
    assert "The numbers differ." in text
    assert "100.0%" not in text
    assert "-0.00" not in text


def test_more_than_the_budget_is_said(profile: TrainProfile, model: MemoryModel, tmp_path: Path) -> None:
    tight = make_gpu(GIB // 2)
    model = MemoryModel(profile, tight, tight.capacity_bytes, model._traces._cache.folder)
    console = Console(file=io.StringIO(), width=100, color_system=None)
    show_explanation(console, explain(profile, tight, model), ())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "too much" in text
    assert "over " in text
    assert "fragmentation" in text, "what does not fit is replayed all the same"


def test_the_picture_is_one_self_contained_document(explained: Explanation) -> None:
    text = timeline_svg(explained.timeline, explained.room_bytes, "small <profile> & more")
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title") == "small <profile> & more"
    assert "Peak" in (root.findtext(f"{space}desc") or "")
    assert len(root.findall(f"{space}path")) == len(explained.timeline.categories)
    labels = {node.text for node in root.iter(f"{space}text")}
    assert {"forward", "backward", "weights", "activations"} <= labels
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_differences_are_named_term_by_term() -> None:
    gpu = make_gpu()
    planned = make_plan(pose(PlanRequest(num_ids=100_000), gpu, lambda *_: FakeMemoryModel())).profile
    assert planned.prediction is not None
    now = planned.prediction.memory
    assert planned.provenance is not None
    versions = {"attfc": planned.provenance.attfc_version, "torch": "99.0"}
    assert differences(planned, now, gpu, versions) == ()
    first, *others = now.terms
    larger = now.model_copy(update={"terms": (first.model_copy(update={"bytes": GIB}), *others)})
    total, term, torch = differences(planned, larger, gpu, versions)
    assert "not what is computed now" in total
    assert term == "context: 600.0 MiB then, 1.00 GiB now"
    assert torch.endswith("then, 99.0 now")
    assert "was planned for Test card" in differences(planned, now, make_gpu(name="Other"), versions)[0]
    assert "no prediction" in differences(small_profile(), now, gpu, versions)[0]


@pytest.mark.parametrize(
    ("data", "gpu", "expected"),
    [
        ({}, make_gpu(), "data.num_ids must be known"),
        ({"num_ids": 1000}, make_gpu(bf16_flops=None), "run.precision must be one that Test card has, but got 'bf16'"),
    ],
)
def test_what_cannot_be_explained(data: dict[str, int], gpu: GpuProfile, expected: str) -> None:
    with pytest.raises(ProfileError, match=expected):
        explained_profile(TrainProfile(data=DataSettings(**data)), gpu)


def test_trainings_take_the_priors_place(
    explained: Explanation, profile: TrainProfile, gpu: GpuProfile, model: MemoryModel
) -> None:
    base = profile.resolve(profile.num_ids)
    usual = setting_of(1.0, 3.3, 512, 1)
    settings = [usual, usual.turned(queue_length=2.0), usual.turned(num_references=0)]
    measured = imagined(base, settings, lambda one: 0.80 if one["num_references"] == 0 else 0.86)
    explanation = explain(profile, gpu, model, measured)
    assert explanation.memory == explained.memory
    assert explanation.accuracy_parts == measured.parts(profile)
    knobs = {knob.name: knob.points_changed for knob in explanation.knobs}
    before = {knob.name: knob.points_changed for knob in explained.knobs}
    fewer = next(name for name in knobs if name.startswith("references") and name.endswith("0"))
    assert knobs[fewer] is not None
    assert before[fewer] is not None
    assert knobs[fewer] < before[fewer]
    console = Console(file=io.StringIO(), width=100)
    show_explanation(console, explanation, ())
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "Accuracy, from your trainings" in shown
    assert "regression over 3 settings, a test" in shown
    assert "What the accuracy prior assumes" not in shown
