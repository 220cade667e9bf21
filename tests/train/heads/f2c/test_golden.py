"""The head reproduces what the authors' released step computes, and the oracle what their cache does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.heads.containers.writes import commit
from attfc_train.heads.f2c.head import F2CHead
from attfc_train.heads.f2c.pool import ClassPool
from attfc_train.heads.f2c.scoring import Rule
from attfc_train.losses.margin import Margin, MarginKind
from tests.oracle.f2c_oracle import LruOracle

NUM_IDS = 64
KINDS: dict[str, tuple[MarginKind, float | None]] = {"am": ("cosface", None), "arc": ("arcface", None), "sv": ("cosface", 1.2)}
"""The released name of a loss -> margin, and t of support vectors."""


def files() -> list[str]:
    """Every recorded run of the released step that is there, of any seed."""
    folder = Path(__file__).resolve().parents[5] / "shared" / "golden" / "family"
    return sorted(path.stem for path in folder.glob("ffc_*.npz") if path.stem.split("_")[1] in KINDS) or ["ffc_am"]


@pytest.mark.parametrize("name", files())
@pytest.mark.parametrize("chunk", [5, 64])
def test_released_step(golden: Path, name: str, chunk: int) -> None:
    """Catches a pool edited after scoring, views without row 1, and any other margin, mean or order of eviction."""
    record = np.load(golden / "family" / f"{name}.npz")
    kind, support = KINDS[name.split("_")[1]]
    margin = Margin(kind, float(record["margin"]), "exact")
    pool = ClassPool(NUM_IDS, record["queue0"].shape[1], record["queue0"].shape[2])
    pool.centers.values.copy_(torch.from_numpy(record["queue0"]).flatten(0, 1))
    head = F2CHead(pool, Rule(float(record["scale"]), support, int(record["hard_neg"]), chunk))
    assert int(record["steps"]) >= 5
    gallery = torch.from_numpy(record["w0"])
    for step in range(int(record["steps"])):
        probe = torch.from_numpy(record["w0"] if step == 0 else record[f"probe_w_{step - 1}"])
        gallery = torch.lerp(gallery, probe, 1 - float(record["encoder_momentum"]))
        check_step(head, record, step, probe, gallery, margin)


def check_step(head: F2CHead, record: Any, step: int, probe: Tensor, gallery: Tensor, margin: Margin) -> None:
    halves = [torch.from_numpy(record[f"{half}_{step}"]) for half in "xy"]
    labels = [torch.from_numpy(record[f"{half}_label_{step}"]) for half in "xy"]
    weight = probe.clone().requires_grad_()
    shares = head.begin_step(torch.cat(labels), step).chunk(2)
    outputs = []
    for own, name in ((0, "rollback"), (1, "keep")):
        references = (halves[1 - own] @ gallery.t())[None]
        both = torch.stack([labels[own], labels[1 - own]])
        located = head.pool.locate(both[0], head.pool.edits(both[1]))
        slots = torch.where(located.inside, located.slot, -1)
        np.testing.assert_array_equal(slots, record[f"slots_{name}_{step}"])
        output = head(halves[own] @ weight.t(), references, both, shares[own], margin)
        np.testing.assert_allclose(output.loss.item(), record[f"loss_{name}_{step}"], rtol=0, atol=2e-5)
        outputs.append(output)
    (gradient,) = torch.autograd.grad(outputs[0].loss + outputs[1].loss, weight)
    np.testing.assert_allclose(gradient, record[f"grad_w_{step}"], rtol=0, atol=2e-5)
    centers = torch.cat([output.centers for output in outputs])
    torch.testing.assert_close(centers[len(halves[0]) :], normalize(halves[0] @ gallery.t(), dim=1))
    commit(head.prepare_enqueue(centers, torch.cat(labels), step).writes)
    check_pool(head.pool, record, step)


def check_pool(pool: ClassPool, record: Any, step: int) -> None:
    np.testing.assert_allclose(pool.centers.values.view(2, pool.size, -1), record[f"queue_{step}"], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(pool.next_row, record[f"next_row_{step}"])
    newest_first = pool.recency.argsort(descending=True)
    held = newest_first[pool.slot_labels[newest_first] >= 0]
    lru = torch.stack([pool.slot_labels[held], held], dim=1)
    np.testing.assert_array_equal(lru, record[f"lru_{step}"])
    slot, resident = pool.find(lru[:, 0])
    assert resident.all()
    assert torch.equal(slot, held)
    assert int((pool.slot_of >= 0).sum()) == len(lru)


def test_the_oracle_is_the_released_cache(golden: Path) -> None:
    record = np.load(golden / "family" / "ffc_lru.npz")
    cache = LruOracle(int(record["capacity"]))
    before: list[dict[int, int]] = []
    for (operation, key), returned, state in zip(record["ops"].tolist(), record["returns"], record["states"], strict=True):
        if operation == 2:
            before.append(dict(cache.held))
        if operation == 3:
            cache.held = before[-key]
            del before[-key:]
        else:
            assert returned == (cache.view(key) if operation == 1 else cache.get(key)[0])
        if operation != 2:
            assert [number for entry in cache.newest_first() for number in entry] == state[state >= 0].tolist()
