"""The heads that are compared, as changes to the preset ``tiny``.

Margin, scale, network, optimiser and schedule are the same for all of them, but for the learning rate, which is chosen for each
family by one rule (`benchmarks.heads.rates`). A head that is published with a margin of its own gets the same margin too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

from attfc_train.profile.file import load_preset
from attfc_train.profile.profile import TrainProfile

Changes = dict[str, Any]

IMAGE_SIZE: Final = 32
FULL: Final = "full FC"
SHARES: Final = (1.0, 0.3, 0.1, 0.05, 0.01)


@dataclass(frozen=True)
class Variant:
    """A head to compare."""

    name: str
    family: str
    """Heads of a family share their learning rate."""
    head: Changes
    """Settings of the head, by name; without ``kind`` those of the preset with these changes."""
    data: Changes = field(default_factory=dict)
    """Settings of the order of images."""


def attfc(share: float, references: int, name: str = "", **changes: Any) -> Variant:
    """Return the preset's AttFC head with another number of slots and references."""
    head = {"dcc_share": share, "num_references": references, "slot_rate": 0.0, **changes}
    return Variant(name or f"AttFC, C {100 * share:g} %, R={references}", "attfc", head)


def learned(kind: str, name: str, family: str, **changes: Any) -> Variant:
    """Return a head with learned centers."""
    return Variant(name, family, {"kind": kind, **changes})


FULL_FC: Final = learned("full_fc", FULL, "full_fc")
PARTIAL: Final = tuple(
    learned("partial_fc", f"Partial FC {rate:g}", "partial_fc", sample_rate=rate) for rate in (0.3, 0.1, 0.01)
)
GRID: Final = tuple(attfc(share, references) for share in SHARES for references in (0, 1, 2))
PUBLISHED: Final = Variant(
    "AttFC as published, C 30 %",
    "attfc",
    {
        "dcc_share": 0.3,
        "num_references": 2,
        "policy": "fifo",
        "slot_rate": 0.0,
        "queue_length": 1,
        "encoder_momentum_ramp_steps": 100,
        "batch_negatives": False,
    },
    {"draw": "reference"},
)
"""A ring, two references, independent draws; the momentum's ramp is ours and helps."""
STORED: Final = tuple(attfc(1.0, 0, f"AttFC, C 100 %, R=0, {kind}", storage=kind) for kind in ("bf16", "fp8", "int8"))

QUEUES: Final = tuple(attfc(1.0, 0, f"AttFC, C 100 %, R=0, L={length}", queue_length=length) for length in (1, 2, 8))
ORDERS: Final = tuple(
    Variant(f"AttFC, C {100 * share:g} %, R=0, uniform order", "attfc", attfc(share, 0).head, {"draw": "permutation"})
    for share in (1.0, 0.1)
)
ALONE: Final = attfc(0.1, 0, "AttFC, C 10 %, R=0, no batch negatives", batch_negatives=False)

FASTER_ENCODER: Final = tuple(
    attfc(share, 1, f"AttFC, C {100 * share:g} %, R=1, momentum 0.99", encoder_momentum=0.99) for share in (1.0, 0.1)
)
"""A class encoder that remembers 100 steps instead of 1,000, half of a run."""

WARMUP_STEPS: Final = 20
MARGIN_RAMP_STEPS: Final = 200
_RAMP: Final = {"encoder_momentum_ramp_steps": 400, "encoder_momentum_ramp_images": 0}
"""Of the class encoder's momentum; the margin's ramp and the warm-up stand in `profile_of`."""
DCQ: Final = tuple(learned("dcq", f"DCQ, C {100 * share:g} %", "dcq", dcc_share=share, **_RAMP) for share in (0.3, 0.1))
F2C: Final = tuple(learned("f2c", f"F2C, C {100 * share:g} %", "f2c", dcc_share=share) for share in (1.0, 0.1, 0.01))
SMALL: Final = (
    learned("full_fc", "full FC, int8, no momentum", "small_fc", storage="int8", momentum=False),
    learned("full_fc", "full FC, fp8, no momentum", "small_fc", storage="fp8", momentum=False),
    learned("full_fc", "full FC, bf16, no momentum", "small_fc", storage="bf16", momentum=False),
    learned("full_fc", "full FC, fp32, no momentum", "small_fc", momentum=False),
    learned("partial_fc", "Partial FC 0.1, int8, no momentum", "small_fc", sample_rate=0.1, storage="int8", momentum=False),
)
GROWING: Final = tuple(
    attfc(share, 0, f"AttFC, C {100 * share:g} %, R=0, from {100 * first:g} % of the slots to all", first_scored_share=first)
    for share, first in ((1.0, 0.1), (1.0, 0.01))
)
LEARNED_SLOTS: Final = tuple(
    attfc(share, 0, f"AttFC, C {100 * share:g} %, R=0, slots learn at {rate:g}", slot_rate=rate)
    for share in (1.0, 0.1)
    for rate in (0.1, 1.0)
)
LEARNED_UNIFORM: Final = Variant(
    "AttFC, C 100 %, R=0, slots learn at 1, uniform order", "attfc", attfc(1.0, 0, slot_rate=1.0).head, {"draw": "permutation"}
)
LEARNED_STORED: Final = tuple(
    attfc(1.0, 0, f"AttFC, C 100 %, R=0, slots learn at 1, {kind}", slot_rate=1.0, storage=kind) for kind in ("bf16", "int8")
)
LEARNED_FASTER: Final = attfc(1.0, 0, "AttFC, C 100 %, R=0, slots learn at 4", slot_rate=4.0)

VARIANTS: Final[dict[str, Variant]] = {
    variant.name: variant
    for variant in (
        FULL_FC,
        *PARTIAL,
        *GRID,
        PUBLISHED,
        *STORED,
        *QUEUES,
        *ORDERS,
        ALONE,
        *DCQ,
        *F2C,
        *SMALL,
        *GROWING,
        *LEARNED_SLOTS,
        LEARNED_UNIFORM,
        *LEARNED_STORED,
        LEARNED_FASTER,
        *FASTER_ENCODER,
    )
}
"""Name -> head. A new head is a line above and its name in a study."""


def profile_of(variant: Variant, batch_size: int, steps: int, seed: int, rate: float | None = None) -> TrainProfile:
    """Return the preset ``tiny`` with another head, without a data set.

    Args:
        rate: learning rate; None is the preset's.
    """
    document = load_preset("tiny").model_dump()
    margin = document["head"]["margin"] | {"ramp_steps": MARGIN_RAMP_STEPS, "ramp_images": 0}
    head = {} if "kind" in variant.head else document["head"] | _RAMP
    document["head"] = head | {"margin": margin} | variant.head
    document["data"] |= variant.data
    document["model"]["image_size"] = IMAGE_SIZE
    document["optim"] |= {"batch_size": batch_size, "warmup_steps": min(WARMUP_STEPS, steps // 2), "warmup_images": 0} | (
        {} if rate is None else {"learning_rate": rate}
    )
    document["run"] |= {"steps": steps, "seed": seed, "save_every": 500, "eval_every": max(1, steps // 5), "log_every": 50}
    return TrainProfile.model_validate(document)


def settings_digest(profile: TrainProfile) -> str:
    """Return sixteen hex digits of everything in a resolved profile that decides what is learned.

    Defaults may change, and records of other defaults are of something else. Settings that came later and stand at the value
    that changes nothing are left out, so that older records stay what they are.
    """
    decisive = profile.model_dump(mode="json", include={"model", "head", "optim"})
    neutral = COUNTED_IN_IMAGES | NEUTRAL.get(profile.head.kind, {})
    head = decisive["head"]
    later = ((head, neutral), (head["margin"], OF_MARGINS), (decisive["optim"], OF_SCHEDULES), (decisive["model"], OF_MODELS))
    for section, unchanged in later:
        for key, value in unchanged.items():
            if section.get(key, ...) == value:
                del section[key]
    decisive["order"] = [profile.data.draw, profile.window or profile.num_ids, profile.data.flip_probability]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


COUNTED_IN_IMAGES: Final[dict[str, Any]] = {
    "ramp_images": 0,
    "warmup_images": 0,
    "encoder_momentum_images": None,
    "encoder_momentum_ramp_images": 0,
}
"""Settings that came after the first records, in steps, with the value that leaves it to those."""
OF_SCHEDULES: Final = COUNTED_IN_IMAGES | {"milestones": [0.5, 0.75, 0.9], "step_factor": 0.1, "patience_share": 0.05}
"""The same of the optimiser: settings of schedules that the comparison does not use."""
OF_MARGINS: Final = COUNTED_IN_IMAGES | {"concentration": 0.333, "statistics_rate": 0.01}
"""The same of the margin: settings of AdaFace and CurricularFace."""
OF_MODELS: Final = {"batchnorm_variance": "unbiased"}
"""The same of the network."""
_LEARNED: Final = {"storage": "fp32", "momentum": True, "interclass_filter": 0.0, "chunk_slots": 2048, "loss_kernel": "auto"}
NEUTRAL: Final[dict[str, dict[str, Any]]] = {
    "attfc": {"exported_encoder": "feature", "slot_rate": 0.0, "first_scored_share": 1.0, "growing_share": 0.5},
    "full_fc": _LEARNED,
    "partial_fc": _LEARNED,
}
"""Kind of head -> settings that came after the first records, and the value with which each changes nothing."""
