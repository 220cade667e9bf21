"""Another beginning and another end of a run: weights that exist already (``--init``), and more epochs (``--extend``).

Both are in a checkpoint before the first step, so that a run that is killed goes on as it was meant to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import nn

from attfc_train.errors import UsageError
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.checkpoint import Checkpoints
from attfc_train.step.state import TrainState

Initialise: TypeAlias = Callable[[nn.Module], object]
"""Loads weights into an encoder, in place."""
MOST_EPOCHS = 10_000


def begin_with(state: TrainState, initialise: Initialise, checkpoints: Checkpoints) -> None:
    """Load weights into a fresh state, and save it.

    Raises:
        AttfcError: `initialise` refuses; nothing is saved then.
        StorageError: it cannot be saved.
    """
    initialise(state.feature_encoder)
    if state.class_encoder is not None:  # a copy of the feature encoder, as at the start of every run
        state.class_encoder.class_encoder.load_state_dict(state.feature_encoder.state_dict())
    checkpoints.save(state, None)


def extended(profile: TrainProfile, epochs: float | None) -> TrainProfile:
    """Return a resolved profile with more steps; its schedule is that of the longer run, from the present step on.

    Args:
        epochs: to add; None: none.

    Raises:
        UsageError: `epochs` is no number of epochs.
    """
    if epochs is None:
        return profile
    if not 0 < epochs <= MOST_EPOCHS:
        raise UsageError(f"--extend must be above 0 and at most {MOST_EPOCHS:,} epochs", f"{epochs:g}", "Example: --extend 5.")
    assert profile.data.num_images is not None, "the run has started"
    per_epoch = profile.data.num_images / profile.optim.batch_size
    steps = profile.total_steps + max(1, round(epochs * per_epoch))
    run = profile.run.model_copy(update={"steps": steps, "epochs": steps / per_epoch})
    return profile.model_copy(update={"run": run})
