"""What a run may have of another: a beginning (``--init``), an end (``--extend``), and settings on the way (``--set``).

The first two are in a checkpoint before the first step, so that a run that is killed goes on as it was meant to. Free of torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from attfc_train.errors import UsageError
from attfc_train.profile.file import load_profile, with_overrides
from attfc_train.profile.profile import TrainProfile

if TYPE_CHECKING:
    from torch import nn

    from attfc_train.run.checkpoint import Checkpoints
    from attfc_train.step.state import TrainState

    Initialise: TypeAlias = Callable[[nn.Module], object]
    """Loads weights into an encoder, in place."""

MOST_EPOCHS = 10_000


RESUMABLE = (
    "data.path",
    "data.num_workers",
    "data.prefetch_batches",
    "data.cache_bytes",
    "data.max_corrupt_share",
    "model.gradient_checkpointing",
    "model.channels_last",
    "run.compile",
    "head.dcc_size",
    "head.storage",
    "head.queue_mode",
    "head.queue_length",
    "teacher.path",
    "optim.accumulation",
    "optim.learning_rate",
    "optim.warmup_steps",
    "optim.weight_decay",
    "optim.clip_norm",
    "run.log_every",
    "run.eval_every",
    "run.save_every",
    "run.keep_checkpoints",
)
"""Settings that may change in a resumed run: what is learned and what is drawn stays the same.

A container of another size or form takes over the newest centers that it has room for (`attfc_train.heads.containers.resize`).
With the draw ``residency``, fewer slots than the window has identities narrow the window: another order of images from the
resumed step on.
"""


def check_resumable(assignments: Sequence[str]) -> None:
    """Refuse to change what decides a run.

    Raises:
        UsageError: names the setting.
    """
    for assignment in assignments:
        key = assignment.partition("=")[0]
        if key not in RESUMABLE:
            remedy = f"These can change: {', '.join(RESUMABLE)}. For others start a new run."
            raise UsageError("--resume keeps what decides the run", f"--set {key}", remedy)


def changed(profile: TrainProfile, assignments: Sequence[str]) -> TrainProfile:
    """Return the profile of a run with settings of `RESUMABLE` changed.

    Raises:
        UsageError: a head without a container would have another form, which nothing that it has learned fits.
    """
    result = with_overrides(profile, assignments)
    head = result.head
    if head != profile.head and not head.container_form:
        given = ", ".join(f"--set {each}" for each in assignments if each.startswith("head."))
        rule = f"--resume keeps the form of head '{head.kind}': only a container's centers can be taken over in another"
        raise UsageError(rule, given, "Leave it out, or start a new run.")
    return result


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


def not_half_extended(profile: TrainProfile, path: Path) -> TrainProfile:
    """Return a checkpoint's profile with its former length where a kill came between the checkpoint and the profile's file.

    Whoever was killed there has not seen that the run is longer, and gives ``--extend`` again: it must not count twice.

    Args:
        path: of the profile's file.
    """
    before = load_profile(path).run if path.is_file() else profile.run
    if before.steps is None or before.steps >= profile.total_steps:
        return profile
    run = profile.run.model_copy(update={"steps": before.steps, "epochs": before.epochs})
    return profile.model_copy(update={"run": run})


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
