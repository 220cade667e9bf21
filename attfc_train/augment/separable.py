"""Linear filters that differ from image to image, as products with a matrix for either direction.

Row i of a matrix says which pixels, along a row or a column, make pixel i. So every image can have a width of its own, and no
shape depends on it. Legend: N images, S pixels of a side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def filtered(images: Tensor, matrices: Tensor) -> Tensor:
    """Return ``M X M^T`` for each channel X of each image.

    Args:
        images: float32 [N, 3, S, S].
        matrices: float32 [N, S, S], one for each image; rows that sum to 1 keep images within their range.
    """
    transposed = matrices.transpose(1, 2)
    # [N, 3 S, S] @ [N, S, S] filters along rows; the transposed result, filtered again, along columns.
    along_rows = torch.bmm(images.reshape(len(images), -1, images.shape[-1]), transposed).view_as(images)
    along_columns = torch.bmm(along_rows.transpose(2, 3).reshape(len(images), -1, images.shape[-1]), transposed)
    return along_columns.view_as(images).transpose(2, 3).clamp(0.0, 255.0)


def rows_to_one(weights: Tensor) -> Tensor:
    """Return weights [N, S, S] whose rows sum to 1; a row of zeros stays one."""
    return weights / weights.sum(dim=2, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def pixel_numbers(size: int, device: torch.device) -> Tensor:
    """Return 0 .. size - 1, float32 [S]."""
    return torch.arange(size, dtype=torch.float32, device=device)
