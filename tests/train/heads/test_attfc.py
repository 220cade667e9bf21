"""The head's own part: what a sample is scored against besides the container."""

from __future__ import annotations

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
