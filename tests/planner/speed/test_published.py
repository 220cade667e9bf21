"""Predicted intervals against speeds that others published, and how wide an interval is where nothing was."""

from __future__ import annotations

import pytest

from attfc_planner.gpu.catalog import get_card, load_catalog
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import MemoryModel
from attfc_planner.speed.efficiency import WIDTH_WITHOUT_EVIDENCE, efficiencies
from attfc_planner.speed.model import predict_speed
from attfc_train.document import Precision
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.profile.prediction import Interval
from attfc_train.profile.profile import ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.timing.op_cost import OpCost
from tests.planner.speed.published import ROWS, Published


def predicted(row: Published) -> Interval:
    """Return the interval for the setting of a published training; each GPU's share of the identities is its layer."""
    gpu = get_card(row.card)
    profile = TrainProfile(
        model=ModelSettings(backbone=row.backbone),
        head=FullFCSettings(loss_kernel="chunked"),  # as theirs, the logits go through memory
        optim=OptimSettings(batch_size=row.batch_size),
        run=RunSettings(precision=row.precision, steps=1),
    ).resolve(row.ids_per_gpu)
    costs = MemoryModel(profile, gpu, gpu.capacity_bytes).op_costs(profile)
    return predict_speed(profile, gpu, costs).images_per_second


# Catches the ranges of another precision or generation: with those of 16 bit all V100 rows in fp32 lie outside.
@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_published_training_speeds_lie_inside(row: Published) -> None:
    speed = predicted(row)
    assert speed.low < row.images_per_second < speed.high
    assert speed.high / speed.low < 2.5  # an interval of any width would hold it
    assert "published trainings" in speed.source


def a_step(gpu: GpuProfile, precision: Precision, name: str, kind: str, flops: int, moved: int) -> Interval:
    profile = TrainProfile(head=FullFCSettings(), run=RunSettings(precision=precision, steps=1)).resolve(1000)
    busy = gpu.model_copy(update={"num_cores": 10_000, "sources": {**gpu.sources, "num_cores": "a test"}})
    return predict_speed(profile, busy, [OpCost(name, kind, "forward", flops, moved, 1)]).images_per_second


CONVOLUTION = ("convolution", "conv", 10**14, 10**6)
ADDITION = ("add", "elementwise", 0, 10**12)


@pytest.mark.parametrize("operator", [CONVOLUTION, ADDITION], ids=["arithmetic", "bandwidth"])
@pytest.mark.parametrize(
    ("card", "precision"),
    [("a100-80", "bf16"), ("h100-sxm", "bf16"), ("rtx-3090", "fp16"), ("l4", "bf16"), ("rtx-4090", "fp32")],
)
def test_where_no_training_was_published_the_interval_is_wide_and_says_so(
    card: str, precision: Precision, operator: tuple[str, str, int, int]
) -> None:
    speed = a_step(get_card(card), precision, *operator)
    assert speed.high / speed.low == pytest.approx(WIDTH_WITHOUT_EVIDENCE, rel=1e-3)
    assert f"efficiency ranges 3 wide, as no training of such a card in {precision} was published" in speed.source


@pytest.mark.parametrize("card", load_catalog(), ids=lambda card: card.slug)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_ranges_are_narrow_only_where_rows_stand_behind_them(card: GpuProfile, precision: Precision) -> None:
    """Catches evidence of one generation or precision that is taken for another's."""
    table = efficiencies(card, precision)
    half = card.architecture in ("volta", "turing") or "GeForce RTX 40" in card.name
    seen = card.compute_capability < 8 if precision == "fp32" else half
    width = table.arithmetic["conv"].high / table.arithmetic["conv"].low
    assert (width < 2.6) == seen
    assert ("published trainings" in table.basis) == seen


def test_a_laptops_chip_is_none_of_the_cards_whose_trainings_were_published() -> None:
    card = get_card("rtx-4090")
    laptop = card.model_copy(update={"name": "NVIDIA GeForce RTX 4090 Laptop GPU", "slug": "this-gpu"})
    assert "published trainings" in efficiencies(card, "fp16").basis
    assert "3 wide" in efficiencies(laptop, "fp16").basis
