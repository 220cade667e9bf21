"""Two ways of the same step on the same numbers: weights, class centers and images are drawn from one seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.backbones.kinds import Checkpointing, build_encoder
from attfc_train.data.batch import Batch, normalised
from attfc_train.profile.file import load_preset
from attfc_train.profile.profile import TrainProfile
from attfc_train.step.build import build
from attfc_train.step.compiled import compile_encoders
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from benchmarks.step.released import ReleasedStep

_PRESET: Final = "attfc-paper"
_CPU: Final = torch.device("cpu")
_IMAGES_PER_ID: Final = 10
NUM_BATCHES: Final = 2
"""Different ones, which take turns."""


@dataclass(frozen=True, slots=True)
class Case:
    """One size of the published method."""

    backbone: str
    image_size: int
    batch_size: int
    slots: int
    """About: they become a multiple of the batch, as the released ring needs."""
    share: float = 0.3
    """Of the identities."""

    @property
    def label(self) -> str:
        """The case in words."""
        return f"{self.backbone}, {self.image_size} pixels, batch {self.batch_size}, {self.slots:,} slots"

    def profile(
        self, *, compiled: bool = False, channels_last: bool = False, checkpointing: Checkpointing = False
    ) -> TrainProfile:
        """Return the published recipe at this size, fp32, resolved."""
        preset = load_preset(_PRESET)
        ids = round(self.slots / self.share)
        changed = {
            "model": preset.model.model_copy(
                update={
                    "backbone": self.backbone,
                    "image_size": self.image_size,
                    "channels_last": channels_last,
                    "gradient_checkpointing": checkpointing,
                }
            ),
            "optim": preset.optim.model_copy(update={"batch_size": self.batch_size}),
            "run": preset.run.model_copy(update={"precision": "fp32", "compile": compiled}),
        }
        return preset.model_copy(update=changed).resolve(ids, _IMAGES_PER_ID * ids)


Step = Callable[[], Tensor]
"""Makes one step on the next batch; returns the loss."""


def our_run(case: Case, **changes: Any) -> tuple[TrainState, list[Batch]]:
    """Return the state of a training with this project's `train_step`, and batches that take turns.

    Args:
        changes: see `Case.profile`.
    """
    profile = case.profile(**changes)
    state = build(profile, _CPU)
    compile_encoders(state)
    state.head.container.slots.values.copy_(_centers(profile))  # type: ignore[union-attr, operator]  # AttFC's head has one
    return state, _batches(profile)


def ours(case: Case, **changes: Any) -> Step:
    """Return this project's `train_step`."""
    return _steps(*our_run(case, **changes))


def _steps(state: TrainState, batches: list[Batch]) -> Step:
    def step() -> Tensor:
        return train_step(state, batches[state.step % NUM_BATCHES]).loss

    return step


def released(case: Case) -> Step:
    """Return the released code's way of it."""
    profile = case.profile()
    torch.manual_seed(profile.run.seed)
    run = ReleasedStep(build_encoder(profile.model, _CPU).train(), _centers(profile), profile.optim.learning_rate)
    batches = [
        ([normalised(batch.query, batch.flips[0]), *_references(batch)], batch.labels.float()[:, None])
        for batch in _batches(profile)
    ]
    done = 0

    def step() -> Tensor:
        nonlocal done
        done += 1
        return run.step(*batches[(done - 1) % NUM_BATCHES])

    return step


RELEASED: Final = "released"
SIDES: Final[dict[str, Callable[[Case], Step]]] = {
    RELEASED: released,
    "ours": ours,
    "channels last": partial(ours, channels_last=True),
    "compiled": partial(ours, compiled=True),
    "both": partial(ours, compiled=True, channels_last=True),
}


def _centers(profile: TrainProfile) -> Tensor:
    """Return random unit vectors [C, D]."""
    generator = torch.Generator().manual_seed(1)
    size = profile.dcc_size
    return normalize(torch.randn(size, profile.model.embedding_size, generator=generator))


def _batches(profile: TrainProfile) -> list[Batch]:
    """Return batches of random images, no two of one identity."""
    generator = torch.Generator().manual_seed(2)
    example = Batch.example(profile, _CPU)
    made = []
    for place in range(NUM_BATCHES):
        query, references = (_random_like(each, generator) for each in (example.query, example.references))
        labels = torch.arange(len(example.labels)) + place * len(example.labels)
        made.append(Batch(query, references, example.flips, labels))
    return made


def _random_like(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 256, images.shape, generator=generator, dtype=torch.uint8)


def _references(batch: Batch) -> list[Tensor]:
    return [normalised(images, flips) for images, flips in zip(batch.references, batch.flips[1:], strict=True)]
