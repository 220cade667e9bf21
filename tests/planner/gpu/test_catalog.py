from __future__ import annotations

import json
from pathlib import Path

import pytest

from attfc_planner.gpu.catalog import find_card, get_card, load_catalog, load_gpu_profile, nearest_names
from attfc_train.errors import ProfileError, UsageError
from attfc_train.units import GIB


def test_at_least_twenty_cards_from_t4_to_b200() -> None:
    slugs = {card.slug for card in load_catalog()}
    assert len(slugs) >= 20
    assert {
        "t4",
        "rtx-2080-ti",
        "rtx-3090",
        "rtx-4090",
        "rtx-5090",
        "a10",
        "a100-80",
        "l4",
        "h100-sxm",
        "h200",
        "b200",
    } <= slugs


@pytest.mark.parametrize("card", load_catalog(), ids=lambda card: card.slug)
def test_every_number_has_a_source_and_is_plausible(card) -> None:
    for name, value in card:
        if isinstance(value, int | float) and not (name == "foreign_bytes" and value == 0):
            assert card.sources[name].strip(), name
    assert 7 * GIB < card.capacity_bytes < 200 * GIB
    assert 0.2e12 < card.memory_bandwidth_bytes_per_second < 10e12
    assert 5e12 < card.fp32_flops < 200e12
    assert (card.fp16_flops or 0) > card.fp32_flops
    assert card.supports("bf16") == (card.compute_capability >= 8)
    assert card.bf16_flops in (None, card.fp16_flops)
    assert (card.tf32_flops is None) == (card.compute_capability < 8)


FP16_OVER_FP32 = {7.0: 8, 7.5: 8, 8.0: 16, 8.6: 4, 8.9: 4, 9.0: 16, 10.0: 32, 12.0: 4}
"""Compute capability -> dense fp16 FLOP with fp32 accumulation on the tensor cores over fp32 FLOP, per SM and clock (NVIDIA's
architecture whitepapers: 1024 over 128 for Volta and Turing, 2048 over 128 for GA100, 1024 over 256 for GA10x, Ada and GB20x,
4096 over 256 for Hopper, 8192 over 256 for GB100)."""


# Catches a rate with structured sparsity, twice the dense one, and a GeForce's rate with fp16 accumulation, also twice: 1979e12
# for fp16_flops of h100-sxm (its datasheet's "with sparsity") makes the ratio 29.5, and 330.3e12 of rtx-4090 makes it 4.0.
# Data-centre cards run their tensor cores at a clock up to 13 % lower.
@pytest.mark.parametrize("card", load_catalog(), ids=lambda card: card.slug)
def test_sparse_rates_did_not_slip_in(card) -> None:
    halved = "GeForce" in card.name or card.slug == "l40"  # sold with half the rate of their chip
    ratio = FP16_OVER_FP32[card.compute_capability] / (2 if halved else 1)
    assert 0.86 * ratio < card.fp16_flops / card.fp32_flops < 1.04 * ratio
    assert card.tf32_flops is None or card.fp16_flops == pytest.approx(2 * card.tf32_flops, rel=0.03)


# Catches a rate of both directions (128e9 for 63e9), and of another generation or width of the bus (32e9 for rtx-4060-ti-16).
@pytest.mark.parametrize("card", load_catalog(), ids=lambda card: card.slug)
def test_the_bus_is_one_that_exists_in_one_direction(card) -> None:
    by_source = {"PCIe 3.0 x16": 16e9, "PCIe 4.0 x8": 16e9, "PCIe 4.0 x16": 32e9, "PCIe 5.0 x16": 63e9, "NVLink-C2C": 450e9}
    source = card.sources["pcie_bytes_per_second"]
    (rate,) = [rate for name, rate in by_source.items() if name in source]
    assert card.pcie_bytes_per_second == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize("name", ["rtx-4090", "RTX 4090", "nvidia geforce rtx 4090", "NVIDIA GeForce RTX 4090", "rtx4090"])
def test_a_card_answers_to_many_spellings(name: str) -> None:
    assert get_card(name).slug == "rtx-4090"


@pytest.mark.parametrize(
    ("driver_name", "slug"),
    [
        ("Tesla T4", "t4"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA L40S", "l40s"),
        ("Tesla V100-SXM2-16GB", "v100-16"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
    ],
)
def test_names_that_the_driver_reports_are_found(driver_name: str, slug: str) -> None:
    card = find_card(driver_name)
    assert card is not None
    assert card.slug == slug


def test_no_name_means_two_cards() -> None:
    for card in load_catalog():
        for name in (card.slug, card.name, *card.aliases):
            assert get_card(name).slug == card.slug


def test_an_unknown_card_lists_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Nearest: .*rtx-4090"):
        get_card("rtx-4095")
    assert {"a100-40", "a100-80"} <= set(nearest_names("a100"))
    assert "h100-sxm" in nearest_names("H100")


def test_a_file_without_sources_is_refused(tmp_path: Path) -> None:
    document = json.loads(get_card("t4").model_dump_json())
    del document["sources"]["fp32_flops"]
    path = tmp_path / "card.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ProfileError, match="fp32_flops"):
        load_gpu_profile(path)


def test_a_source_for_a_field_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    document = json.loads(get_card("t4").model_dump_json())
    document["sources"]["fp31_flops"] = "a typing error"
    path = tmp_path / "card.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ProfileError, match="fp31_flops"):
        load_gpu_profile(path)
