"""The slots' kernels in the place of passes in chunks: their products, their bytes, and where there are none."""

from __future__ import annotations

from typing import Any

import pytest

from attfc_train.losses.card import Card
from attfc_train.profile.file import load_preset
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.counting import counted_step
from attfc_train.timing.kernels import SlotKernels
from attfc_train.timing.op_cost import OpCost

IDS, BATCH, DIM = 5_000, 64, 256
HOPPER = Card.of_capability(90)
CONTAINER: dict[str, Any] = {"kind": "attfc", "batch_negatives": False}


def profile_of(head: dict[str, Any], accumulation: int = 1) -> TrainProfile:
    document = load_preset("tiny").model_dump()
    document["head"] = head
    document["model"]["image_size"] = 32
    document["optim"] |= {"batch_size": BATCH, "accumulation": accumulation}
    return TrainProfile.model_validate(document).resolve(IDS, 20 * IDS)


def kernels_of(head: dict[str, Any], card: Card | None = HOPPER, accumulation: int = 1) -> dict[str, OpCost]:
    profile = profile_of(head, accumulation)
    kernels = SlotKernels.of(profile, card)
    assert kernels is not None
    return {cost.name: cost for cost in kernels.fused(counted_step(profile)) if cost.name in ("scores", "learning")}


HEADS: dict[str, tuple[dict[str, Any], int, int, int, bool]] = {
    # Head: slots, bytes that scoring reads of a slot, bytes that learning moves of one, wide operands.
    "container": ({**CONTAINER, "storage": "bf16"}, IDS, 2 * DIM, 0, False),
    "container in fp32": ({**CONTAINER, "dcc_share": 0.3}, 1_500, 4 * DIM, 0, True),
    "container in 8 bits": ({**CONTAINER, "storage": "fp8"}, IDS, DIM + 4, 0, False),
    "slots that learn": ({**CONTAINER, "storage": "bf16", "slot_rate": 1.0}, IDS, 2 * DIM, 4 * DIM, False),
    "queue": ({"kind": "dcq", "dcc_share": 0.3}, 1_500, 4 * DIM, 0, True),
    "rows": ({"kind": "full_fc"}, IDS, 4 * DIM, 16 * DIM, True),
    "rows in 8 bits": ({"kind": "full_fc", "storage": "int8", "momentum": False}, IDS, DIM + 4, 2 * (DIM + 4), False),
    "narrow rows": ({"kind": "full_fc", "storage": "bf16"}, IDS, 2 * DIM, 8 * DIM, False),
    "some rows": ({"kind": "partial_fc", "sample_rate": 0.1}, 500, 4 * DIM, 16 * DIM, True),
}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("name", HEADS)
def test_a_pass_is_two_products_and_its_slots_once(name: str, accumulation: int) -> None:
    """Catches an operator of a pass that is not marked, slots that are read twice, and parts that are forgotten."""
    head, slots, read, moved, is_wide = HEADS[name]
    found = kernels_of(head, accumulation=accumulation)
    products = 4 * BATCH * slots * DIM * (3 if is_wide else 1)
    kind = "wide kernel" if is_wide else "narrow kernel"
    assert (found["scores"].kind, found["scores"].flops) == (kind, products)
    assert found["scores"].bytes_read_written == accumulation * slots * read
    assert ("learning" in found) == bool(moved)
    if moved:
        assert (found["learning"].kind, found["learning"].flops) == (kind, products)
        assert found["learning"].bytes_read_written == slots * moved


def test_all_else_stays() -> None:
    """Catches work that a kernel swallows: what is left are the operators of a step that scores nothing in chunks."""
    profile = profile_of({**CONTAINER, "slot_rate": 1.0})
    costs = counted_step(profile)
    kernels = SlotKernels.of(profile, HOPPER)
    assert kernels is not None
    kept = [cost for cost in kernels.fused(costs) if cost.name not in ("scores", "learning")]
    assert kept == [cost for cost in costs if not cost.is_over_slots]
    assert not any(cost.flops for cost in kept if cost.phase in ("loss", "update"))
    assert sum(cost.count for cost in kept) < sum(cost.count for cost in costs)


def test_a_program_that_sums_some_dimensions_computes_all_logits() -> None:
    """Catches padded dimensions, and products that several programs repeat, left out: D = 768 on a card with little memory."""
    profile = profile_of({**CONTAINER, "storage": "fp32"})
    wide = profile.model_copy(update={"model": profile.model.model_copy(update={"embedding_size": 768})})
    kernels = SlotKernels.of(wide, Card(86, 48 * 1024))
    assert kernels is not None
    flops = 4 * BATCH * IDS * 768
    (made,) = kernels.fused([OpCost("slots_mm", "loss", "loss", flops, 10**9, 100)])
    # 16 slots of 1,024 fp32 dimensions fit no more: two programs sum 512 each. Logits twice and the sum once, with a third of
    # the dimensions for nothing, in three passes of TF32.
    assert made.flops == pytest.approx(flops * 1.5 * (1024 / 768) * 3)


@pytest.mark.parametrize(
    ("head", "card", "dim"),
    [
        ({**CONTAINER, "loss_kernel": "chunked"}, HOPPER, DIM),
        ({"kind": "f2c", "dcc_share": 0.3}, HOPPER, DIM),
        (CONTAINER, Card.of_capability(70), DIM),
        (CONTAINER, HOPPER, 2048),
    ],
    ids=["refused", "paired passes", "Volta", "too wide"],
)
def test_there_is_none(head: dict[str, Any], card: Card | None, dim: int) -> None:
    profile = profile_of(head)
    wide = profile.model_copy(update={"model": profile.model.model_copy(update={"embedding_size": dim})})
    assert SlotKernels.of(wide, card) is None


def test_turing_multiplies_without_tensor_cores() -> None:
    assert kernels_of({**CONTAINER, "storage": "int8"}, Card.of_capability(75))["scores"].flops == 4 * BATCH * IDS * DIM
    assert kernels_of({**CONTAINER, "storage": "int8"}, Card.of_capability(75))["scores"].kind == "wide kernel"


def test_turing_has_no_kernel_in_which_wide_rows_learn() -> None:
    """Catches a price for a kernel that the run does not take: its pass in chunks stays."""
    profile = profile_of({"kind": "full_fc"})
    costs = [OpCost("slots_mm", "loss", phase, 10**9, 10**9, 100) for phase in ("loss", "update")]
    for dim, names in ((512, {"scores", "learning"}), (768, {"scores", "slots_mm"})):
        wide = profile.model_copy(update={"model": profile.model.model_copy(update={"embedding_size": dim})})
        kernels = SlotKernels.of(wide, Card.of_capability(75))
        assert kernels is not None
        assert {cost.name for cost in kernels.fused(costs)} == names
