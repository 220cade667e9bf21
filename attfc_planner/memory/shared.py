"""The memory of one space of settings on many cards: what depends on no card is computed once for all.

A trace is of a structure, not of a card, and so is the replay of it, but for two things: cuBLAS's workspaces, of which there
are two sizes, and the length of the allocator's ranges of addresses, which follows the card. While a search looks at thousands
of settings ranges count as endless, so that cards share replays; what is chosen of them is replayed with the card's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.model import MemoryModel
from attfc_planner.memory.overheads import cublas_workspace
from attfc_train.profile.prediction import FRAGMENTATION, MemoryPrediction
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import OpCost
from attfc_train.units import Bytes

_ENDLESS: Bytes = 1 << 56
"""Of a device whose ranges of addresses no replay comes to the end of."""

Alike: TypeAlias = int | str
"""What cards have in common whose endless replays are the same: cuBLAS's workspace; of others than a catalogue's the name."""


class SharedMemory:
    """What the cards of a comparison have found so far."""

    def __init__(self) -> None:
        self._first: MemoryModel | None = None
        self.costs: dict[TrainProfile, tuple[OpCost, ...]] = {}
        self.replayed: dict[tuple[Alike, TrainProfile], MemoryPrediction] = {}

    def on(self, base: TrainProfile, gpu: GpuProfile, budget_bytes: Bytes, profiles: tuple[TrainProfile, ...]) -> CardMemory:
        """Return the model of a card, with the structures of these profiles traced: `attfc_planner.plan.problem.MakeModel`."""
        if self._first is None:
            self._first = MemoryModel(base, gpu, budget_bytes)
        model = CardMemory(self._first.on(gpu, budget_bytes), self)
        model.prepare(profiles)
        return model


class CardMemory:
    """A memory model of one card, as a search asks it (`attfc_planner.search.candidates.MemoryEstimator`).

    Args:
        model: of the card; other cards' models have the same traces (`MemoryModel.on`).
        shared: the comparison's.
    """

    def __init__(self, model: MemoryModel, shared: SharedMemory) -> None:
        self._model = model
        self._endless = model.on(model.gpu.model_copy(update={"capacity_bytes": _ENDLESS}))
        self._shared = shared
        self._alike = _alike(model.gpu)

    def prepare(self, profiles: Iterable[TrainProfile]) -> None:
        """Trace the structures of many profiles at once."""
        self._model.prepare(profiles)

    def estimate(self, profile: TrainProfile) -> MemoryPrediction:
        """Return the prediction for ranges of addresses without end."""
        budget = self._model.budget_bytes
        key = self._alike, profile
        known = self._shared.replayed.get(key)
        # What was over the budget of another card was not replayed to its end.
        if known is None or (known.total_bytes <= budget and not _is_replayed(known)):
            known = self._endless.estimate(profile)
            self._shared.replayed[key] = known
        return known if known.budget_bytes == budget else known.model_copy(update={"budget_bytes": budget})

    def exact(self, profile: TrainProfile) -> MemoryPrediction:
        """Return the prediction for the card's own ranges, from the traces of the structure: to about 1 %."""
        return self._model.estimate(profile)

    def op_costs(self, profile: TrainProfile) -> tuple[OpCost, ...]:
        """Return FLOPs and bytes of the operators of one train step."""
        if profile not in self._shared.costs:
            self._shared.costs[profile] = self._model.op_costs(profile)
        return self._shared.costs[profile]

    def head_bytes(self, profiles: Sequence[TrainProfile]) -> list[Bytes]:
        """Return what the head of each keeps on the device between steps."""
        return self._model.head_bytes(profiles)


def _alike(gpu: GpuProfile) -> Alike:
    from_table = gpu.kind == "cuda" and gpu.measured is None and not gpu.foreign_bytes and gpu.native_segments is None
    return cublas_workspace(gpu) if from_table else gpu.name


def _is_replayed(memory: MemoryPrediction) -> bool:
    return any(term.name == FRAGMENTATION for term in memory.terms)
