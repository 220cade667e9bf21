"""The two passes over the rows of a learned layer, by the names of their implementations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from attfc_train.losses import chunked, learning_chunked
from attfc_train.losses.learning import Learner
from attfc_train.losses.streaming import Partial, Scorer


@dataclass(frozen=True, slots=True)
class LearnedPasses:
    """Two passes over the same rows."""

    score: Scorer
    """In the forward pass: softmax statistics."""
    learn: Learner
    """At the end of the step: gradient and update."""


def _triton_score(*arguments: Any, **named: Any) -> Partial:
    """Load the kernel when it is first used: triton is not everywhere."""
    from attfc_train.losses import triton

    return triton.score_slots(*arguments, **named)


def _triton_learn(*arguments: Any, **named: Any) -> Callable[[], None]:
    """Load the kernel when it is first used."""
    from attfc_train.losses import learning_triton

    move: Callable[[], None] = learning_triton.learner(*arguments, **named)
    return move


PASSES: dict[str, LearnedPasses] = {
    "chunked": LearnedPasses(chunked.score_slots, learning_chunked.learner),
    "triton": LearnedPasses(_triton_score, _triton_learn),
}
