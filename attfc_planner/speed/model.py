"""Images per second of one train step on a device, from its operators' FLOPs and bytes over the device's ceilings.

Each operator takes the longer of its arithmetic and its memory traffic; the operators of a step run one after another. The copy
of the next batch to the device (`attfc_train.step.input_buffers`) and its decoding (`attfc_planner.speed.loading`) run beside
the step, so the slowest of the three decides; that the copy does was never measured on a GPU. Every ceiling is multiplied by an
efficiency (`attfc_planner.speed.efficiency`): a stated range, or what a calibration on the device found with the error that it
had, so the result is an interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attfc_planner.gpu.calibration import Calibration
from attfc_planner.gpu.links import Links
from attfc_planner.gpu.profile import GpuProfile
from attfc_planner.speed.communication import communication
from attfc_planner.speed.efficiency import Efficiencies, Range, calibrated_efficiencies, efficiencies
from attfc_planner.speed.loading import STATED, DecodeRate, LoadingSpeed, decoding_words, loading_speed
from attfc_train.document import Precision
from attfc_train.profile.prediction import Interval
from attfc_train.profile.profile import TrainProfile
from attfc_train.timing.arithmetic import arithmetic_of
from attfc_train.timing.kernels import SlotKernels
from attfc_train.timing.op_cost import KERNELS, OpCost, OpKind
from attfc_train.units import Bytes

_GROUP_OF_PHASE = {
    "references": "class encoder",
    "teacher": "teacher",
    "forward": "feature encoder",
    "backward": "feature encoder",
    "loss": "loss",
    "enqueue": "loss",
    "update": "optimiser",
    "momentum": "optimiser",
}


@dataclass(frozen=True)
class SpeedTerm:
    """Seconds of one part of a step, pessimistic (`slow`) and optimistic (`fast`), and what bounds it."""

    name: str
    bound: str
    slow: float
    fast: float

    @property
    def middle(self) -> float:
        """Return the geometric mean."""
        return float((self.slow * self.fast) ** 0.5)


@dataclass(frozen=True)
class SpeedPrediction:
    """Speed of one setting on one device."""

    images_per_second: Interval
    limited_by: str
    loading: LoadingSpeed
    """What the host decodes; `images_per_second` is never more."""
    phases: tuple[SpeedTerm, ...] = ()
    """The step's phases (`attfc_train.phase`), in ``input`` what is waited for the copy, and of several GPUs the exchanges."""

    def with_steps(self, rate: float, source: str) -> SpeedPrediction:
        """Return the speed with steps that were measured without loading data, which a training does too."""
        loading = self.loading.beside(Range(rate, rate))
        trained = loading.trained(rate, loading.ceiling)
        limit = loading.words if loading.is_limit else "train step" if self.loading.is_limit else self.limited_by
        return replace(
            self,
            images_per_second=Interval(low=_rounded(trained), high=_rounded(trained), source=source),
            limited_by=limit,
            loading=loading,
        )


def predict_speed(
    profile: TrainProfile, gpu: GpuProfile, costs: Iterable[OpCost], decoding: DecodeRate = STATED
) -> SpeedPrediction:
    """Return queries per second while training.

    Args:
        profile: resolved; its precision must be one that `gpu` supports.
        costs: FLOPs and bytes of one train step of `profile`, counted on a CPU.
        decoding: what a core decodes.
    """
    calibration = calibration_for(gpu, profile.run.precision)
    table = efficiencies_of(gpu, profile.run.precision)
    costs = on_device(costs, profile, gpu, table)
    priced = _priced(costs, gpu, profile.run.precision, table)
    step, terms = _step(priced, gpu, table)
    phases = _phase_terms(priced, gpu, table)
    machines = 1
    if profile.run.gpus > 1:
        links = gpu.links_among(profile.run.gpus)
        waited = communication(costs, links).waited(last_backward(phases, profile))
        step, terms = _exchanging(step, terms, waited, links)
        phases = (*phases, terms[-1])
        machines = links.nodes
    copy = input_copy(profile, gpu)
    phases = _waiting_for(copy, step, phases)
    # images/s = B / max(step, copy, decoding), at the slow ends and at the fast ends; on a CPU, which copies nothing, the sum.
    batch_size = profile.optim.batch_size / machines  # each machine decodes for its own GPUs
    unfed = Range(batch_size / max(step.slow, copy.slow), batch_size / max(step.fast, copy.fast))
    loading = loading_speed(profile, gpu, decoding, unfed)
    low, high = (machines * loading.trained(*ends) for ends in _ends(unfed, loading.fed))
    source = _source(gpu, calibration, table) + (
        f"; at most what {decoding_words(loading.cores or 0)}" if loading.is_limit else ""
    )
    rate = Interval(low=_rounded(low), high=_rounded(high), source=source)
    limit = loading.words if loading.is_limit else _limit(step, copy, terms)
    return SpeedPrediction(rate, limit, loading, phases)


def calibration_for(gpu: GpuProfile, precision: Precision) -> Calibration | None:
    """Return the device's calibration, if it is about this precision."""
    return gpu.calibration if gpu.calibration is not None and gpu.calibration.precision == precision else None


def efficiencies_of(gpu: GpuProfile, precision: Precision) -> Efficiencies:
    """Return the calibrated shares of a device's ceilings in a precision, or else the stated ones."""
    calibration = calibration_for(gpu, precision)
    if calibration is None:
        return efficiencies(gpu, precision)
    return calibrated_efficiencies(calibration.speed, calibration.speed_error)


def on_device(costs: Iterable[OpCost], profile: TrainProfile, gpu: GpuProfile, table: Efficiencies) -> tuple[OpCost, ...]:
    """Return the operators of a step as the device makes them: on a GPU with the slots' kernels, where they are faster.

    A run measures passes alone, both ways, and takes the faster one too (`attfc_train.losses.choose`): each pass of a container
    by itself, so that one may be a kernel and the other go through chunks; both of a learned layer together.
    """
    counted = tuple(costs)
    kernels = SlotKernels.of(profile, gpu.triton_card)
    if kernels is None:
        return counted
    if kernels.kernel.must_be_taken:
        return kernels.fused(counted)
    taken: list[str] = []
    for phases in kernels.choices:
        chunks = [cost for cost in counted if cost.is_over_slots and cost.phase in phases]
        ways = (chunks, kernels.fused(chunks, phases))
        chunked, fused = (step_seconds(way, gpu, profile.run.precision, table)[0].middle for way in ways)
        taken += phases if fused < chunked else ()
    return kernels.fused(counted, taken)


def step_seconds(
    costs: Iterable[OpCost], gpu: GpuProfile, precision: Precision, table: Efficiencies
) -> tuple[SpeedTerm, tuple[SpeedTerm, ...]]:
    """Return the time of one train step on a batch that is on the device already, and the parts that it consists of.

    Args:
        costs: as the device makes them (`on_device`).
    """
    return _step(_priced(tuple(costs), gpu, precision, table), gpu, table)


def _step(priced: _Priced, gpu: GpuProfile, table: Efficiencies) -> tuple[SpeedTerm, tuple[SpeedTerm, ...]]:
    terms = _terms([_GROUP_OF_PHASE.get(phase, "input") for phase in priced.phases], priced)
    return _whole_step(terms, int(priced.launches.sum()), gpu, table), terms


def last_backward(phases: Iterable[SpeedTerm], profile: TrainProfile) -> Range:
    """Return the seconds of a step's last backward pass in which gradients appear one by one.

    Args:
        phases: as `SpeedPrediction` has them.
    """
    if profile.run.compile:  # its gradients are all there at its end
        return Range(0.0, 0.0)
    backward = [term for term in phases if term.name == "backward"]
    passes = profile.num_passes
    return Range(sum(term.slow for term in backward) / passes, sum(term.fast for term in backward) / passes)


def _exchanging(
    step: SpeedTerm, terms: tuple[SpeedTerm, ...], waited: Range, links: Links
) -> tuple[SpeedTerm, tuple[SpeedTerm, ...]]:
    """Return a step and its parts with what it waits for exchanges."""
    exchanges = SpeedTerm("communication", links.name, waited.low, waited.high)
    whole = replace(step, slow=step.slow + exchanges.slow, fast=step.fast + exchanges.fast)
    return whole, (*terms, exchanges)


def hours_per_epoch(images_per_second: Interval, num_images: int | None) -> Interval | None:
    """Return the hours to see `num_images` once; None where their number is not known."""
    if num_images is None:
        return None
    low, high = (_rounded(num_images / rate / 3600) for rate in (images_per_second.high, images_per_second.low))
    return Interval(low=low, high=high, source=f"{num_images:,} images / images per second")


class _Priced(NamedTuple):
    """N operators with the time that each takes on the device."""

    phases: list[str]
    seconds: NDArray[np.float64]
    """[N, 2], at the slow end and at the fast one."""
    is_arithmetic: list[bool]
    """Whether it takes longer to compute than to read and write."""
    launches: NDArray[np.int64]
    """[N], its calls."""


def _priced(costs: tuple[OpCost, ...], gpu: GpuProfile, precision: Precision, table: Efficiencies) -> _Priced:
    """Return the operators' device seconds."""
    # Roofline: an operator takes max(FLOPs / (ceiling * share), bytes / (bandwidth * share)) seconds, at the slow end and at
    # the fast one. All operators at once: rows are operators, columns the two ends.
    costs = tuple(cost for cost in costs if cost.kind != "exchange")
    if not costs:
        return _Priced([], np.zeros((0, 2)), [], np.zeros(0, np.int64))
    by_kind = _rates(costs, gpu, precision, table)
    rates = np.array([by_kind[cost.kind] for cost in costs])
    flops, moved, launches = (np.array(column) for column in zip(*map(_counted, costs), strict=True))
    work = flops[:, None] / rates[:, :2]
    traffic = moved[:, None] / rates[:, 2:]
    is_arithmetic = work.sum(axis=1) > traffic.sum(axis=1)
    return _Priced([cost.phase for cost in costs], np.maximum(work, traffic), is_arithmetic.tolist(), launches)


def _terms(names: Sequence[str], priced: _Priced) -> tuple[SpeedTerm, ...]:
    """Return device seconds by name and bound.

    Args:
        names: [N], the part that each operator belongs to.
    """
    bounds = ("arithmetic" if each else "memory bandwidth" for each in priced.is_arithmetic)
    place: dict[tuple[str, str], int] = {}
    places = [place.setdefault(part, len(place)) for part in zip(names, bounds, strict=True)]
    if not place:
        return ()
    slow, fast = (np.bincount(places, weights=priced.seconds[:, end]).tolist() for end in (0, 1))
    return tuple(SpeedTerm(*part, slow[i], fast[i]) for part, i in place.items())


def _waiting_for(copy: SpeedTerm, step: SpeedTerm, phases: tuple[SpeedTerm, ...]) -> tuple[SpeedTerm, ...]:
    """Return the phases with what a step waits for its copy, which began when the step before did."""
    slow = max(0.0, copy.slow - step.slow)
    fast = max(0.0, copy.fast - step.fast)
    return tuple(
        replace(term, slow=term.slow + slow, fast=term.fast + fast) if term.name == "input" else term for term in phases
    )


def _phase_terms(priced: _Priced, gpu: GpuProfile, table: Efficiencies) -> tuple[SpeedTerm, ...]:
    """Return the seconds of each phase; all together they are the step's."""
    names = list(dict.fromkeys(priced.phases))
    place = {name: number for number, name in enumerate(names)}
    places = [place[name] for name in priced.phases]
    calls = np.bincount(places, weights=priced.launches) if places else np.zeros(0)
    ends = []
    for end, launch in enumerate((table.launch_seconds.low, table.launch_seconds.high)):
        device = np.bincount(places, weights=priced.seconds[:, end]) if places else np.zeros(0)
        host = calls * launch
        # As the whole step: on a CPU both add up; on a GPU the longer of the two decides, for all phases alike.
        whole = device + host if gpu.kind == "cpu" else max(device, host, key=lambda each: float(each.sum()))
        ends.append(whole.tolist())
    return tuple(SpeedTerm(name, "", slow, fast) for name, slow, fast in zip(names, *ends, strict=True))


def _counted(cost: OpCost) -> tuple[float, float, int]:
    return float(cost.flops), float(cost.bytes_read_written), cost.count


def _rates(
    costs: Iterable[OpCost], gpu: GpuProfile, precision: Precision, table: Efficiencies
) -> dict[str, tuple[float, float, float, float]]:
    """Return kind -> FLOP/s and bytes/s that its operators reach, each at the slow end and at the fast one."""
    bandwidth = gpu.ceiling("memory_bandwidth_bytes_per_second")
    rates = {}
    for kind in {cost.kind for cost in costs}:
        ceiling = rate_of(kind, gpu, precision)
        named = "loss" if kind in KERNELS else kind
        share = table.arithmetic.get(named, table.arithmetic["matmul"])
        reached = table.bandwidth.get(named, table.bandwidth["default"])
        rates[str(kind)] = (
            ceiling * share.low,
            ceiling * share.high,
            bandwidth * reached.low,
            bandwidth * reached.high,
        )
    return rates


def rate_of(kind: OpKind, gpu: GpuProfile, precision: Precision) -> float:
    """Return the FLOP/s that a device allows a kind of operator: those of the arithmetic that it uses."""
    has_tf32 = gpu.tf32_flops is not None
    arithmetic = arithmetic_of(kind, precision, has_tf32)
    if arithmetic == "bf16" and not gpu.supports("bf16"):  # a profile of one's own may leave it out
        arithmetic = arithmetic_of("wide kernel", precision, has_tf32)
    return gpu.ceiling(f"{arithmetic}_flops")


def _whole_step(terms: tuple[SpeedTerm, ...], launches: int, gpu: GpuProfile, table: Efficiencies) -> SpeedTerm:
    """Return the sum of the parts and the launches: on a GPU launching hides behind the work, on a CPU it adds."""
    launch = table.launch_seconds
    slow = sum(term.slow for term in terms)
    fast = sum(term.fast for term in terms)
    # CPU: work + launches.  GPU: max(work, launches), as the host runs ahead of the device until it cannot keep up.
    if gpu.kind == "cpu":
        return SpeedTerm("step", "", slow + launches * launch.low, fast + launches * launch.high)
    host = SpeedTerm("kernel launches", "host", launches * launch.low, launches * launch.high)
    name = "kernel launches" if host.middle > (slow * fast) ** 0.5 else "step"
    return SpeedTerm(name, "host", max(slow, host.slow), max(fast, host.fast))


def _ends(unfed: Range, fed: Range | None) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the rates of step and decoding at the slow end and at the fast one; decoding that limits nothing is infinite."""
    decoded = Range(math.inf, math.inf) if fed is None else fed
    return (unfed.low, decoded.low), (unfed.high, decoded.high)


def input_copy(profile: TrainProfile, gpu: GpuProfile) -> SpeedTerm:
    """Return the time to copy the uint8 images to the device, at 50 to 90 % of the bus's rate; a CPU needs no copy."""
    num_bytes = input_bytes(profile) if gpu.kind == "cuda" else 0
    rate = gpu.ceiling("pcie_bytes_per_second")
    return SpeedTerm("input copy", "PCIe", num_bytes / (rate * 0.5), num_bytes / (rate * 0.9))


def input_bytes(profile: TrainProfile) -> Bytes:
    """Return the bytes of one GPU's batch of uint8 RGB images, references included."""
    return profile.gpu_batch_size * (1 + profile.num_references) * 3 * profile.model.image_size**2


def _limit(step: SpeedTerm, copy: SpeedTerm, terms: tuple[SpeedTerm, ...]) -> str:
    slowest = max(step, copy, key=lambda term: term.middle)
    if slowest is step and step.name == "step":
        slowest = max(terms, key=lambda term: term.middle)
    return f"{slowest.name} ({slowest.bound})"


def _source(gpu: GpuProfile, calibration: Calibration | None, table: Efficiencies) -> str:
    ceilings = "measured" if gpu.measured else "datasheet"
    counted = f"operators' FLOPs and bytes over the {ceilings} ceilings of {gpu.name}"
    if calibration is not None:
        return f"{counted}, times efficiencies {calibration.speed_source}"
    return f"{counted}, times {table.basis}; not calibrated"


def _rounded(value: float) -> float:
    """Return four significant digits."""
    return float(f"{value:.4g}")
