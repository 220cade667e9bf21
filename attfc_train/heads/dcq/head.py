"""Dynamic Class Queue (DCQ, arXiv 2105.11113): AttFC's ring with one reference, and without what AttFC adds.

Everything is `AttFCHead`'s (docs/methods.md, "DCQ"):

* The attention over a single reference is 1, so a new center is that image's class-encoder feature.
* A step is scored against the ring as it was found; the new centers of a batch are no negatives of each other.
* The slots of a query's own identity have probability exactly 0.
"""

from __future__ import annotations

from functools import partial

import torch

from attfc_train.heads.attfc.head import AttFCHead, chosen_loss
from attfc_train.heads.containers.container import FifoContainer
from attfc_train.heads.containers.staleness import StalenessWatch, stale_text
from attfc_train.heads.dcq.settings import DCQSettings
from attfc_train.heads.kinds import HeadSite


def build(settings: DCQSettings, site: HeadSite, device: torch.device) -> AttFCHead:
    """Build the head for a run."""
    return AttFCHead(
        loss=chosen_loss(settings, site, device),
        container=FifoContainer(settings.num_slots, site.embedding_size, settings.storage, ranks=site.ranks, device=device),
        num_references=settings.references_per_query,
        scale=settings.margin.scale,
        temperature=1.0,
        chunk=settings.chunk_slots,
        batch_negatives=False,
        watch=StalenessWatch(site.batch_size, partial(stale_text, settings)),
        ranks=site.ranks,
    )
