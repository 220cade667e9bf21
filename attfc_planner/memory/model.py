"""The memory that a training profile needs on a device, term by term.

``need = context + foreign + what the allocator reserves for the run + workspaces + headroom``. The run's part is the replay
of a trace of the real train step, and of an evaluation after it (`attfc_planner.trace.store`), through the simulated allocator
(`attfc_planner.memory.allocator`, with the expandable segments that attfc-train switches on, or with the native ones of a
device that has no others), its terms are the bytes alive at the instant of the peak; what the allocator reserves beyond them
is the term ``fragmentation``. On a CPU there is no caching allocator, and the terms are the process's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.memory.blocks import ROUNDING
from attfc_planner.memory.overheads import (
    convolution_source,
    convolution_workspaces,
    cublas_source,
    cublas_workspace,
    headroom,
    unseen_terms,
)
from attfc_planner.memory.run import Run, run_of
from attfc_planner.trace.history import CATEGORIES, CUBLAS_WORKSPACE, Trace
from attfc_planner.trace.store import Traces
from attfc_train.cuda_environment import NATIVE_ALLOCATOR, PLANNED_ALLOCATOR
from attfc_train.profile.prediction import FRAGMENTATION, MemoryPrediction, MemoryTerm
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.op_cost import OpCost
from attfc_train.units import Bytes

WORKSPACE = "convolution workspace"
_KEPT = {"weights", "momentum", "class encoder", "teacher", "container"}
"""Categories whose bytes live from one step to the next."""
_RARE = {"setup", "embeddings", "teacher"}
"""Terms of the construction and of the evaluation, which are seldom the peak, and of a teacher, which few runs have."""


@dataclass(frozen=True, slots=True)
class Peak:
    """The instant of a history at which most bytes are in use."""

    alive: dict[str, Bytes]
    """Requested bytes by category."""
    phase: str
    operator: str
    event: int
    """Index into the history's events."""

    @property
    def passing(self) -> Bytes:
        """Return the bytes of what comes and goes within a step."""
        return sum(num_bytes for name, num_bytes in self.alive.items() if name not in _KEPT)


class MemoryModel:
    """A prediction of memory for variants of a profile on one device.

    Args:
        base: a resolved profile; the space that is searched lies around it, and its structure is traced first.
        gpu: the device.
        budget_bytes: what may be used; it is only reported beside the prediction.
        cache_dir: where traces are kept; None: ``$ATTFC_CACHE_DIR`` or the user's cache folder.
    """

    def __init__(self, base: TrainProfile, gpu: GpuProfile, budget_bytes: Bytes, cache_dir: Path | None = None) -> None:
        self.base = base
        self.gpu = gpu
        self.budget_bytes = budget_bytes
        self._traces = Traces(cache_dir)

    def on(self, gpu: GpuProfile, budget_bytes: Bytes | None = None) -> MemoryModel:
        """Return a model with the same traces for another device; without a budget with this one's."""
        other = copy(self)
        other.gpu = gpu
        other.budget_bytes = self.budget_bytes if budget_bytes is None else budget_bytes
        return other

    @property
    def expandable(self) -> bool:
        """Return whether the device's allocator has expandable segments."""
        return self.gpu.native_segments is None

    def estimate(self, profile: TrainProfile) -> MemoryPrediction:
        """Return the prediction from the traces of the profile's structure: milliseconds once these exist."""
        return self._predicted(profile, self._run(profile, self._traces.estimated(profile)))

    def exact(self, profile: TrainProfile) -> MemoryPrediction:
        """Return the prediction from two train steps of exactly this profile."""
        self._traces.prepare_exact([profile])  # the steps and the evaluation beside each other
        return self._predicted(profile, self.run(profile), always_replayed=True)

    def history(self, profile: TrainProfile) -> Trace:
        """Return the train steps behind `exact`, with the bytes that convolution workspaces take on the device."""
        trace = self._on_device(self._traces.exact(profile))
        return trace.with_sizes(self.sizes(trace))

    def run(self, profile: TrainProfile) -> Run:
        """Return all that `exact` replays; its ``convolution workspace`` storages hold the bytes moved, cuBLAS's none."""
        return self._run(profile, self._traces.exact(profile))

    def op_costs(self, profile: TrainProfile) -> tuple[OpCost, ...]:
        """Return FLOPs and bytes of one train step, by operator and phase."""
        return self._traces.costs(profile)

    def head_bytes(self, profiles: Sequence[TrainProfile]) -> list[Bytes]:
        """Return what the head of each profile keeps on the device between steps: buffers, parameters and their momentum."""
        return self._traces.head_bytes(profiles)

    def prepare(self, profiles: Iterable[TrainProfile]) -> None:
        """Trace the structures of many profiles at once, which is faster than one by one."""
        self._traces.prepare(profiles)

    def prepare_exact(self, profiles: Iterable[TrainProfile]) -> None:
        """Trace many profiles for `exact` and `history` at once."""
        self._traces.prepare_exact(profiles)

    def floor_bytes(self, profile: TrainProfile) -> Bytes:
        """Return the least device memory with which the run survives, by giving cached memory back again and again.

        Below `estimate`, because it has no headroom and allows the allocator's retries, which are slow.
        """
        run = self._run(profile, self._traces.estimated(profile))
        sizes = self.sizes(run.trace)
        peak = peak_of(run.trace, sizes)
        tensors = sum(peak.alive.values())
        unseen = sum(term.bytes for term in unseen_terms(profile, self.gpu, peak.passing))
        return unseen + (
            tensors if self.gpu.kind == "cpu" else run.smallest_capacity(sizes, self.expandable, self.gpu.capacity_bytes)
        )

    def _run(self, profile: TrainProfile, steps: Trace) -> Run:
        """Return train steps and then an evaluation, through one allocator and beside what training keeps.

        The evaluation is there with or without verification sets in the profile: they may be given when training starts.
        """
        return run_of(self._on_device(steps), self._traces.evaluation(profile))

    def _on_device(self, steps: Trace) -> Trace:
        """Return train steps with the batches that a device holds: a GPU two (`attfc_train.step.input_buffers`), a CPU one."""
        if self.gpu.kind == "cuda":
            return steps
        # Two places were traced, tensor by tensor alike: half of each stands for the loader's batch, which a CPU computes on.
        is_place = np.array(steps.categories) == "input"
        return steps.with_sizes(np.where(is_place, steps.nbytes // 2, steps.nbytes))

    def _predicted(self, profile: TrainProfile, run: Run, always_replayed: bool = False) -> MemoryPrediction:
        sizes = self.sizes(run.trace)
        peak = peak_of(run.trace, sizes)
        tensors = sum(peak.alive.values())
        terms = [*_traced_terms(peak, self.gpu), *unseen_terms(profile, self.gpu, peak.passing)]
        # What is over the budget without fragmentation needs no replay to be refused, and a search asks about many of those.
        if self.gpu.kind == "cuda" and (always_replayed or sum(term.bytes for term in terms) <= self.budget_bytes):
            terms.append(_fragmentation(self._reserved(run, sizes, self.expandable) - tensors, self.gpu))
        terms.append(headroom(sum(term.bytes for term in terms), self.gpu))
        return MemoryPrediction(
            terms=tuple(terms),
            budget_bytes=self.budget_bytes,
            peak_phase=peak.phase,
            peak_operator=peak.operator,
            allocator=self._allocator(),
            native_bytes=self._reserved(run, sizes, expandable=False) if always_replayed and self._may_be_native() else None,
        )

    def _reserved(self, run: Run, sizes: NDArray[np.int64], expandable: bool) -> Bytes:
        return run.replay(sizes, expandable, self.gpu.capacity_bytes).peak_reserved

    def _may_be_native(self) -> bool:
        """Return whether expandable segments are assumed, and training may find that there are none."""
        return self.gpu.kind == "cuda" and self.expandable

    def _allocator(self) -> str | None:
        if self.gpu.kind == "cpu":
            return None
        return PLANNED_ALLOCATOR if self.expandable else NATIVE_ALLOCATOR

    def sizes(self, trace: Trace) -> NDArray[np.int64]:
        """Return the bytes of all storages, convolution workspaces included."""
        sizes = trace.nbytes.copy()
        rows = np.array(trace.categories) == WORKSPACE
        sizes[rows] = convolution_workspaces(sizes[rows], self.gpu)
        sizes[np.array(trace.categories) == CUBLAS_WORKSPACE] = cublas_workspace(self.gpu)
        return sizes


def peak_of(trace: Trace, sizes: NDArray[np.int64]) -> Peak:
    """Return the peak of a history whose storages have these sizes."""
    # in use after event e = sum over events up to e of +size (birth) or -size (free), sizes rounded up as the allocator does.
    events = np.array(trace.events, np.int64)
    births = events >= 0
    storages = np.where(births, events, ~events)
    rounded = -(-sizes // ROUNDING) * ROUNDING
    top = int(np.argmax(np.cumsum(np.where(births, 1, -1) * rounded[storages])))
    # Of several events about one storage the last one is written last: True where it was its birth.
    alive = np.zeros(len(sizes), bool)
    alive[storages[: top + 1]] = births[: top + 1]
    categories = np.array(trace.categories)
    last = int(storages[top])
    return Peak(
        {name: int(sizes[alive & (categories == name)].sum()) for name in CATEGORIES}, trace.phases[last], trace.ops[last], top
    )


def _traced_terms(peak: Peak, gpu: GpuProfile) -> list[MemoryTerm]:
    """Return one term a category; those that only show up now and then are left out when they are zero."""
    terms = []
    for name, num_bytes in peak.alive.items():
        if name == WORKSPACE:
            if num_bytes:
                terms.append(MemoryTerm(name=name, bytes=num_bytes, source=convolution_source(gpu)))
        elif name == CUBLAS_WORKSPACE:
            if num_bytes:
                terms.append(MemoryTerm(name=name, bytes=num_bytes, source=cublas_source(gpu)))
        elif num_bytes or name not in _RARE:
            terms.append(MemoryTerm(name=name, bytes=num_bytes, source="traced"))
    return terms


def _fragmentation(num_bytes: Bytes, gpu: GpuProfile) -> MemoryTerm:
    kind = "expandable segments" if gpu.native_segments is None else f"native segments: {gpu.native_segments}"
    return MemoryTerm(name=FRAGMENTATION, bytes=num_bytes, source=f"traced: replay through the allocator, {kind}")
