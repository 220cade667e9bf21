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


@pytest.mark.parametrize("card", load_catalog(), ids=lambda card: card.slug)
def test_sparse_rates_did_not_slip_in(card) -> None:
    assert card.fp16_flops <= 30 * card.fp32_flops
    assert card.tf32_flops is None or card.fp16_flops == pytest.approx(2 * card.tf32_flops, rel=0.03)


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
