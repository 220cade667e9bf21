"""From a name that people type, or that a driver reports, to a card of the catalogue: the one, a choice, or a refusal."""

from __future__ import annotations

import re

import pytest

from attfc_planner.gpu.catalog import cards_called, find_card, get_card, load_catalog, nearest_names
from attfc_train.errors import UsageError
from attfc_train.units import MIB


@pytest.mark.parametrize(
    "name", ["rtx-4090", "RTX 4090", "nvidia geforce rtx 4090", "NVIDIA GeForce RTX 4090", "rtx4090", "4090"]
)
def test_a_card_answers_to_many_spellings(name: str) -> None:
    assert get_card(name).slug == "rtx-4090"


@pytest.mark.parametrize(
    ("typed", "slug"),
    [
        ("RTX 4060", "rtx-4060"),
        ("4060 ti 16gb", "rtx-4060-ti-16"),
        ("RTX 3060 12 GB", "rtx-3060-12"),
        ("rtx 4070 super", "rtx-4070-super"),
        ("RTX 4070 Ti Super", "rtx-4070-ti-super"),
        ("4080S", None),
        ("RTX 4090D", "rtx-4090-d"),
        ("GTX 1080 Ti", "gtx-1080-ti"),
        ("Titan RTX", "titan-rtx"),
        ("Quadro RTX 8000", "quadro-rtx-8000"),
        ("A6000", "rtx-a6000"),
        ("6000 Ada", "rtx-6000-ada"),
        ("H100 NVL", "h100-nvl"),
        ("h100 pcie", "h100-pcie"),
        ("H20", "h20"),
        ("L40", "l40"),
        ("V100 SXM2 32GB", "v100-32"),
    ],
)
def test_words_that_people_leave_out_may_be_left_out(typed: str, slug: str | None) -> None:
    card = find_card(typed)
    assert (card.slug if card else None) == slug


@pytest.mark.parametrize(
    ("driver_name", "slug"),
    [
        ("Tesla T4", "t4"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA L40S", "l40s"),
        ("Tesla V100-SXM2-16GB", "v100-16"),
        ("Tesla V100-PCIE-16GB", "v100-pcie-16"),
        ("Tesla V100-PCIE-32GB", "v100-pcie-32"),
        ("Tesla P100-PCIE-16GB", "p100-16"),
        ("Quadro RTX 6000", "quadro-rtx-6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtx-pro-6000-blackwell-max-q"),
        ("NVIDIA RTX A2000 12GB", "rtx-a2000-12"),
    ],
)
def test_names_that_the_driver_reports_are_found(driver_name: str, slug: str) -> None:
    card = find_card(driver_name)
    assert card is not None
    assert card.slug == slug


@pytest.mark.parametrize(
    ("driver_name", "total_mib", "slug"),
    [
        ("NVIDIA GeForce RTX 3060", 12288, "rtx-3060-12"),
        ("NVIDIA GeForce RTX 3060", 8192, "rtx-3060-8"),
        ("NVIDIA GeForce RTX 3080", 10240, "rtx-3080-10"),
        ("NVIDIA GeForce RTX 3080", 12288, "rtx-3080-12"),
        ("NVIDIA GeForce RTX 4060 Ti", 16380, "rtx-4060-ti-16"),
        ("NVIDIA RTX A2000", 6138, "rtx-a2000-6"),
        ("NVIDIA GeForce RTX 3060", 24576, None),
    ],
)
def test_memory_tells_apart_what_the_driver_calls_the_same(driver_name: str, total_mib: int, slug: str | None) -> None:
    card = find_card(driver_name, total_mib * MIB)
    assert (card.slug if card else None) == slug


def test_no_name_means_two_cards() -> None:
    for card in load_catalog():
        for name in (card.slug, card.name, *card.aliases):
            assert get_card(name).slug == card.slug


@pytest.mark.parametrize(
    ("typed", "slugs"),
    [
        ("RTX 3060", {"rtx-3060-8", "rtx-3060-12"}),
        ("NVIDIA GeForce RTX 3060", {"rtx-3060-8", "rtx-3060-12"}),
        ("RTX 4060 Ti", {"rtx-4060-ti-8", "rtx-4060-ti-16"}),
        ("5060ti", {"rtx-5060-ti-8", "rtx-5060-ti-16"}),
        ("RTX 3080", {"rtx-3080-10", "rtx-3080-12"}),
        ("RTX 2060", {"rtx-2060-6", "rtx-2060-12"}),
        ("RTX 3050", {"rtx-3050-6", "rtx-3050-8"}),
        ("RTX A2000", {"rtx-a2000-6", "rtx-a2000-12"}),
        ("V100", {"v100-16", "v100-pcie-16", "v100-32", "v100-pcie-32"}),
        ("A100", {"a100-40", "a100-pcie-40", "a100-80", "a100-pcie-80"}),
        ("A100 PCIe", {"a100-pcie-40", "a100-pcie-80"}),
        ("H100", {"h100-sxm", "h100-pcie", "h100-nvl"}),
        ("P100", {"p100-12", "p100-16", "p100-sxm2"}),
        ("RTX 5000", {"quadro-rtx-5000", "rtx-5000-ada"}),
    ],
)
def test_a_name_that_stands_for_several_cards_is_refused_with_all_of_them(typed: str, slugs: set[str]) -> None:
    assert {card.slug for card in cards_called(typed)} == slugs
    with pytest.raises(UsageError) as refused:
        get_card(typed)
    for slug in slugs:
        assert f"{slug} (" in str(refused.value)
    assert find_card(typed) is None


# Catches the driver's 'NVIDIA GeForce RTX 3060' as an alias of one of the two cards that are sold as such.
def test_no_card_owns_the_name_of_a_model_that_is_sold_with_two_sizes_of_memory() -> None:
    sizes: dict[str, list[int]] = {}
    for card in load_catalog():
        sizes.setdefault(re.sub(r" \d+ GB.*", "", card.name), []).append(card.capacity_bytes)
    twofold = [model for model, found in sizes.items() if max(found) > 1.1 * min(found)]
    assert len(twofold) >= 9
    for model in twofold:
        assert find_card(model) is None


def test_an_unknown_card_lists_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"Nearest: .*rtx-4090"):
        get_card("rtx-4095")
    assert {"a100-40", "a100-80"} <= set(nearest_names("a100"))
    assert "h100-sxm" in nearest_names("H100")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            (
                "RTX 4090 Laptop",
                "RTX 4050",
                "RTX 3500 Ada",
                "MX450",
                "NVIDIA GeForce RTX 4090 Laptop GPU",
                "RTX 3080 Mobile",
                "GTX 1080 with Max-Q Design",
                "RTX 2070 Max-Q",
                "3070 Ti M",
            ),
            "a laptop's chip",
        ),
        (("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "GRID A100-10C", "NVIDIA A40-48Q", "a100 1g.5gb"), "a part of one"),
        (("Jetson AGX Orin", "GB10"), "shares its processor's"),
        (("MI300X", "RX 7900 XTX", "Radeon VII", "AMD Instinct MI210", "W7900"), "AMD's"),
        (("M3 Max", "m2", "mps", "Apple M4 Pro", "MacBook Pro"), "Apple's"),
        (("Arc A770", "Intel Gaudi 3", "xpu"), "Intel's"),
        (("TPU v5e", "tpu-v4", "Trainium 2", "Ascend 910B"), "TPU"),
    ],
)
def test_other_devices_are_refused_by_their_kind_and_not_as_the_nearest_card(names: tuple[str, ...], said: str) -> None:
    for name in names:
        assert find_card(name) is None
        with pytest.raises(UsageError) as refused:
            get_card(name)
        assert said in str(refused.value), name
        assert "Nearest" not in str(refused.value)


def test_no_card_of_the_catalogue_is_taken_for_another_device() -> None:
    for card in load_catalog():
        for name in (card.slug, card.name, *card.aliases):
            assert get_card(name) is card
    for name in ("Tesla M40", "M60", "Quadro M4000", "A16"):  # NVIDIA's, though not in the catalogue
        with pytest.raises(UsageError, match="Nearest"):
            get_card(name)
