"""The slots that a step scores while their number grows."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from attfc_train.heads.attfc.head import AttFCHead
from attfc_train.heads.containers.container import IdentityContainer
from attfc_train.heads.containers.scored import STAGES, ScoredSlots
from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.margin import Margin
from attfc_train.losses.slots import Slots


@given(st.integers(1, 5000), st.floats(0.001, 1), st.integers(0, 300), st.integers(0, 400))
def test_the_piece_lies_in_the_container_and_never_shrinks(size: int, first: float, growing: int, step: int) -> None:
    """Catches a piece that runs over the end, and a growth that does not end with all slots."""
    scored = ScoredSlots(size, first, growing)
    now, later = scored.at(step), scored.at(step + 1)
    assert 0 <= now.start < now.stop <= size
    assert len(later) >= len(now)
    if step >= growing:
        assert now == range(size)


def test_the_number_grows_geometrically_from_the_first_share() -> None:
    """By hand: from 1 % to 100 % in 160 steps, half way it is 10 %."""
    scored = ScoredSlots(10_000, 0.01, 160)
    assert [len(scored.at(step)) for step in (0, 9, 80, 159, 160)] == [100, 100, 1000, round(10_000 * 0.01 ** (1 / 16)), 10_000]
    assert len({len(scored.at(step)) for step in range(200)}) == STAGES + 1


def test_all_slots_have_their_turn() -> None:
    """Catches a piece that is always the first, and slots at the end that are never scored."""
    scored = ScoredSlots(1000, 0.3, 10**6)
    turns = Counter(slot for step in range(400) for slot in scored.at(step))
    assert set(turns) == set(range(1000))
    assert min(turns.values()) > 60, "a fourth of 400 steps, give or take"


@pytest.mark.parametrize("dcc_size", [40, 12])
@pytest.mark.parametrize("batch_negatives", [False, True])
def test_against_logits_written_out(dcc_size: int, batch_negatives: bool) -> None:
    """Catches a positive that is lost with its slot, and new centers that are left out though their slot is not scored."""
    torch.manual_seed(0)
    container = IdentityContainer(40, dcc_size, 16, 3.3)
    for first in (0, 6):
        container.enqueue(normalize(torch.randn(6, 16), dim=1), torch.arange(first, first + 6), first)
    scored = ScoredSlots(dcc_size, 0.3, 10)
    head = AttFCHead(
        container,
        loss=IMPLEMENTATIONS["chunked"],
        num_references=1,
        scale=16.0,
        temperature=1.0,
        chunk=3,
        batch_negatives=batch_negatives,
        scored=scored,
    )
    features, references = torch.randn(4, 16), torch.randn(1, 4, 16)
    labels = torch.tensor([1, 7, 30, 7])
    margin = Margin("cosface", 0.1)
    for step in (0, 3, 10):
        weights = head.begin_step(labels, step)
        loss = head(features, references, labels, weights, margin).loss
        query, fresh = normalize(features, dim=1), normalize(references[0], dim=1)
        positive = container.positive(query, fresh, labels)
        slots = [slot for slot in scored.at(step) if container.slot_labels[slot] >= 0]
        inside = {int(container.slot_labels[slot]) for slot in slots}
        total = 0.0
        for b, label in enumerate(labels.tolist()):
            negatives = [container.centers.values[slot] for slot in slots if container.slot_labels[slot] != label]
            if batch_negatives:
                others = [i for i, other in enumerate(labels.tolist()) if other not in inside and other != label]
                negatives += [fresh[i] for i in others]
            logits = torch.stack([query[b] @ positive[b] - 0.1, *(query[b] @ negative for negative in negatives)]) * 16
            total += float(torch.logsumexp(logits, 0) - logits[0]) / 4
        assert float(loss) == pytest.approx(total, rel=1e-5)


def test_a_piece_is_a_view() -> None:
    """Catches a copy of the container at every step."""
    container = IdentityContainer(10, 10, 4, 1, "int8")
    slots = Slots(container.centers.values, container.centers.scales, container.slot_labels.copy_(torch.arange(10)))
    piece = container.slots_within(range(3, 7))
    assert piece.values.data_ptr() == slots.values[3].data_ptr()
    assert piece.size == 4
    assert piece.labels is not None
    assert piece.labels.tolist() == [3, 4, 5, 6]
    assert piece.scales is not None
    assert torch.equal(piece.scales, slots.scales[3:7] if slots.scales is not None else torch.empty(0))
