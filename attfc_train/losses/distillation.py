"""The angular distillation loss: a student's embeddings point where its teacher's point (VarGFaceNet, arXiv 1910.04985).

With unit vectors s^ of the student and t^ of the teacher,

    |s^ - t^|^2 = 2 - 2 s^ . t^,

the paper's equation 5, which the mean over the queries makes a loss. Norms play no part in it. Its gradient by the student's
embedding s is ``-2 (t^ - (s^ . t^) s^) / |s|``: it turns s towards t^ and leaves its length.

Legend: B queries, D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def angular_distances(features: Tensor, targets: Tensor) -> Tensor:
    """Return the squared distance of every embedding to its teacher's on the unit sphere.

    Args:
        features: [B, D], the student's, un-normalised, with gradient.
        targets: [B, D], the teacher's, un-normalised, without gradient.

    Returns:
        [B] in [0, 4], fp32 or wider.
    """
    student, teacher = (_unit(embeddings) for embeddings in (features, targets))
    # As a sum of squares: 2 - 2 cosine would lose the digits of a small distance to cancellation.
    return (student - teacher).square().sum(1)


def cosine_of(distance: float) -> float:
    """Return the cosine that belongs to a squared distance of unit vectors."""
    return 1 - distance / 2


def _unit(embeddings: Tensor) -> Tensor:
    wide = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
    return normalize(wide, dim=1)
