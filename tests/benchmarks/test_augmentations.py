"""The costs in docs/training.md are those that were measured, and the picture there is small."""

from __future__ import annotations

import json

from attfc_train.augment.kinds import AUGMENTATIONS
from benchmarks.augmentations import PICTURE, lines
from benchmarks.provenance import RESULTS


def test_the_table_is_what_was_measured() -> None:
    """Catches a figure that is typed, and an augmentation that was added without being measured."""
    result = json.loads((RESULTS / "augmentations.json").read_text())
    assert list(result["seconds"]) == [*AUGMENTATIONS, "all"]
    *table, _ = lines(result)
    assert "\n".join(table) in (PICTURE.parent / "training.md").read_text()
    assert result["provenance"]["commit"]


def test_the_picture_is_small() -> None:
    assert PICTURE.stat().st_size < 150_000
