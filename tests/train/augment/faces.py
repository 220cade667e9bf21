"""Faces for the tests of augmentations."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from attfc_train.data.formats.procedural_face import render_face


def faces(num: int, size: int = 32) -> Tensor:
    """Computed faces, float32 [num, 3, size, size] from 0 to 255."""
    pixels = np.stack([render_face(identity, 0, size) for identity in range(num)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32).contiguous()
