"""The profile of a train step: the device's ceilings, the step's counted work, and real steps that are timed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from attfc_train.data.batch import Batch
from attfc_train.data.card import open_card
from attfc_train.data.dataset import FaceDataset
from attfc_train.errors import UsageError
from attfc_train.losses.card import Card
from attfc_train.optim.precision import prepare_device
from attfc_train.profile.file import resolve_profile
from attfc_train.profile.profile import TrainProfile
from attfc_train.ranks.ranks import ALONE
from attfc_train.run.dataset import opened_data, resolved_for
from attfc_train.run.device_memory import forget_peak
from attfc_train.run.out_of_memory import memory_is_enough
from attfc_train.run.preflight import check_start
from attfc_train.run.run import new_loader
from attfc_train.run.teacher import OpenTeacher, new_teacher
from attfc_train.step.build import build
from attfc_train.step.compiled import compile_encoders
from attfc_train.timing.ceilings import Ceilings, measured_ceilings
from attfc_train.timing.counting import counted_step
from attfc_train.timing.kernels import PHASES, SlotKernels
from attfc_train.timing.limits import limit_line, phase_times
from attfc_train.timing.marks import WAITING
from attfc_train.timing.op_cost import OpCost, OpKind
from attfc_train.timing.report import CeilingRates, StepReport
from attfc_train.timing.steps import StepTimes, num_steps, timed_steps, traced_steps
from attfc_train.units import Bytes

_STEPS_WITHOUT_DATA = 10_000
"""Length of a run that nobody said: it changes rates and margins, and no time."""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is profiled."""

    device: torch.device
    steps: int
    """Timed with marks; as many again are timed without."""
    trace: Path | None = None
    """Receives a Chrome trace of some more steps."""


def profile_step(
    profile: TrainProfile, options: StepOptions, say: Callable[[str], None], open_teacher: OpenTeacher | None = None
) -> StepReport:
    """Build the state of a training, make some of its steps, and report where their time goes.

    Args:
        profile: ``data.path`` is trained on; None: random images, for ``data.num_ids`` identities.
        say: prints a line beside the report.
        open_teacher: opens the profile's teacher, where it has one.

    Raises:
        UsageError, ProfileError, DataError, DeviceMemoryError, StorageError: see `attfc_train.errors`.
    """
    device = options.device
    precision = profile.run.precision
    profile, teacher = new_teacher(profile, open_teacher)
    dataset = None if profile.data.path is None else opened_data(profile)
    resolved = _long_enough(_resolved(profile, dataset), num_steps(options.steps, options.trace is not None))
    check_start(resolved, device, True, say)
    prepare_device(device, precision)
    counted = counted_step(resolved)
    kinds = _kinds(counted, resolved, device)
    with memory_is_enough(device):
        ceilings = measured_ceilings(device, precision, kinds)
        forget_peak(device)  # gives back what that took
        state = build(resolved, device, teacher=teacher.network if teacher else None)
    costs = as_made(counted, resolved, device, state.head.kernel_phases)
    compile_encoders(state)
    with _batches(resolved, dataset, device) as batches:
        times = timed_steps(state, batches, options.steps)
        if options.trace is not None:
            traced_steps(state, batches, options.trace)
    del state
    forget_peak(device)
    ceilings = ceilings.or_better(measured_ceilings(device, precision, kinds))
    return step_report(resolved, device, options.steps, times, costs, ceilings)


def as_made(
    costs: tuple[OpCost, ...], profile: TrainProfile, device: torch.device, phases: Collection[str] = PHASES
) -> tuple[OpCost, ...]:
    """Return the operators of a step as a device makes them.

    Args:
        costs: counted on a CPU.
        phases: those in which the run passes over the slots in a kernel, where there is one.
    """
    kernels = SlotKernels.of(profile, Card.of(device)) if device.type == "cuda" else None
    return costs if kernels is None else kernels.fused(costs, phases)


def _kinds(counted: tuple[OpCost, ...], profile: TrainProfile, device: torch.device) -> set[OpKind]:
    """Return the kinds of operators that have FLOPs, whichever way the run will pass over the slots."""
    return {cost.kind for cost in (*counted, *as_made(counted, profile, device)) if cost.flops}


def step_report(
    profile: TrainProfile, device: torch.device, steps: int, times: StepTimes, costs: tuple[OpCost, ...], ceilings: Ceilings
) -> StepReport:
    """Return the report of what was measured and counted.

    Args:
        profile: resolved.
        steps: that were timed with marks.
    """
    seconds = times.phases if profile.data.path is None else {WAITING: times.waiting, **times.phases}
    planned = profile.prediction if profile.prediction and _is_for(profile, device) else None
    copied = _copied_bytes(profile) if device.type == "cuda" else 0
    rows = phase_times(seconds, costs, ceilings, copied, planned.phases if planned else ())
    return StepReport(
        profile=profile.name,
        model=profile.model.backbone,
        head=profile.head.describe(),
        image_size=profile.model.image_size,
        batch_size=profile.optim.batch_size,
        accumulation=profile.optim.accumulation,
        precision=profile.run.precision,
        device=str(device),
        device_name=_device_name(device),
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        data=profile.data.path,
        steps=steps,
        step_seconds=times.marked,
        unmarked_step_seconds=times.unmarked,
        marks=times.marks,
        mark_seconds=times.mark,
        images_per_second=profile.optim.batch_size / sum(seconds.values()),
        ceilings=CeilingRates(
            flops_per_second=ceilings.flops[profile.run.precision],
            by_arithmetic=dict(ceilings.flops),
            bytes_per_second=ceilings.bandwidth,
            copy_bytes_per_second=ceilings.copy_rate,
        ),
        phases=rows,
        limit=limit_line(rows, costs, ceilings),
        predicted_for=profile.provenance.gpu if planned and planned.phases and profile.provenance else None,
        torch_version=torch.__version__,
    )


def _resolved(profile: TrainProfile, dataset: FaceDataset | None) -> TrainProfile:
    """Return the profile with the numbers of its data, or those that it has.

    Raises:
        UsageError: there is neither.
        ProfileError: the profile breaks a rule with these numbers.
    """
    if dataset is not None:
        return resolved_for(profile, dataset)
    num_ids = profile.data.num_ids
    if num_ids is None:
        raise UsageError(
            "profile-step must know the number of identities",
            "neither --data nor data.num_ids",
            "Example: --data synthetic:500x20, or --set data.num_ids=2M for random images.",
        )
    if profile.run.steps is None and profile.data.num_images is None:
        profile = profile.model_copy(update={"run": profile.run.with_steps(_STEPS_WITHOUT_DATA)})
    return resolve_profile(profile, num_ids, profile.data.num_images)


def _long_enough(profile: TrainProfile, steps: int) -> TrainProfile:
    """Return the profile of a run that has so many steps."""
    return profile if profile.total_steps >= steps else profile.lasting(steps)


def _is_for(profile: TrainProfile, device: torch.device) -> bool:
    """Return whether a plan was made for this type of device."""
    assert profile.prediction is not None
    return (profile.prediction.memory.allocator is not None) == (device.type == "cuda")


@contextmanager
def _batches(profile: TrainProfile, dataset: FaceDataset | None, device: torch.device) -> Iterator[Iterator[Batch]]:
    """Give the batches of the loader that a training has, whose threads end with the context; without data one, for ever."""
    if dataset is None:
        yield _always(Batch.random(profile, device))
        return
    card = open_card(device) if profile.data.device == "cuda" else None
    loader = new_loader(profile, dataset, device, ALONE, card)
    with closing(loader.batches(0, profile.total_steps)) as batches:
        yield batches


def _always(batch: Batch) -> Iterator[Batch]:
    while True:
        yield batch


def _copied_bytes(profile: TrainProfile) -> Bytes:
    batch = Batch.example(profile, torch.device("meta"))
    return batch.query.nbytes + batch.references.nbytes + batch.flips.nbytes + batch.labels.nbytes


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()
