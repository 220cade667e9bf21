"""The border of what fits: it fits, and one step beyond does not."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from attfc_planner.explain import capacity as fit
from attfc_planner.explain.capacity import BACKBONES, BATCH_SIZES, GRID, Cell, FitRequest, fits, largest
from attfc_planner.memory.model import MemoryModel
from attfc_planner.screens.capacity import show_fits
from attfc_train.units import GIB, MIB
from tests.planner.fakes import FakeMemoryModel, make_gpu


@given(
    fixed=st.integers(0, 10**10),
    slope=st.integers(1, 10**7),
    bend=st.integers(1, 10**5),
    page=st.integers(1, 10**8),
    budget=st.integers(1, 10**11),
)
@settings(max_examples=60, deadline=None)
def test_the_border_is_found_in_few_questions(fixed: int, slope: int, bend: int, page: int, budget: int) -> None:
    """A line with a bend, rounded up to pages."""
    asked = []

    def need(count: int) -> int:
        asked.append(count)
        return -(-(fixed + slope * count + slope * min(count, bend)) // page) * page

    answer = largest(need, budget)
    assert len(asked) < 120
    assert need(answer + 1) > budget
    assert answer == 0 or need(answer) <= budget


def test_what_is_reported_fits_and_a_step_more_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(fit, "BATCH_SIZES", (256,))
    gpu = make_gpu(2 * GIB)
    request = FitRequest(("tiny",), 0.1, "bf16", "bf16")
    cell = Cell(request, "tiny", 256, False, gpu=gpu)
    model = MemoryModel(cell.profile(GRID), gpu, gpu.capacity_bytes, tmp_path_factory.mktemp("cache"))
    answer = fits(request, gpu, model)
    assert [cell_fit.gradient_checkpointing for cell_fit in answer] == [False, "wide", True]
    for cell_fit in answer:
        place = Cell(request, cell_fit.backbone, cell_fit.batch_size, cell_fit.gradient_checkpointing, gpu=gpu)
        assert cell_fit.num_ids % GRID == 0
        assert cell_fit.num_ids > 0
        assert model.estimate(place.profile(cell_fit.num_ids)).total_bytes <= gpu.capacity_bytes
        assert model.estimate(place.profile(cell_fit.num_ids + GRID)).total_bytes > gpu.capacity_bytes
    best = max(answer, key=lambda cell_fit: cell_fit.num_ids)
    place = Cell(request, "tiny", best.batch_size, best.gradient_checkpointing, gpu=gpu)
    assert model.exact(place.profile(best.num_ids)).total_bytes <= gpu.capacity_bytes


def test_what_a_trace_does_not_confirm_is_searched_again() -> None:
    gpu = make_gpu()
    request = FitRequest(("r50",))
    honest = fits(request, gpu, FakeMemoryModel())
    answer = fits(request, gpu, FakeMemoryModel(hidden_bytes=100 * MIB))
    changed = [(cell_fit.num_ids, other.num_ids) for cell_fit, other in zip(honest, answer, strict=True) if cell_fit != other]
    ((before, after),) = changed
    assert abs((before - after) * 2048 - 100 * MIB) < 2 * GRID * 2048


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_names_what_does_not_fit(width: int) -> None:
    gpu = make_gpu(2 * GIB)
    request = FitRequest()
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_fits(console, fits(request, gpu, FakeMemoryModel()), request, gpu, 2060.0)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= width
    for name in (*BACKBONES, *map(str, BATCH_SIZES)):
        assert name in text
    tight = make_gpu(GIB)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    show_fits(console, fits(request, tight, FakeMemoryModel()), request, tight, 2060.0)
    text = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "r200 does not fit: the tightest setting traced (batch size 32, 1,000 identities, gradient checkpointing)" in text
    assert "its largest term is" in text


def test_a_cell_is_what_a_plan_would_make() -> None:
    """Profiles of a cell are those that a plan makes: precision, storage and share arrive."""
    profile = Cell(FitRequest(("mbf",), 0.1, "int8", "fp32"), "mbf", 64, True, gpu=make_gpu()).profile(50_000)
    assert (profile.dcc_size, profile.num_ids, profile.optim.batch_size) == (5000, 50_000, 64)
    assert (profile.head.storage, profile.run.precision) == ("int8", "fp32")  # type: ignore[union-attr]
    assert profile.model.gradient_checkpointing
