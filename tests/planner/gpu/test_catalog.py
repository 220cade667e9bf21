from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from attfc_planner.gpu.catalog import get_card, load_catalog, load_gpu_profile
from attfc_planner.gpu.fingerprint import reserved_by_driver
from attfc_train.errors import ProfileError
from attfc_train.units import GIB, MIB
from tests.planner.gpu.seen_capacities import CUDA_GIB, DRIVER_MIB


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
    assert 5 * GIB < card.capacity_bytes < 200 * GIB
    assert 0.15e12 < card.memory_bandwidth_bytes_per_second < 10e12
    assert 4e12 < card.fp32_flops < 200e12
    assert card.supports("fp16") == (card.compute_capability >= 7)
    assert card.supports("bf16") == (card.compute_capability >= 8)
    assert card.bf16_flops in (None, card.fp16_flops)
    assert (card.tf32_flops is None) == (card.compute_capability < 8)


# Catches nvidia-smi's total for a capacity, and the capacity of an old driver where a newer one keeps more.
@pytest.mark.parametrize("slug", CUDA_GIB)
def test_a_capacity_is_not_more_than_cuda_was_seen_to_offer(slug: str) -> None:
    card = get_card(slug)
    for figure, source in CUDA_GIB[slug]:
        # A figure with two decimals may stand for 0.005 GiB less; it is a whole number of MiB at least.
        assert card.capacity_bytes < (figure - 0.005) * GIB + MIB, source
    assert card.capacity_bytes > 0.97 * min(figure for figure, _ in CUDA_GIB[slug]) * GIB


# Catches a rule with 384 MiB in place of 512: A100 80 GB, T4 and RTX 4090 keep more than that.
@pytest.mark.parametrize("slug", DRIVER_MIB)
def test_the_rule_holds_what_drivers_were_seen_to_keep(slug: str) -> None:
    total = DRIVER_MIB[slug] * MIB
    assert total - reserved_by_driver(total) <= (min(figure for figure, _ in CUDA_GIB[slug]) - 0.005) * GIB


# Catches a profile whose capacity is neither a figure that was seen nor the rule's.
@pytest.mark.parametrize("card", load_catalog(), ids=lambda card: card.slug)
def test_a_capacity_follows_from_its_source(card) -> None:
    source = card.sources["capacity_bytes"]
    if seen := re.search(r"(\d+\.\d\d) GiB", source):
        assert card.capacity_bytes == pytest.approx(float(seen.group(1)) * GIB, abs=0.006 * GIB)
        return
    assert "less the 512 MiB + 0.5 %" in source
    if logged := re.search(r"(\d+) MiB,", source):
        total = int(logged.group(1)) * MIB
    else:
        nominal = re.search(r"datasheet, (\d+) GB", source)
        assert nominal is not None
        total = round(int(nominal.group(1)) * GIB * 159 / 160 * (15 / 16 if "with ECC" in source else 1))
    assert card.capacity_bytes == pytest.approx(total - reserved_by_driver(total), abs=1.01 * MIB)


@pytest.mark.parametrize(
    ("slug", "fp32", "bandwidth", "watts"),
    [
        ("v100-16", 15.7, 900, 300),
        ("v100-pcie-16", 14.0, 900, 250),
        ("v100-32", 15.7, 900, 300),
        ("v100-pcie-32", 14.0, 900, 250),
        ("a100-80", 19.5, 2039, 400),
        ("a100-pcie-80", 19.5, 1935, 300),
        ("a100-pcie-40", 19.5, 1555, 250),
        ("b200", 75, 7700, 1000),
        ("rtx-pro-6000-blackwell", 125, 1792, 600),
        ("rtx-pro-6000-blackwell-server", 120, 1597, 600),
    ],
)
def test_forms_of_a_card_have_figures_of_their_own(slug: str, fp32: float, bandwidth: float, watts: float) -> None:
    """Catches the SXM card's figures under the name of the PCIe card, as they once were."""
    card = get_card(slug)
    assert (card.fp32_flops, card.memory_bandwidth_bytes_per_second) == (fp32 * 1e12, bandwidth * 1e9)
    assert card.max_power_watts == watts


FP16_OVER_FP32 = {7.0: 8, 7.5: 8, 8.0: 16, 8.6: 4, 8.9: 4, 9.0: 16, 10.0: 32, 12.0: 4}
"""Compute capability -> dense fp16 FLOP with fp32 accumulation on the tensor cores over fp32 FLOP, per SM and clock (NVIDIA's
architecture whitepapers: 1024 over 128 for Volta and Turing, 2048 over 128 for GA100, 1024 over 256 for GA10x, Ada and GB20x,
4096 over 256 for Hopper, 8192 over 256 for GB100)."""


# Catches a rate with structured sparsity, twice the dense one, and a GeForce's rate with fp16 accumulation, also twice: 1979e12
# for fp16_flops of h100-sxm (its datasheet's "with sparsity") makes the ratio 29.5, and 330.3e12 of rtx-4090 makes it 4.0.
# Data-centre cards run their tensor cores at a clock up to 13 % lower.
@pytest.mark.parametrize("card", [card for card in load_catalog() if card.supports("fp16")], ids=lambda card: card.slug)
def test_sparse_rates_did_not_slip_in(card) -> None:
    halved = "GeForce" in card.name or card.slug in ("l20", "l40")  # sold with half the rate of their chip
    ratio = FP16_OVER_FP32[card.compute_capability] / (2 if halved else 1)
    if card.slug == "h20":  # sold with a fifth
        ratio = 148 / 44
    assert 0.86 * ratio < card.fp16_flops / card.fp32_flops < 1.04 * ratio
    assert card.tf32_flops is None or card.fp16_flops == pytest.approx(2 * card.tf32_flops, rel=0.03)


# Catches a rate of both directions (128e9 for 63e9), and of another generation or width of the bus (32e9 for rtx-4060-ti-16).
@pytest.mark.parametrize("card", load_catalog(), ids=lambda card: card.slug)
def test_the_bus_is_one_that_exists_in_one_direction(card) -> None:
    by_source = {"PCIe 3.0 x16": 16e9, "PCIe 4.0 x8": 16e9, "PCIe 4.0 x16": 32e9, "PCIe 5.0 x8": 32e9}
    by_source |= {"PCIe 5.0 x16": 63e9, "NVLink-C2C": 450e9}
    source = card.sources["pcie_bytes_per_second"]
    (rate,) = [rate for name, rate in by_source.items() if name in source]
    assert card.pcie_bytes_per_second == pytest.approx(rate, rel=0.02)


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
