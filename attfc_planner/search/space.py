"""What the search may choose: five knobs, each an ordered list, so that an index means more or less of one thing.

A `Setting` is one choice of all knobs; `Setting.applied_to` makes it a training profile.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields

from attfc_train.profile import AttFCSettings, TrainProfile

REFERENCE_BATCH_SIZE = 384
REFERENCE_LEARNING_RATE = 0.1
LARGE_BATCH_WARMUP_STEPS = 2000


@dataclass(frozen=True, order=True)
class Setting:
    """One point of the search space."""

    dcc_share: float
    """DCC size / identities."""
    queue_length: float
    batch_size: int
    num_references: int
    gradient_checkpointing: bool

    def dcc_size(self, num_ids: int) -> int:
        """Slots."""
        return max(1, round(self.dcc_share * num_ids))

    def applied_to(self, base: TrainProfile) -> TrainProfile:
        """`base` (whose data.num_ids is known) with this setting and the learning rate that belongs to its batch size."""
        assert isinstance(base.head, AttFCSettings)
        rate = scaled_learning_rate(self.batch_size)
        head = {
            "policy": "identity",
            "dcc_size": self.dcc_size(base.num_ids),
            "dcc_share": self.dcc_share,
            "queue_length": self.queue_length,
            "num_references": self.num_references,
        }
        optim = {
            "batch_size": self.batch_size,
            "accumulation": 1,
            "learning_rate": rate,
            "warmup_steps": LARGE_BATCH_WARMUP_STEPS if rate > 2 * REFERENCE_LEARNING_RATE else 0,
        }
        return base.model_copy(
            update={
                "head": base.head.model_copy(update=head),
                "optim": base.optim.model_copy(update=optim),
                "model": base.model.model_copy(update={"gradient_checkpointing": self.gradient_checkpointing}),
            }
        )


def scaled_learning_rate(batch_size: int) -> float:
    """Linear scaling (Goyal et al. 2017, arXiv 1706.02677) from AttFC's released setting: 0.1 at a batch size of 384.

    Beyond twice that rate the profile also gets a linear warm-up, as the same paper asks for large batches.
    """
    return float(f"{REFERENCE_LEARNING_RATE * batch_size / REFERENCE_BATCH_SIZE:.3g}")


@dataclass(frozen=True)
class SearchSpace:
    """Knob name -> its values in order. Field names are those of `Setting`."""

    dcc_share: tuple[float, ...] = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
    queue_length: tuple[float, ...] = (1.0, 2.0, 3.3, 5.0, 8.0)
    batch_size: tuple[int, ...] = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
    num_references: tuple[int, ...] = (0, 1, 2)
    gradient_checkpointing: tuple[bool, ...] = (False, True)

    @property
    def knobs(self) -> dict[str, tuple[float, ...]]:
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
        return (Setting(*values) for values in itertools.product(*self.knobs.values()))  # type: ignore[arg-type]

    def at(self, indices: dict[str, int]) -> Setting:
        """The setting at one index per knob."""
        return Setting(*(values[indices[name]] for name, values in self.knobs.items()))  # type: ignore[arg-type]

    def indices(self, setting: Setting) -> dict[str, int]:
        """Inverse of `at`."""
        return {name: values.index(value) for (name, values), value in zip(self.knobs.items(), astuple(setting), strict=True)}

    def distance(self, one: Setting, other: Setting) -> int:
        """Steps between two settings, summed over the knobs."""
        a, b = self.indices(one), self.indices(other)
        return sum(abs(a[name] - b[name]) for name in a)


def space_for(num_ids: int, num_images: int | None = None) -> SearchSpace:
    """The space for a data set: no container of under two slots, no batch larger than the data set or an eighth of an epoch."""
    full = SearchSpace()
    largest = max(full.batch_size[0], num_images // 8) if num_images else full.batch_size[-1]
    return SearchSpace(
        dcc_share=tuple(share for share in full.dcc_share if share * num_ids >= 2 or share == 1),
        batch_size=tuple(size for size in full.batch_size if size <= largest),
    )


if __name__ == "__main__":
    space = SearchSpace()
    print(f"{len(space)} settings; the first: {next(iter(space))}")
