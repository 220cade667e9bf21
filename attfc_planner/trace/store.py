"""The traces of many profiles: from memory, from disk, or made now, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from attfc_planner.trace.affine import BASE, AffineTrace, HeadModel, with_other_head
from attfc_planner.trace.align import NotAffine
from attfc_planner.trace.disk_cache import Stored, TraceCache
from attfc_planner.trace.evaluation import EvaluationModel, evaluation_structure, traced_evaluation
from attfc_planner.trace.history import HeadBytes, Trace
from attfc_planner.trace.jobs import Job, JobKind
from attfc_planner.trace.progress import expecting
from attfc_planner.trace.scaled import scaled_costs, scaled_trace, stand_in
from attfc_planner.trace.structure import head_structure, is_direct, knobs_of, structure_of, with_knobs, with_map
from attfc_planner.trace.workers import results
from attfc_train.cache_folder import cache_folder
from attfc_train.profile.profile import DataSettings, ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.timing.op_cost import OpCost


class Traces:
    """Traces of profiles, each made at most once.

    Args:
        cache_dir: where traces are kept; None: the user's cache folder.
    """

    def __init__(self, cache_dir: Path | None = None) -> None:
        self._cache = TraceCache(cache_dir or cache_folder())
        self._heads: dict[TrainProfile, HeadModel | None] = {}
        self._networks: dict[TrainProfile, AffineTrace | None] = {}
        self._evaluations: dict[TrainProfile, EvaluationModel | None] = {}
        self._exact: dict[TrainProfile, Trace] = {}
        self._head_bytes: dict[TrainProfile, HeadBytes] = {}

    def estimated(self, profile: TrainProfile) -> Trace:
        """Return the profile's trace, computed from those of its structure; traced itself where that is not affine."""
        affine = self._network(_structure(profile))
        return self.exact(profile) if affine is None else scaled_trace(affine, profile)

    def exact(self, profile: TrainProfile) -> Trace:
        """Return the trace of two train steps of exactly these numbers."""
        profile = _plain(profile)
        if not self._has(self._exact, Trace, profile):
            self._run([("exact", profile, None)])
        return self._exact[profile]

    def evaluation(self, profile: TrainProfile) -> Trace:
        """Return the trace of an evaluation beside what training holds."""
        structure = evaluation_structure(profile)
        if not self._has(self._evaluations, EvaluationModel, structure):
            self._run([("evaluation", structure, None)])
        model = self._evaluations[structure]
        batch_size = profile.gpu_part_size
        return traced_evaluation(structure, batch_size) if model is None else model.at(batch_size)

    def costs(self, profile: TrainProfile) -> tuple[OpCost, ...]:
        """Return the costs of the operators of a step."""
        affine = self._network(_structure(profile))
        return self.exact(profile).costs[-1] if affine is None else scaled_costs(affine, profile)

    def head_bytes(self, profiles: Sequence[TrainProfile]) -> list[int]:
        """Return what the head of each profile keeps on its device between steps."""
        alone = [_head_alone(profile) for profile in profiles]
        self._run(
            [("head bytes", each, None) for each in dict.fromkeys(alone) if not self._has(self._head_bytes, HeadBytes, each)]
        )
        return [self._head_bytes[each].num_bytes for each in alone]

    def prepare(self, profiles: Iterable[TrainProfile]) -> None:
        """Make everything that `estimated` and `evaluation` will need for these profiles, on all cores."""
        structures = dict.fromkeys(map(_structure, profiles))
        missing = [structure for structure in structures if not self._has(self._networks, AffineTrace, structure)]
        # A container with a slot for everyone is never traced with its network: it is the one with a map, without the map.
        traced = dict.fromkeys(with_map(structure, BASE) if is_direct(structure) else structure for structure in missing)
        # First the heads, on the smallest backbone, then the networks, in which the heads' storages are recognised.
        heads = dict.fromkeys(head_structure(structure) for structure in (*traced, *missing))
        jobs: list[Job] = [("head", head, None) for head in heads if not self._has(self._heads, HeadModel, head)]
        jobs += self._evaluation_jobs(structures)
        networks = [structure for structure in traced if not self._has(self._networks, AffineTrace, structure)]
        kinds = [job[0] for job in jobs]
        kinds.extend("network" for _ in networks)
        with expecting(kinds) as finished:
            self._keep(jobs, finished)
            self._keep([("network", structure, self._heads[head_structure(structure)]) for structure in networks], finished)
        for structure in missing:
            if is_direct(structure):
                self._networks[structure] = self._derived(structure)

    def prepare_exact(self, profiles: Iterable[TrainProfile]) -> None:
        """Make everything that `exact` and `evaluation` will need for these profiles, on all cores."""
        plain = dict.fromkeys(map(_plain, profiles))
        jobs: list[Job] = [("exact", profile, None) for profile in plain if not self._has(self._exact, Trace, profile)]
        self._run(jobs + self._evaluation_jobs(plain))

    def _evaluation_jobs(self, profiles: Iterable[TrainProfile]) -> list[Job]:
        structures = dict.fromkeys(map(evaluation_structure, profiles))
        missing = [structure for structure in structures if not self._has(self._evaluations, EvaluationModel, structure)]
        return [("evaluation", structure, None) for structure in missing]

    def _network(self, structure: TrainProfile) -> AffineTrace | None:
        if not self._has(self._networks, AffineTrace, structure):
            self.prepare([structure])
        return self._networks[structure]

    def _has(self, kept: dict[TrainProfile, Any], kind: type[Stored], profile: TrainProfile) -> bool:
        """Return whether `kept` has a profile's entry, after looking for it on disk."""
        if profile not in kept:
            stored = self._cache.load(kind, profile)
            if stored is not None:
                kept[profile] = stored
        return profile in kept

    def _derived(self, direct: TrainProfile) -> AffineTrace | None:
        """Return the trace of a container with a slot for everyone: that with a map, without the map."""
        mapped = with_map(direct, BASE)
        network = self._networks[mapped]
        own = self._heads[head_structure(mapped)]
        other = self._heads[head_structure(direct)]
        if network is None or own is None or other is None:
            return None
        try:
            derived = with_other_head(network, own, other)
        except NotAffine:
            return None
        self._cache.store(derived, direct)
        return derived

    def _run(self, jobs: list[Job]) -> None:
        """Do jobs, which are all that is known to be missing, and keep what came of them."""
        with expecting([job[0] for job in jobs]) as finished:
            self._keep(jobs, finished)

    def _keep(self, jobs: list[Job], finished: Callable[[JobKind], object]) -> None:
        for job, result in zip(jobs, results(jobs, lambda job: finished(job[0])), strict=True):
            if result is not None:
                self._cache.store(result, job[1])
            match job[0], result:
                case "head", HeadModel() | None:
                    self._heads[job[1]] = result
                case "network", AffineTrace() | None:
                    self._networks[job[1]] = result
                case "evaluation", EvaluationModel() | None:
                    self._evaluations[job[1]] = result
                case "head bytes", HeadBytes():
                    self._head_bytes[job[1]] = result
                case _, Trace():
                    self._exact[job[1]] = result


def _structure(profile: TrainProfile) -> TrainProfile:
    """Return the structure that is traced for a profile."""
    return structure_of(stand_in(profile), BASE)


def _plain(profile: TrainProfile) -> TrainProfile:
    """Return the profile without what cannot matter to a trace."""
    return with_knobs(structure_of(profile, BASE), knobs_of(profile))


def _head_alone(profile: TrainProfile) -> TrainProfile:
    """Return the profile with the smallest network, and without what no head sees."""
    optim = OptimSettings(
        batch_size=profile.optim.batch_size, accumulation=profile.optim.accumulation, momentum=profile.optim.momentum
    )
    return TrainProfile(
        data=DataSettings(num_ids=profile.num_ids),
        model=ModelSettings(backbone="tiny", embedding_size=profile.model.embedding_size, image_size=32),
        head=profile.head,
        optim=optim,
        run=RunSettings(precision=profile.run.precision, steps=1000, gpus=profile.run.gpus),
    )
