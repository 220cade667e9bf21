"""What a plan for several GPUs says of them: what they exchange, what that costs, and how many more would help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attfc_planner.gpu.links import Links
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.knobs.space import LEAST_PART
from attfc_planner.search.candidates import Candidate, MemoryEstimator
from attfc_planner.speed.communication import communication
from attfc_planner.speed.efficiency import Range
from attfc_planner.speed.model import last_backward, predict_speed
from attfc_train.profile.prediction import Interval, SeveralGpus
from attfc_train.profile.profile import MAX_ACCUMULATION, MAX_GPUS, TrainProfile

GPUS_PER_MACHINE = 8
"""Beyond as many, further GPUs are taken to be in another machine."""
HELPS = 1.25
"""Twice as many GPUs must be this much faster, or another one counts as no help: it is idle for three quarters of its time."""
_MOST_TIMES = 4
"""How many times as many GPUs are looked at."""


@dataclass(frozen=True)
class _Crew:
    """The same training on another number of GPUs."""

    gpu: GpuProfile
    profile: TrainProfile

    @property
    def words(self) -> str:
        """Return the number of GPUs, and of machines where there are several."""
        gpus = self.profile.run.gpus
        links = self.gpu.links_among(gpus) if gpus > 1 else None
        return f"{gpus}" + (f" in {links.nodes} machines ({links.name})" if links and links.nodes > 1 else "")

    def seconds(self, model: MemoryEstimator) -> float:
        """Return the middle of the seconds of a step that does not wait for images."""
        return _seconds(self.profile, self.gpu, model)


def several_gpus(chosen: Candidate, gpu: GpuProfile, model: MemoryEstimator) -> SeveralGpus | None:
    """Return what a plan says of its GPUs; None where there is one.

    Args:
        gpu: with its links.
    """
    profile = chosen.profile
    gpus = profile.run.gpus
    if gpus == 1:
        return None
    links = gpu.links_among(gpus)
    alone = _alone(profile)
    model.prepare([profile, alone, *(crew.profile for crew in _neighbours(profile, gpu))])
    exchanged = communication(model.op_costs(profile), links)
    one = predict_speed(alone, gpu, model.op_costs(alone)).loading.unfed
    step = _seconds(profile, gpu, model)
    backward = last_backward(chosen.speed.phases, profile)
    seconds = exchanged.seconds
    return SeveralGpus(
        links=links.words,
        nodes=links.nodes,
        sent_bytes=exchanged.sent_bytes,
        exchanges=exchanged.count,
        communication_ms=Interval(low=_ms(seconds.high), high=_ms(seconds.low), source=_source(links)),
        share_of_step=round(min(1.0, exchanged.waited(backward).middle / step), 4),
        hidden_ms=_ms(exchanged.hidden(backward)),
        one_gpu_images_per_second=Interval(low=_rounded(one.low), high=_rounded(one.high), source="without waiting for images"),
        efficiency=_rounded(profile.optim.batch_size / step / (gpus * _middle(one))),
        more_gpus=_more_gpus(profile, gpu, model),
    )


def _alone(profile: TrainProfile) -> TrainProfile:
    """Return the training of one GPU with its share of the batch."""
    return _with(profile, 1, profile.optim.accumulation, profile.gpu_batch_size)


def _with(profile: TrainProfile, gpus: int, parts: int, batch_size: int) -> TrainProfile:
    optim = profile.optim.model_copy(update={"batch_size": batch_size, "accumulation": parts})
    run = profile.run.model_copy(update={"gpus": gpus})
    return profile.model_copy(update={"optim": optim, "run": run})


def _neighbours(profile: TrainProfile, gpu: GpuProfile) -> Iterator[_Crew]:
    """Yield the same training on half as many GPUs, and on twice as many."""
    gpus = profile.run.gpus
    for other in (gpus // 2, 2 * gpus):
        crew = _crew(profile, gpu, other)
        if crew is not None:
            yield crew


def _crew(profile: TrainProfile, gpu: GpuProfile, gpus: int) -> _Crew | None:
    """Return the same batch on another number of GPUs, in parts as large on each; None where there are none."""
    links = gpu.links_among(profile.run.gpus)
    parts = max(1, -(-profile.optim.accumulation * profile.run.gpus // gpus))
    batch_size = profile.optim.batch_size
    divides = batch_size % (gpus * parts) == 0 and batch_size // (gpus * parts) >= LEAST_PART
    if not divides or parts > MAX_ACCUMULATION or gpus > MAX_GPUS:
        return None
    per_machine = max(GPUS_PER_MACHINE, links.gpus // links.nodes)
    nodes = -(-gpus // per_machine)
    link = None if nodes > 1 and links.nodes == 1 else links.name if nodes > 1 or links.name != "eth100" else None
    return _Crew(gpu.beside_others(gpus, nodes, link), _with(profile, gpus, parts, batch_size))


def _more_gpus(profile: TrainProfile, gpu: GpuProfile, model: MemoryEstimator) -> str:
    """Return where more GPUs stop helping, in a line."""
    gpus = profile.run.gpus
    batch = f"this batch of {profile.optim.batch_size:,}"
    before = _Crew(gpu, profile)
    half = _crew(profile, gpu, gpus // 2)
    gain = half.seconds(model) / before.seconds(model) if half else HELPS
    if gain < HELPS:
        return f"Fewer GPUs would do: for {batch}, {gpus} are {gain:.2f} times as fast as {gpus // 2}."
    told: list[str] = []
    while 2 * before.profile.run.gpus <= _MOST_TIMES * gpus:
        crew = _crew(profile, gpu, 2 * before.profile.run.gpus)
        if crew is None:
            told.append(f"{2 * before.profile.run.gpus} would have no equal shares of at least {LEAST_PART} images")
            return f"{_up_to(before, gpus)}: for {batch}, {', '.join(told)}."
        ratio = before.seconds(model) / crew.seconds(model)
        told.append(f"{crew.words} would be {ratio:.2f} times as fast as {before.profile.run.gpus}")
        if ratio < HELPS:
            return f"{_up_to(before, gpus)}: for {batch}, {', '.join(told)}."
        before = crew
    return f"More GPUs help up to {before.profile.run.gpus} at least: for {batch}, {', '.join(told)}."


def _up_to(last: _Crew, gpus: int) -> str:
    """Return the number of GPUs beyond which another one is no help."""
    number = last.profile.run.gpus
    return f"Beyond {'these ' if number == gpus else ''}{number}, another GPU stops helping"


def _seconds(profile: TrainProfile, gpu: GpuProfile, model: MemoryEstimator) -> float:
    """Return the middle of the seconds of a step that does not wait for images."""
    unfed = predict_speed(profile, gpu, model.op_costs(profile)).loading.unfed
    machines = gpu.links_among(profile.run.gpus).nodes if profile.run.gpus > 1 else 1
    return profile.optim.batch_size / machines / _middle(unfed)


def _source(links: Links) -> str:
    return f"bytes that the traced step exchanges over the stated shares of {links.name}; not measured"


def _middle(rates: Range) -> float:
    return (rates.low + rates.high) / 2


def _ms(seconds: float) -> float:
    return _rounded(1000 * seconds)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
