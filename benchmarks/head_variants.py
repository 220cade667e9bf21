"""The classification heads that `benchmarks.heads` compares, as changes to the preset ``tiny``.

Margin, scale, network, optimiser and schedule are the same for all of them; only the head and the order of the images differ.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from attfc_train.profile.file import load_preset
from attfc_train.profile.profile import DEFAULT_WINDOW_SHARE, TrainProfile

Variant = dict[str, Any]

FULL: Final = "full FC"
SHARES: Final = (0.05, 0.1, 0.3, 1.0)


def attfc(share: float = 1.0, references: int = 1, **changes: Any) -> Variant:
    """Return the preset's AttFC head with another number of slots and references."""
    return {"dcc_share": share, "num_references": references, **changes}


def published(share: float) -> Variant:
    """AttFC as its authors released it: a ring, two references, independent draws. The momentum's ramp is ours and helps."""
    ring = {
        "policy": "fifo",
        "queue_length": 1,
        "encoder_momentum_ramp_steps": 100,
        "batch_negatives": False,
        "draw": "reference",
    }
    return attfc(share, 2, **ring)


def partial_fc(rate: float) -> Variant:
    """Partial FC with sparse gradient and momentum."""
    return {"kind": "partial_fc", "sample_rate": rate}


HEADS: Final[dict[str, Variant]] = {
    FULL: {"kind": "full_fc"},
    "full FC, AttFC's order": {"kind": "full_fc", "window_share": DEFAULT_WINDOW_SHARE},
    "Partial FC 0.3": partial_fc(0.3),
    "Partial FC 0.1": partial_fc(0.1),
    "AttFC as published, C 30 %": published(0.3),
    "AttFC, C 100 %": attfc(1.0),
    "AttFC, C 30 %": attfc(0.3),
    "AttFC, C 10 %": attfc(0.1),
    "AttFC, C 5 %": attfc(0.05),
    "AttFC, C 100 %, R=0": attfc(1.0, 0),
    "AttFC, C 30 %, R=0": attfc(0.3, 0),
}
"""The comparison: for the same images, and those in `TIMED` for the same time too."""
TIMED: Final = (FULL, "Partial FC 0.1", "AttFC as published, C 30 %", "AttFC, C 100 %", "AttFC, C 10 %", "AttFC, C 100 %, R=0")

REFERENCES: Final[dict[str, Variant]] = {
    f"C {100 * share:.0f} %, R={references}": attfc(share, references) for share in SHARES for references in (0, 1, 2)
}
QUEUES: Final[dict[str, Variant]] = {
    f"{mode}, L={length}": attfc(queue_length=length, queue_mode=mode)
    for mode in ("averaged", "stored")
    for length in (1, 2, 4, 8)
    if (mode, length) != ("stored", 1)  # the same as averaged
}
STORAGE: Final[dict[str, Variant]] = {f"C 100 %, {storage}": attfc(storage=storage) for storage in ("bf16", "fp8", "int8")}
PARTS: Final[dict[str, Variant]] = {
    "C 100 %, uniform order": attfc(draw="permutation"),
    "C 100 %, R=0, uniform order": attfc(1.0, 0, draw="permutation"),
    "C 30 %, uniform order": attfc(0.3, draw="permutation"),
    "C 10 %, uniform order": attfc(0.1, draw="permutation"),
    "C 5 %, uniform order": attfc(0.05, draw="permutation"),
    "C 30 %, no batch negatives": attfc(0.3, batch_negatives=False),
    "C 10 %, no batch negatives": attfc(0.1, batch_negatives=False),
    "C 30 %, neither": attfc(0.3, draw="permutation", batch_negatives=False),
}
"""What each part of the recipe is worth."""
STUDIES: Final = {"heads": HEADS, "references": REFERENCES, "queues": QUEUES, "storage": STORAGE, "parts": PARTS}


def profile_of(variant: Variant, image_size: int, steps: int, seed: int) -> TrainProfile:
    """Return the preset ``tiny`` with another head, without a data set."""
    base = load_preset("tiny")
    changes = dict(variant)
    data = {key: changes.pop(key) for key in ("draw", "window_share") if key in changes}
    head = {"margin": base.head.margin.model_dump()} if "kind" in changes else base.head.model_dump()
    document = base.model_dump()
    document["head"] = head | changes
    document["data"] |= data
    document["model"]["image_size"] = image_size
    document["run"] |= {"steps": steps, "seed": seed, "save_every": 10**9, "eval_every": 10**9, "log_every": 100}
    return TrainProfile.model_validate(document)


def settings_digest(profile: TrainProfile) -> str:
    """Sixteen hex digits of everything in a resolved profile that decides what is learned: defaults may change, and records of
    other defaults are of something else."""
    decisive = profile.model_dump(mode="json", include={"model", "head", "optim"})
    decisive["order"] = [profile.data.draw, profile.window or profile.num_ids, profile.data.flip_probability]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
