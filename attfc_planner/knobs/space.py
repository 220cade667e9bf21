"""What the search may choose: the knobs and their values. An ordered knob's index means more or less of one thing.

A `Setting` is one choice of all knobs; `Setting.applied_to` makes it a training profile. Not searched, and why: the published
ring (policy ``fifo``) lost 17 points of verification accuracy to one slot per identity (benchmarks/results/heads.md); a stored
queue takes L times the memory of an averaged one, and no measurement here speaks for it; image sizes, because no published
table says what another size than 112 costs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

from attfc_train.errors import ProfileError
from attfc_train.profile.profile import AttFCSettings, OptimSettings, Precision, StorageName, TrainProfile

LARGE_BATCH_WARMUP_STEPS = 2000

LEAST_PART = 32
"""Images in a part of an accumulated batch: BatchNorm sees no more at a time, and with fewer its error grows (Wu and He 2018,
arXiv 1803.08494, table 2: 23.6 % at 32, 23.7 % at 16, 24.8 % at 8)."""

LEAST_STEPS = 400
"""A run of fewer optimiser steps does not get anywhere, however fast it is: the bound on the batch size for small data sets.
Assumption, from attfc's runs on 6,206 images, which are useful from about 400 steps on."""


@dataclass(frozen=True, order=True)
class Setting:
    """One point of the search space."""

    dcc_share: float
    """DCC size / identities."""
    queue_length: float
    batch_size: int
    num_references: int
    gradient_checkpointing: bool
    accumulation: int = 1
    """Equal parts in which a batch is passed through the network; the optimiser sees the same batch."""
    storage: StorageName | None = None
    """Of the centers; None here and below: as the recipe has it."""
    precision: Precision | None = None
    backbone: str | None = None

    @property
    def part_size(self) -> float:
        """Queries in one forward pass; not whole where the batch cannot be divided so."""
        return self.batch_size / self.accumulation

    @property
    def divides(self) -> bool:
        """Whether the batch has so many equal parts of at least `LEAST_PART`; a whole batch may be smaller."""
        return self.accumulation == 1 or (self.batch_size % self.accumulation == 0 and self.part_size >= LEAST_PART)

    def dcc_size(self, num_ids: int) -> int:
        """Slots."""
        return max(1, round(self.dcc_share * num_ids))

    def _warmup_steps(self, base: TrainProfile, rate: float) -> int:
        """The recipe's warm-up, a longer one for large batches, and never more than a tenth of the run."""
        wanted = LARGE_BATCH_WARMUP_STEPS if rate > 2 * base.optim.learning_rate else base.optim.warmup_steps
        return min(wanted, _part_of_run(base, self.batch_size, 0.1))

    def applied_to(self, base: TrainProfile) -> TrainProfile:
        """`base` (whose data.num_ids is known) with this setting and the learning rate that belongs to its batch size.

        Ramps of the recipe end within the run: the margin's in its first half, the momentum's by its last step.

        Raises:
            ProfileError: the recipe's head is not one slot per identity with an averaged queue, which the knobs are about.
        """
        assert isinstance(base.head, AttFCSettings)
        if (base.head.policy, base.head.queue_mode) != ("identity", "averaged"):
            raise ProfileError(
                f"the recipe of a plan, '{base.name}', must have head.policy 'identity' and head.queue_mode 'averaged'",
                f"'{base.head.policy}' and '{base.head.queue_mode}'",
                "Plan with averaged queues, then train with --set head.queue_mode=stored --set head.queue_length=3.",
            )
        rate = scaled_learning_rate(self.batch_size, base.optim)
        margin_ramp = min(base.head.margin.ramp_steps, _part_of_run(base, self.batch_size, 0.5))
        momentum_ramp = min(base.head.encoder_momentum_ramp_steps, _part_of_run(base, self.batch_size, 1))
        head = {
            "dcc_size": self.dcc_size(base.num_ids),
            "dcc_share": self.dcc_share,
            "queue_length": self.queue_length,
            "num_references": self.num_references,
            "margin": base.head.margin.model_copy(update={"ramp_steps": margin_ramp}),
            "encoder_momentum_ramp_steps": momentum_ramp,
            "storage": self.storage or base.head.storage,
        }
        optim = {
            "batch_size": self.batch_size,
            "accumulation": self.accumulation,
            "learning_rate": rate,
            "warmup_steps": self._warmup_steps(base, rate),
        }
        backbone = self.backbone or base.model.backbone
        model = {"gradient_checkpointing": self.gradient_checkpointing, "backbone": backbone}
        return base.model_copy(
            update={
                "head": base.head.model_copy(update=head),
                "optim": base.optim.model_copy(update=optim),
                "model": base.model.model_copy(update=model),
                "run": base.run.model_copy(update={"precision": self.precision or base.run.precision}),
            }
        )


def _part_of_run(base: TrainProfile, batch_size: int, share: float) -> int:
    """A share of the run's steps where its length is known, else a number above all others."""
    images, steps = base.data.num_images, base.run.steps
    if steps is None and images is None:
        return 2**31
    return int(share * (steps or base.run.epochs * (images or 0) / batch_size))


def scaled_learning_rate(batch_size: int, recipe: OptimSettings) -> float:
    """Linear scaling (Goyal et al. 2017, arXiv 1706.02677) from the recipe's rate and batch size (AttFC: 0.1 at 384).

    Beyond twice that rate the profile also gets a longer linear warm-up, as the same paper asks for large batches.
    """
    return float(f"{recipe.learning_rate * batch_size / recipe.batch_size:.3g}")


CATEGORIES = ("gradient_checkpointing", "storage", "precision", "backbone")
"""Knobs without an order."""


@dataclass(frozen=True)
class SearchSpace:
    """Knob name -> its values in order; those in `CATEGORIES` have none. Field names are those of `Setting`."""

    dcc_share: tuple[float, ...] = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
    queue_length: tuple[float, ...] = (1.0, 2.0, 3.3, 5.0, 8.0)
    batch_size: tuple[int, ...] = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
    num_references: tuple[int, ...] = (0, 1, 2)
    gradient_checkpointing: tuple[bool, ...] = (False, True)
    accumulation: tuple[int, ...] = (1, 2, 4, 8, 16)
    storage: tuple[StorageName | None, ...] = ("fp32", "bf16", "int8", "fp8")
    precision: tuple[Precision | None, ...] = (None,)
    backbone: tuple[str | None, ...] = (None,)

    @property
    def knobs(self) -> dict[str, tuple[float | str | None, ...]]:
        """All knobs by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __len__(self) -> int:
        """Settings in the space."""
        size = 1
        for values in self.knobs.values():
            size *= len(values)
        return size

    def __iter__(self) -> Iterator[Setting]:
        """Every setting."""
        return (Setting(*values) for values in itertools.product(*self.knobs.values()))  # type: ignore[arg-type]  # the knobs' own

    def at(self, indices: dict[str, int]) -> Setting:
        """The setting at one index per knob."""
        return Setting(*(values[indices[name]] for name, values in self.knobs.items()))  # type: ignore[arg-type]  # likewise

    def indices(self, setting: Setting) -> dict[str, int]:
        """Inverse of `at`."""
        return {name: values.index(value) for (name, values), value in zip(self.knobs.items(), astuple(setting), strict=True)}


def space_for(
    num_ids: int,
    num_images: int | None = None,
    epochs: float = 1.0,
    *,
    precision: tuple[Precision | None, ...] = (None,),
    backbone: tuple[str | None, ...] = (None,),
) -> SearchSpace:
    """The space for a data set: no container of under two slots, no batch that leaves a run fewer than `LEAST_STEPS` steps.

    Args:
        precision, backbone: those to choose from; None: the recipe's.
    """
    full = SearchSpace()
    largest = max(full.batch_size[0], epochs * num_images / LEAST_STEPS) if num_images else full.batch_size[-1]
    return SearchSpace(
        dcc_share=tuple(share for share in full.dcc_share if share * num_ids >= 2 or share == 1),
        batch_size=tuple(size for size in full.batch_size if size <= largest),
        precision=precision,
        backbone=backbone,
    )


if __name__ == "__main__":
    space = SearchSpace()
    print(f"{len(space)} settings; the first: {next(iter(space))}")
