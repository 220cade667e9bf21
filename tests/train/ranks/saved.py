"""The state that a checkpoint of several processes has."""

from __future__ import annotations

import io
from typing import Any

import torch

from attfc_train.run.tensor_writer import Packed
from attfc_train.step.state import TrainState


def as_saved(state: TrainState) -> dict[str, Any]:
    """Rank 0: what would be read from the file. The others, which give it their rows: the state without the head."""
    saved = state.saved()
    packed = Packed(saved)
    if not state.ranks.is_first:
        packed.give()
        return {**saved, "head": {}}
    file = io.BytesIO()
    packed.write(file)
    content: dict[str, Any] = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    return content
