"""The Triton passes over a learned layer against the chunked ones, under triton's interpreter or on a CUDA device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from attfc_train.heads.learned.layer import LearnedLayer
from attfc_train.losses.card import Card
from attfc_train.losses.learning import Descent
from attfc_train.losses.margin import Margin
from attfc_train.rounding import StorageType
from tests.train.heads.learned_heads import layer_of, make_step, rows_of

pytest.importorskip("triton", reason="needs triton, which CUDA builds of torch bring")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TURING = Card(75, 64 * 1024)
CASES = [
    ("fp32", True, 0.0, None),
    ("fp32", False, 0.4, 0.5),
    ("bf16", True, 0.4, None),
    ("fp8", False, 0.0, 0.5),
    ("int8", True, 0.0, 0.5),
    ("int8", False, 0.4, None),
]
"""Storage, momentum, filter, sample rate."""


def moved(passes: str, storage: StorageType, momentum: bool, interclass_filter: float, sample_rate: float | None) -> Any:
    layer = layer_of(
        21, 20, storage, momentum=momentum, interclass_filter=interclass_filter, sample_rate=sample_rate, passes=passes
    ).to(DEVICE)
    features = torch.randn(9, 20, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    labels = torch.tensor([3, 20, 3, 0, 7, 7, 8, 19, 1], device=DEVICE)
    before = rows_of(layer)
    loss, gradient, _ = make_step(layer, features, labels, 5, Margin("arcface", 0.5), Descent(2e-4, 0.9, 0.01))
    return layer, loss, gradient, rows_of(layer) - before


def states(layers: list[LearnedLayer]) -> list[tuple[Tensor, Tensor]]:
    return [(left.float(), right.float()) for left, right in zip(*(each.state_dict().values() for each in layers), strict=True)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_fp32_both_round_alike(case: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same noise: but for a few components at the edge all bits are the same. Catches another hash, scale or order."""
    from attfc_train.losses import learning_triton, triton

    if not triton.INTERPRETED:
        pytest.skip("needs triton's interpreter, which is not used beside a CUDA device")
    for module in (triton, learning_triton):
        monkeypatch.setattr(module, "card_of", lambda _: TURING)
    results = [moved(passes, *case) for passes in ("chunked", "triton")]
    layers, losses, gradients, moves = zip(*results, strict=True)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)
    for left, right in states(list(layers)):
        close = torch.isclose(left, right, rtol=1e-3, atol=1e-5 * float(left.abs().max()))
        assert close.double().mean() > 0.99
    assert moves[0].abs().max() > 0


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operands_of_16_bits_turn_rows_alike(case: Any) -> None:
    _, losses, gradients, moves = zip(*(moved(passes, *case) for passes in ("chunked", "triton")), strict=True)
    torch.testing.assert_close(*losses, rtol=0.02, atol=0.02)
    assert (gradients[0] - gradients[1]).norm() <= 0.03 * gradients[0].norm()
    noise = 0.02 if case[0] == "fp32" else 0.5  # a component rounded the other way is off by a whole quantum
    assert (moves[0] - moves[1]).norm() <= noise * moves[0].norm()


def test_an_overflow_leaves_every_value() -> None:
    for storage in ("fp32", "fp8"):
        layer = layer_of(21, 20, storage, passes="triton").to(DEVICE)
        before = {name: value.float() for name, value in layer.state_dict().items()}
        labels = torch.arange(3, device=DEVICE)
        features = torch.full((3, 20), torch.nan, device=DEVICE)
        layer(features, torch.empty(0), labels, layer.begin_step(labels, 1), Margin("cosface", 0.4))
        for write in layer.prepare_learning(Descent(0.1, 0.9, 0.01, torch.ones((), device=DEVICE)), 1):
            write.make()
        for name, value in layer.state_dict().items():
            assert torch.equal(value.float(), before[name]), name


COMPILED = [(75, "fp8", 512), (80, "bf16", 512), (86, "fp32", 512), (89, "int8", 128), (90, "int8", 512), (100, "fp8", 512)]
COMPILED += [(120, "int8", 1024)]
CHILD = """
import json, sys
from benchmarks.loss_configurations import CARDS, compiled_learning
cards = {card.capability: card for card in CARDS}
settings = json.loads(sys.argv[1])
print(json.dumps([compiled_learning(cards[capability], storage, dim) for capability, storage, dim in settings]))
"""


def test_the_second_pass_compiles_and_fits() -> None:
    """Catches blocks that need more shared memory than a card has. fp32 products spill registers, which costs time."""
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", CHILD, json.dumps(COMPILED)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    for setting, row in zip(COMPILED, json.loads(child.stdout), strict=True):
        assert row["shared_bytes"] <= row["limit_bytes"], (setting, row)
        assert row["stack_bytes"] <= (256 if setting[1:] == ("int8", 512) else 1024), (setting, row)


@pytest.mark.parametrize(("capability", "storage", "dim"), list(product((75, 80, 120), ("fp32", "int8"), (128, 512, 1024))))
def test_all_but_one_setting_has_a_kernel(capability: int, storage: str, dim: int) -> None:
    from attfc_train.losses.learning_triton import supports
    from benchmarks.loss_configurations import CARDS, STORAGES

    card = next(card for card in CARDS if card.capability == capability)
    assert supports(dim, STORAGES[storage], card) == ((capability, dim) != (75, 1024))
