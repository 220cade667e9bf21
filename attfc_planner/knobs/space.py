"""The search space: a head's knobs and those that every training has, with their values.

A `Setting` is one choice of all knobs; `Setting.applied_to` makes it a training profile. Not searched, and why: the published
ring (policy ``fifo``) lost 17 points of verification accuracy to one slot per identity (benchmarks/results/heads-short.md); a
stored queue takes L times the memory of an averaged one, and no measurement here speaks for it; image sizes, because no
published table says what another size than 112 costs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, cast

from attfc_planner.knobs.recipe import pace_of, with_schedule
from attfc_train.backbones.kinds import Checkpointing
from attfc_train.document import Precision, Value
from attfc_train.errors import ProfileError
from attfc_train.heads.kinds import HEADS
from attfc_train.heads.knob import Knob
from attfc_train.heads.settings import HeadSettings, MarginSettings
from attfc_train.profile.profile import MAX_BATCH_SIZE, OptimSettings, TrainProfile

LEAST_PART = 32
"""Images in a part of an accumulated batch: BatchNorm sees no more at a time, and with fewer its error grows (Wu and He 2018,
arXiv 1803.08494, table 2: 23.6 % at 32, 23.7 % at 16, 24.8 % at 8)."""

LEAST_STEPS = 400
"""A run of fewer optimiser steps does not get anywhere, however fast it is: the bound on the batch size for small data sets.
Assumption, from attfc's runs on 6,206 images, which are useful from about 400 steps on."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A point of a search space: a value for every knob, in the space's order."""

    names: tuple[str, ...]
    values: tuple[Value | None, ...]
    """By the order of `names`; None stands for the recipe's own."""

    @classmethod
    def of(cls, values: Mapping[str, Value | None]) -> Setting:
        """Make a setting from knob -> value; knobs that are left out stay as the recipe has them."""
        return cls(tuple(values), tuple(values.values()))

    def __lt__(self, other: Setting) -> bool:
        """Return whether the setting comes first of two that are equal in what counts."""
        return self._order() < other._order()

    def _order(self) -> tuple[object, ...]:
        # Python orders no words beside truth values. Of a knob that is off, partly on or on, the word is the middle.
        order = ((0.5, value) if isinstance(value, str) else (value, "") for value in self.values)
        return self.names, tuple(order)

    def __getitem__(self, name: str) -> Any:
        """Return a knob's value.

        Raises:
            KeyError: the setting has no such knob.
        """
        try:
            return self.values[self.names.index(name)]
        except ValueError:
            raise KeyError(name) from None

    def get(self, name: str) -> Value | None:
        """Return a knob's value; None for a knob that the setting does not have."""
        return self.values[self.names.index(name)] if name in self.names else None

    def document(self) -> dict[str, Value | None]:
        """Return knob -> value."""
        return dict(zip(self.names, self.values, strict=True))

    def turned(self, **changes: Value | None) -> Setting:
        """Return the setting with other values of some of its knobs.

        Raises:
            KeyError: the setting has no such knob.
        """
        for name in changes.keys() - set(self.names):
            raise KeyError(name)
        return Setting(self.names, tuple(changes.get(name, value) for name, value in zip(self.names, self.values, strict=True)))

    @property
    def batch_size(self) -> int:
        """Queries of an optimiser step."""
        return cast("int", self["batch_size"])

    @property
    def accumulation(self) -> int:
        """Equal parts in which a batch is passed through the network; the optimiser sees the same batch."""
        return cast("int", self.get("accumulation") or 1)

    @property
    def gradient_checkpointing(self) -> Checkpointing:
        """Which activations are computed a second time instead of kept."""
        return cast("Checkpointing", self.get("gradient_checkpointing") or False)

    @property
    def precision(self) -> Precision | None:
        """Precision of the encoders."""
        return cast("Precision | None", self.get("precision"))

    @property
    def backbone(self) -> str | None:
        """The feature encoder."""
        return cast("str | None", self.get("backbone"))

    @property
    def head(self) -> str | None:
        """Kind of head."""
        return cast("str | None", self.get(HEAD.name))

    @property
    def gpus(self) -> int:
        """GPUs that share a batch."""
        return cast("int", self.get(GPUS.name) or 1)

    @property
    def part_size(self) -> float:
        """Queries of one GPU in one forward pass; not whole where the batch cannot be divided so."""
        return self.batch_size / (self.accumulation * self.gpus)

    @property
    def divides(self) -> bool:
        """Whether the batch has so many equal parts of at least `LEAST_PART`; a whole batch may be smaller."""
        parts = self.accumulation
        divides = self.batch_size % (parts * self.gpus) == 0
        return (divides or self.gpus == 1) and (parts == 1 or (divides and self.part_size >= LEAST_PART))

    def applied_to(self, base: TrainProfile) -> TrainProfile:
        """Return `base` with this setting, and with the learning rate and ramps that belong to its batch size.

        Args:
            base: with data.num_ids.

        Raises:
            ProfileError: the recipe's head cannot be searched, or has no such knob.
        """
        base = with_head(base, self.head)
        refusal = base.head.search_refusal()
        if refusal is not None:
            raise ProfileError(f"the recipe of a plan, '{base.name}', {refusal.rule}", refusal.got, refusal.remedy)
        turned = self._by_section(base)
        batch_size = base.optim.batch_size if self.get("batch_size") is None else self.batch_size
        pace = pace_of(base, batch_size)
        head = base.head.turned(turned.pop("head"), base.num_ids, pace.steps if pace else math.inf)
        others = {section: getattr(base, section).model_copy(update=values) for section, values in turned.items()}
        others["optim"] = with_schedule(others["optim"], base.optim, pace)
        return base.model_copy(update={"head": head.paced(pace) if pace else head, **others})

    def _by_section(self, base: TrainProfile) -> dict[str, dict[str, Value]]:
        """Return section of the profile -> knob -> value; None, the recipe's value, is left out."""
        sections = _sections(type(base.head))
        turned: dict[str, dict[str, Value]] = {section: {} for section in ("head", "optim", *sections.values())}
        for name, value in zip(self.names, self.values, strict=True):
            if name not in sections:
                raise ProfileError(f"a setting of head '{base.head.kind}' must be of its knobs", f"'{name}'", "Plan it anew.")
            if value is not None and name != HEAD.name:
                turned[sections[name]][name] = value
        return turned


def _batch_row(optim: OptimSettings) -> tuple[str, str]:
    parts = f" in {optim.accumulation} parts of {optim.micro_batch_size}" if optim.accumulation > 1 else ""
    return "batch size", f"{optim.batch_size}{parts}, learning rate {optim.learning_rate:g}"


def _batch_phrase(optim: OptimSettings) -> str:
    return f"batch size {optim.batch_size}" + (f" in {optim.accumulation} parts" if optim.accumulation > 1 else "")


def _batch_cell(optim: OptimSettings) -> str:
    return f"{optim.batch_size}" if optim.accumulation == 1 else f"{optim.accumulation}x{optim.micro_batch_size}"


HEAD = Knob(
    "head",
    (None,),
    "head",
    place=0,
    ordered=False,
    column="head",
    cell=lambda head: str(head.kind),
    phrase=lambda head: f"head {head.kind}",
    row=lambda head: ("head", str(head.kind)),
)
"""The kind of head. It decides which other knobs there are: a space has one kind (`attfc_planner.knobs.spaces`)."""
BATCH_SIZE = Knob(
    "batch_size",
    (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048),
    "optim",
    place=30,
    scales=True,
    column="B",
    cell=_batch_cell,
    phrase=_batch_phrase,
    row=_batch_row,
)
CHECKPOINTING_PHRASES: dict[Checkpointing, str] = {
    False: "",
    "wide": "gradient checkpointing of wide maps",
    True: "gradient checkpointing",
}
"""What is recomputed -> its words in a line about a setting."""
_CHECKPOINTING_WORDS: dict[Checkpointing, str] = {False: "no", "wide": "wide maps", True: "yes"}
GRADIENT_CHECKPOINTING = Knob(
    "gradient_checkpointing",
    (False, "wide", True),
    "model",
    place=50,
    affects=frozenset({"memory", "speed"}),
    column="ckpt",
    cell=lambda model: _CHECKPOINTING_WORDS[model.gradient_checkpointing].removesuffix(" maps"),
    phrase=lambda model: CHECKPOINTING_PHRASES[model.gradient_checkpointing],
    row=lambda model: ("gradient checkpointing", _CHECKPOINTING_WORDS[model.gradient_checkpointing]),
)
"""Fastest first. Either way of checkpointing saves memory; which saves more depends on the network."""
ACCUMULATION = Knob("accumulation", (1, 2, 4, 8, 16), "optim", place=60, affects=frozenset({"memory", "speed"}))
PRECISION = Knob("precision", (None,), "run", place=80, ordered=False)
BACKBONE = Knob(
    "backbone",
    (None,),
    "model",
    place=90,
    ordered=False,
    column="net",
    cell=lambda model: str(model.backbone),
    phrase=lambda model: str(model.backbone),
)

GPUS = Knob("gpus", (1,), "run", place=95, affects=frozenset({"memory", "speed"}), ordered=False)
"""GPUs that share a batch. A space of one GPU does not have it, one of several has their number alone."""

COMMON = (HEAD, BATCH_SIZE, GRADIENT_CHECKPOINTING, ACCUMULATION, PRECISION, BACKBONE)
"""The knobs that every training has, whatever its head."""


@cache
def _default(kind: str, margin: MarginSettings) -> HeadSettings:
    return HEADS[kind].settings.recommended(margin)


def with_head(profile: TrainProfile, kind: str | None) -> TrainProfile:
    """Return the profile with a kind of head, of which only the margin is the profile's; None, or its own kind: unchanged.

    Raises:
        KeyError: there is no such kind.
    """
    return profile if kind is None or kind == profile.head.kind else with_default_head(profile, kind)


def with_default_head(profile: TrainProfile, kind: str) -> TrainProfile:
    """Return the profile with the recommended settings of a kind of head, and its own margin.

    Raises:
        KeyError: there is no such kind.
    """
    return profile.model_copy(update={"head": _default(kind, profile.head.margin)})


@cache
def knobs_of(head: type[HeadSettings]) -> tuple[Knob, ...]:
    """Return all knobs of trainings with such a head, in the order of their places."""
    return tuple(sorted((*head.knobs(), *COMMON), key=lambda knob: knob.place))


@cache
def _sections(head: type[HeadSettings]) -> dict[str, str]:
    """Return knob -> the section of the profile that holds it."""
    return {knob.name: knob.section for knob in (*knobs_of(head), GPUS)}


def shown(knobs: Sequence[Knob]) -> list[Knob]:
    """Return knobs in the order of lines and columns: the network first, and last what only trades memory for time."""
    return sorted(knobs, key=lambda knob: (knob.name != BACKBONE.name, "accuracy" not in knob.affects, knob.place))


@dataclass(frozen=True)
class SearchSpace:
    """Knobs of one kind of head with the values to search, in the order of their places."""

    knobs: tuple[Knob, ...]

    @cached_property
    def values(self) -> dict[str, tuple[Value | None, ...]]:
        """Knob -> its values."""
        return {knob.name: knob.values for knob in self.knobs}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the knobs."""
        return tuple(self.values)

    def __getitem__(self, name: str) -> Knob:
        """Return a knob by name."""
        return next(knob for knob in self.knobs if knob.name == name)

    def narrowed(self, **values: tuple[Value | None, ...]) -> SearchSpace:
        """Return the space with other values of some of its knobs.

        Raises:
            KeyError: the space has no such knob.
        """
        for name in values.keys() - set(self.names):
            raise KeyError(name)
        return SearchSpace(tuple(knob.with_values(values.get(knob.name, knob.values)) for knob in self.knobs))

    def fixed(self, values: Mapping[str, Value]) -> SearchSpace:
        """Return the space with one value of some of its knobs.

        Raises:
            KeyError: the space has no such knob.
        """
        return self.narrowed(**{name: (value,) for name, value in values.items()})

    def __len__(self) -> int:
        """Return the number of settings in the space."""
        return math.prod(len(values) for values in self.values.values())

    def __iter__(self) -> Iterator[Setting]:
        """Iterate over every setting."""
        names = self.names
        return (Setting(names, values) for values in itertools.product(*self.values.values()))

    def at(self, indices: Mapping[str, int]) -> Setting:
        """Return the setting at one index per knob."""
        return Setting(self.names, tuple(values[indices[name]] for name, values in self.values.items()))

    def indices(self, setting: Setting) -> dict[str, int]:
        """Return the inverse of `at`."""
        return {name: values.index(setting[name]) for name, values in self.values.items()}


def space_for(
    num_ids: int,
    num_images: int | None = None,
    epochs: float = 1.0,
    *,
    kind: str,
    named: bool = False,
    precision: tuple[Precision | None, ...] = (None,),
    backbone: tuple[str | None, ...] = (None,),
    gpus: int = 1,
) -> SearchSpace:
    """Return the space for a data set: no share of under two identities, no batch that leaves a run fewer than `LEAST_STEPS`.

    Args:
        kind: of head. named: whether its settings name it, because others are searched beside it.
        precision, backbone: those to choose from; None: the recipe's.
        gpus: that share a batch: each has the share that one GPU's batch could be.
    """
    several = (GPUS.with_values((gpus,)),) if gpus > 1 else ()
    full = SearchSpace((*knobs_of(HEADS[kind].settings), *several))
    sizes = [gpus * size for size in cast("tuple[int, ...]", BATCH_SIZE.values) if gpus * size <= MAX_BATCH_SIZE]
    # steps = epochs x images / B >= LEAST_STEPS; the smallest batch is searched in any case.
    largest = max(sizes[0], epochs * num_images / LEAST_STEPS) if num_images else sizes[-1]
    shares = {
        knob.name: tuple(share for share in knob.values if cast("float", share) * num_ids >= 2 or share == 1)
        for knob in full.knobs
        if knob.is_share
    }
    batch_size = tuple(size for size in sizes if size <= largest)
    head = (kind if named else None,)
    return full.narrowed(**shares, head=head, batch_size=batch_size, precision=precision, backbone=backbone)
