"""The head against its oracle: every loss, pools that are too small for a batch, any storage, batches in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.heads.containers.writes import commit
from attfc_train.heads.f2c.head import F2CHead
from attfc_train.heads.f2c.pool import ClassPool
from attfc_train.heads.f2c.scoring import Rule
from attfc_train.losses.margin import Margin
from tests.oracle.f2c_oracle import PoolOracle, pass_loss

NUM_IDS, DIM, HALF = 30, 8, 6
MARGINS = {
    "am": Margin("cosface", 0.4),
    "arc": Margin("arcface", 0.5, "exact"),
    "sv": Margin("cosface", 0.4),
}


def made_head(size: int, kind: str = "am", scale: float = 32.0, chunk: int = 7, storage: Any = "fp32") -> F2CHead:
    torch.manual_seed(0)
    pool = ClassPool(NUM_IDS, size, DIM, storage)
    return F2CHead(pool, Rule(scale, 1.2 if kind == "sv" else None, min(3, size), chunk))


def oracle_of(head: F2CHead) -> PoolOracle:
    rows = torch.arange(2 * head.pool.size)
    return PoolOracle(head.pool.centers.read(rows).view(2, head.pool.size, -1).double().numpy())


def halves(seed: int, num_ids: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features [2, b, D] of both encoders, and labels [2, b]: two thirds of a half are the other half's identities."""
    generator = torch.Generator().manual_seed(seed)
    features, references = torch.randn(2, 2, HALF, DIM, generator=generator)
    labels = torch.randint(0, num_ids, (2, HALF), generator=generator)
    labels[1, : HALF * 2 // 3] = labels[0, : HALF * 2 // 3]
    return features, references, labels


def pass_of(head: F2CHead, probe: Tensor, reference: Tensor, labels: Tensor, margin: Margin) -> tuple[Tensor, Tensor]:
    leaf = probe.clone().requires_grad_()
    output = head(leaf, reference[None], labels, torch.full((len(probe),), 0.5 / len(probe)), margin)
    return output.loss.detach(), torch.autograd.grad(output.loss, leaf)[0]


def oracle_pass(
    pool: PoolOracle, probe: Tensor, reference: Tensor, labels: Tensor, kind: str, rule: Rule
) -> tuple[Tensor, Tensor]:
    """Edit the pool, score, and return loss and gradient."""
    again = pool.enqueue(normalize(reference, dim=1).double().numpy(), labels[1].tolist())
    leaf = probe.double().requires_grad_()
    slots = [pool.lru.view(label) for label in labels[0].tolist()]
    views = pool.views(again)
    loss = pass_loss(normalize(leaf, dim=1), slots, views, kind, MARGINS[kind].margin, rule.scale, rule.num_hardest)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@given(st.sampled_from(sorted(MARGINS)), st.integers(1, NUM_IDS), st.integers(0, 2**30), st.sampled_from([8.0, 32.0, 120.0]))
@settings(max_examples=60)
def test_two_passes_a_step_are_those_of_the_oracle(kind: str, size: int, seed: int, scale: float) -> None:
    """Catches a pass that leaves its edits, a support vector counted twice, and NaN where nobody is in the pool."""
    head = made_head(size, kind, scale)
    oracle = oracle_of(head)
    for step in range(4):
        features, references, labels = halves(seed + step, NUM_IDS if size > 6 else 8)
        before = {name: buffer.clone() for name, buffer in head.named_buffers()}
        undone = oracle.copy()
        for pool, own in ((undone, 0), (oracle, 1)):
            both = labels if own == 0 else labels.flip(0)
            actual = pass_of(head, features[own], references[1 - own], both, MARGINS[kind])
            expected = oracle_pass(pool, features[own], references[1 - own], both, kind, head.rule)
            torch.testing.assert_close(actual[0].double(), expected[0], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(actual[1].double(), expected[1], rtol=1e-3, atol=1e-3 * scale / 32)
        assert all(torch.equal(buffer, before[name]) for name, buffer in head.named_buffers())
        centers = normalize(references, dim=2).flip(0).flatten(0, 1)  # the first half is scored against the second's
        commit(head.prepare_enqueue(centers, labels.flatten(), step).writes)
        check_pool(head.pool, oracle)


def check_pool(pool: ClassPool, oracle: PoolOracle) -> None:
    np.testing.assert_allclose(pool.centers.values.view(2, pool.size, -1), oracle.rows, rtol=0, atol=1e-6)
    assert pool.next_row.tolist() == oracle.next_row
    labels = torch.arange(NUM_IDS)
    slot, resident = pool.find(labels)
    assert torch.where(resident, slot, -1).tolist() == [oracle.lru.view(label) for label in labels.tolist()]
    newest_first = pool.recency.argsort(descending=True)[: len(oracle.lru.held)]
    assert list(zip(pool.slot_labels[newest_first].tolist(), newest_first.tolist(), strict=True)) == oracle.lru.newest_first()


@pytest.mark.parametrize("storage", ["bf16", "fp8", "int8"])
def test_narrow_rows_score_as_what_they_hold(storage: str) -> None:
    """Catches scales of row 1 taken for row 0's, and hardest slots read without them."""
    head = made_head(9, storage=storage)
    for step in range(3):
        features, references, labels = halves(step, NUM_IDS)
        centers = normalize(references, dim=2).flip(0).flatten(0, 1)
        commit(head.prepare_enqueue(centers, labels.flatten(), step).writes)
    wide = made_head(9)
    wide.load_state_dict({name: value for name, value in head.state_dict().items() if "centers" not in name}, strict=False)
    wide.pool.centers.values.copy_(head.pool.centers.read(torch.arange(18)))
    features, references, labels = halves(7, NUM_IDS)
    narrow, expected = (pass_of(each, features[0], references[1], labels, MARGINS["am"]) for each in (head, wide))
    torch.testing.assert_close(narrow, expected, rtol=1e-5, atol=1e-5)


def test_a_part_counts_for_its_share_of_a_half() -> None:
    """Catches parts that each count in full: the gradient would grow with ``optim.accumulation``."""
    head = made_head(9)
    features, references, labels = halves(1, NUM_IDS)
    whole = head(features[0], references[1][None], labels, torch.full((HALF,), 0.5 / HALF), MARGINS["am"]).loss
    parts = [
        head(features[0, part], references[1][None, part], labels[:, part], torch.full((3,), 0.5 / HALF), MARGINS["am"]).loss
        for part in (slice(0, 3), slice(3, 6))
    ]
    each = [
        head(features[0, part], references[1][None, part], labels[:, part], torch.full((3,), 0.5 / 3), MARGINS["am"]).loss
        for part in (slice(0, 3), slice(3, 6))
    ]
    torch.testing.assert_close(sum(parts), sum(each) / 2)
    assert float(sum(parts)) == pytest.approx(float(whole), rel=0.5)


def test_the_log_tells_who_is_outside() -> None:
    """Catches a share of the wrong half, and one that is taken before the edits."""
    head = made_head(20)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 9, 8])
    enqueue = head.prepare_enqueue(normalize(torch.randn(8, DIM), dim=1), labels, 0)
    assert enqueue.observed["outside_share"] == 0.5
    commit(enqueue.writes)
    values = head.health(1, enqueue.observed).values
    assert (values["filled_slots"], values["identities_held"], values["conflict_share"]) == (4, 4, 0)
