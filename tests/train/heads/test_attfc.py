"""The head's own part: what a sample is scored against besides the container."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from attfc_train.heads.attfc import AttFCHead
from attfc_train.heads.container import IdentityContainer
from attfc_train.losses import IMPLEMENTATIONS, Margin


def test_new_centers_of_absent_identities_are_negatives_of_the_others() -> None:
    """Against logits written out: identities 7 and 8 hold slots, 3 and 4 come with this batch, 3 twice."""
    torch.manual_seed(0)
    losses = {}
    features, references = torch.randn(5, 16), torch.randn(1, 5, 16)
    stored = normalize(torch.randn(2, 16), dim=1)
    labels = torch.tensor([7, 3, 4, 3, 8])
    for batch_negatives in (False, True):
        container = IdentityContainer(10, 4, 16, 1)
        container.enqueue(stored, torch.tensor([7, 8]), 0)
        head = AttFCHead(
            container,
            loss=IMPLEMENTATIONS["chunked"],
            num_references=1,
            scale=16.0,
            temperature=1.0,
            chunk=3,
            batch_negatives=batch_negatives,
        )
        weights = head.begin_step(labels, 1)
        losses[batch_negatives] = head(features, references, labels, weights, Margin("cosface", 0.1)).loss
    query, centers = normalize(features, dim=1), normalize(references[0], dim=1)
    for batch_negatives, loss in losses.items():
        total = 0.0
        for b, label in enumerate(labels.tolist()):
            negatives = [stored[i] for i, held in enumerate((7, 8)) if held != label]
            if batch_negatives:
                negatives += [centers[i] for i, other in enumerate(labels.tolist()) if other in (3, 4) and other != label]
            logits = torch.stack([query[b] @ centers[b] - 0.1, *(query[b] @ negative for negative in negatives)]) * 16
            total += float(torch.logsumexp(logits, 0) - logits[0]) / 5
        torch.testing.assert_close(loss, torch.tensor(total))


def test_batch_negatives_are_those_of_the_micro_batch() -> None:
    """A whole batch has more of them than its halves, unless everybody holds a slot."""
    torch.manual_seed(0)
    container = IdentityContainer(6, 6, 16, 1)
    head = AttFCHead(
        container,
        loss=IMPLEMENTATIONS["chunked"],
        num_references=1,
        scale=16.0,
        temperature=1.0,
        chunk=3,
        batch_negatives=True,
    )
    features, references, labels = torch.randn(6, 16), torch.randn(1, 6, 16), torch.arange(6)
    weights, margin = torch.full((6,), 1 / 6), Margin("cosface", 0.1)

    def losses() -> tuple[float, float]:
        halves = [slice(0, 3), slice(3, 6)]
        parts = [head(features[half], references[:, half], labels[half], weights[half], margin).loss for half in halves]
        return float(head(features, references, labels, weights, margin).loss), float(sum(parts))

    whole, parts = losses()
    assert whole > parts * 1.05
    container.enqueue(normalize(torch.randn(6, 16), dim=1), labels, 0)
    whole, parts = losses()
    assert whole == pytest.approx(parts)
