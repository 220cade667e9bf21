"""The kinds of heads: a new one is its folder and a line here.

Free of torch: the module that builds a head is loaded when one is built.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.dcq.settings import DCQSettings
from attfc_train.heads.f2c.settings import F2CSettings
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.partial_fc.settings import PartialFCSettings
from attfc_train.heads.settings import HeadSettings
from attfc_train.ranks.ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch

    from attfc_train.heads.head import Head


@dataclass(frozen=True, slots=True)
class HeadKind:
    """One kind of head."""

    settings: type[HeadSettings]
    """The settings' class; its ``kind`` is the key in `HEADS`."""
    module: str
    """Name of the module that holds ``build(settings, site, device) -> Head``."""


HEADS: dict[str, HeadKind] = {
    "attfc": HeadKind(AttFCSettings, "attfc_train.heads.attfc.head"),
    "dcq": HeadKind(DCQSettings, "attfc_train.heads.dcq.head"),
    "f2c": HeadKind(F2CSettings, "attfc_train.heads.f2c.head"),
    "full_fc": HeadKind(FullFCSettings, "attfc_train.heads.full_fc.head"),
    "partial_fc": HeadKind(PartialFCSettings, "attfc_train.heads.partial_fc.head"),
}
"""Kind -> settings, and the module that builds the head."""

BASELINE = "full_fc"
"""The kind that accuracies are measured against."""


@dataclass(frozen=True, slots=True)
class HeadSite:
    """The numbers of a run that building a head may need; nothing of a profile."""

    num_ids: int
    embedding_size: int
    batch_size: int
    """Queries of an optimiser step."""
    micro_batch_size: int
    """Queries of one forward pass."""
    seed: int
    total_steps: int
    """Optimiser steps of the whole run."""
    ranks: Ranks = ALONE
    """The processes that train together; batch sizes are those of the joined batch."""


def build_head(settings: HeadSettings, site: HeadSite, device: torch.device) -> Head:
    """Build a fresh head of the settings' kind on `device`."""
    from attfc_train.heads.running_margin import running_margin

    head: Head = importlib.import_module(HEADS[settings.kind].module).build(settings, site, device)
    head.running = running_margin(settings.margin, device)
    if head.running is not None:
        head.running.ranks = site.ranks
    return head
