"""The full classification layer: one learned center per identity, all scored. The baseline that AttFC replaces."""

from __future__ import annotations

import torch

from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.kinds import HeadSite
from attfc_train.heads.learned.layer import LearnedLayer, passes_for, rule_of


class FullFCHead(LearnedLayer):
    """Every row is scored by every query, and moves in every step."""


def build(settings: FullFCSettings, site: HeadSite, device: torch.device) -> FullFCHead:
    """Build the layer for a run: the passes are chosen first, because measuring them needs memory."""
    return FullFCHead(
        passes=passes_for(settings, site, site.ranks.shard(site.num_ids).num, device),
        num_ids=site.num_ids,
        embedding_size=site.embedding_size,
        storage=settings.storage,
        has_momentum=settings.momentum,
        rule=rule_of(settings),
        ranks=site.ranks,
        device=device,
    )
