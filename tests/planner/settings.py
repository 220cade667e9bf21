"""Settings of an AttFC plan, written in one line."""

from __future__ import annotations

from attfc_planner.knobs.space import Setting
from attfc_train.backbones.kinds import Checkpointing
from attfc_train.document import Value


def setting(
    dcc_share: float,
    queue_length: float,
    batch_size: int,
    num_references: int,
    gradient_checkpointing: Checkpointing = False,
    **others: Value | None,
) -> Setting:
    """In the space's order; what is not given is left to the recipe."""
    given = {
        "head": None,
        "dcc_share": dcc_share,
        "queue_length": queue_length,
        "batch_size": batch_size,
        "num_references": num_references,
        "gradient_checkpointing": gradient_checkpointing,
        "accumulation": 1,
        "storage": None,
        "precision": None,
        "backbone": None,
    }
    assert set(others) <= set(given), "no such knob"
    return Setting.of({**given, **others})
