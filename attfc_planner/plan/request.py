"""The request of a plan, and what follows from it for a device: limits and precisions."""

from __future__ import annotations

from dataclasses import dataclass

from attfc_planner.accuracy.prior_features import PRIORS
from attfc_planner.gpu.links import LinkName
from attfc_planner.gpu.profile import TENSOR_FIELD, GpuProfile
from attfc_planner.search.choose import Preference
from attfc_planner.search.comparison import OURS, PLAIN_KINDS
from attfc_planner.search.constraints import Limits
from attfc_planner.search.tuned import tried_kinds
from attfc_planner.speed.loading import STATED, DecodeRate
from attfc_planner.speed.model import rate_of
from attfc_train.document import Precision
from attfc_train.errors import UsageError
from attfc_train.heads.kinds import BASELINE, HEADS
from attfc_train.heads.settings import MarginSettings
from attfc_train.profile.profile import TrainProfile
from attfc_train.profile.teacher import NO_TEACHER, TeacherSettings
from attfc_train.run.several import SHARED_HEADS
from attfc_train.units import Bytes, format_bytes

BEST_FIRST: tuple[Precision, ...] = ("bf16", "fp16", "fp32")

AUTO_HEAD = "auto"
"""Stands for AttFC and the layers that everybody has, a full FC layer and Partial FC; where heads are tried, for all kinds."""
ANY_HEAD = "any"
"""Stands for all kinds of heads."""

EQUAL_RATES = 0.05
"""Relative difference of ceilings below which two precisions count as equally fast: no probe can tell them apart."""


@dataclass(frozen=True)
class PlanRequest:
    """The options of a plan, checked by the command line."""

    num_ids: int
    num_images: int | None = None
    data_path: str | None = None
    backbone: str = "r50"
    head: str = "attfc"
    """A key of `attfc_train.heads.kinds.HEADS`, `AUTO_HEAD` or `ANY_HEAD`."""
    tries_heads: bool = False
    """Whether what is planned is then tried: `AUTO_HEAD` means all kinds, also those of which nothing is known, and the plan
    is not compared with anything."""
    compared: tuple[str, ...] = ()
    """Backbones to choose from, `backbone` among them, each known to `attfc_planner.accuracy.prior.BACKBONE`; none: no
    choice."""
    image_size: int = 112
    precision: Precision | None = None
    """None: bf16 where the device has it, else fp16, else fp32."""
    compile: bool = False
    """Whether the encoders' passes are compiled."""
    channels_last: bool = False
    """Whether images and filters lie in memory with their channels side by side."""
    epochs: float = 5.0
    max_accuracy_drop: float = 1.0
    max_hours: float | None = None
    """Longest time to train all epochs; `num_images` must be known."""
    max_memory_bytes: Bytes | None = None
    prefer: Preference = "balanced"
    tuned: TrainProfile | None = None
    """Written by ``attfc-plan tune`` for these data: its trainings take the place of the accuracy prior."""
    val: tuple[str, ...] = ()
    teacher: TeacherSettings = NO_TEACHER
    """Of which architecture and image size are known, where there is one."""
    embedding_size: int | None = None
    """None: the recipe's."""
    decoding: DecodeRate = STATED
    """What a core of the host decodes a second; measured where the data are here."""
    cores: int | None = None
    """Of the host of a GPU; None: those that are here, or unknown."""
    gpus: int = 1
    """That train together, on all machines."""
    nodes: int = 1
    """Machines with as many of them each."""
    link: LinkName | None = None
    """The slowest between them; None: see `attfc_planner.gpu.links.links_between`."""
    num_trials: int = 40
    seed: int = 0
    command: str = "attfc-plan"

    @property
    def is_free(self) -> bool:
        """Return whether the kind of head is the plan's to choose."""
        return self.head in (AUTO_HEAD, ANY_HEAD)


def limits_of(request: PlanRequest, gpu: GpuProfile) -> Limits:
    """Return the limits that the options set.

    Raises:
        UsageError: more memory than the device has, or hours for an unknown number of images.
    """
    wanted = request.max_memory_bytes
    if wanted is not None and wanted > gpu.capacity_bytes:
        has = format_bytes(gpu.capacity_bytes)
        raise UsageError(f"--max-memory must be at most the {has} of {gpu.name}", format_bytes(wanted), "Leave it out for all.")
    if request.max_hours is not None and request.num_images is None:
        raise UsageError("--max-hours needs the number of images", "none", "Give --images or --data.")
    budget = min(gpu.capacity_bytes, wanted + gpu.foreign_bytes) if wanted else gpu.capacity_bytes  # others are not charged
    return Limits(budget, request.max_accuracy_drop, request.max_hours)


def kinds_of(request: PlanRequest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the kinds of heads to search, and why others are not.

    A kind without an accuracy prior counts as level with a full FC layer, so it would win by speed alone.

    Raises:
        UsageError: the kind that was asked for cannot be shared by several GPUs.
    """
    if not request.is_free:
        _check_shared(request.head, request.gpus)
        return (request.head,), ()
    known = tuple(kind for kind in HEADS if kind in PRIORS or request.tries_heads)
    unknown = [kind for kind in HEADS if kind not in known]
    left_out = tuple(
        f"head {kind}: nothing is known of its accuracy; 'attfc-plan tune --head any' tries it" for kind in unknown
    )
    if request.gpus > 1:
        left_out += tuple(f"head {kind}: {SHARED_HEADS}" for kind in known if not is_shared(kind))
        known = tuple(kind for kind in known if is_shared(kind))
    if request.head == ANY_HEAD or request.tries_heads:
        return known, left_out
    tried = tried_kinds(request.tuned) if request.tuned else ()
    usual = {*(tried or (OURS, *PLAIN_KINDS)), BASELINE}
    return tuple(kind for kind in known if kind in usual), left_out


def is_shared(kind: str) -> bool:
    """Return whether several GPUs can share a kind of head."""
    return HEADS[kind].settings.recommended(MarginSettings()).is_shared


def _check_shared(kind: str, gpus: int) -> None:
    if gpus > 1 and not is_shared(kind):
        sharing = ", ".join(other for other in HEADS if is_shared(other))
        raise UsageError(SHARED_HEADS, f"--head {kind} and --gpus {gpus}", f"Use --head {sharing}, or leave --gpus out.")


def precisions(wanted: Precision | None, gpu: GpuProfile) -> tuple[tuple[Precision, ...], tuple[str, ...]]:
    """Return the precisions to search, and why the others of the device are not.

    Without a wish, a precision is left out where one with as many bytes or fewer (which comes first in `BEST_FIRST`) has a
    ceiling as high: that is faster in every operator, and the accuracy prior knows no difference.
    """
    if wanted is not None:
        return (choose_precision(wanted, gpu),), ()
    kept: list[Precision] = []
    left_out = []
    for precision in (each for each in BEST_FIRST if gpu.supports(each)):
        least_rate = (1 - EQUAL_RATES) * rate_of("conv", gpu, precision)
        better = next((other for other in kept if gpu.ceiling(TENSOR_FIELD[other]) >= least_rate), None)
        if better:
            left_out.append(
                f"precision {precision}: {better} takes no more bytes and its arithmetic is no slower on {gpu.name}"
            )
        else:
            kept.append(precision)
    return tuple(kept), tuple(left_out)


def choose_precision(wanted: Precision | None, gpu: GpuProfile) -> Precision:
    """Return `wanted` if the device has it; without a wish the best 16-bit format, else fp32.

    Raises:
        UsageError: the device has no such arithmetic.
    """
    supported = [precision for precision in BEST_FIRST if gpu.supports(precision)]
    if wanted is None:
        return supported[0]
    if wanted not in supported:
        raise UsageError(
            f"--precision must be one of {', '.join(supported)} on {gpu.name}", wanted, "Leave it out to choose the best."
        )
    return wanted
