"""What the planner expects of a run and where that is from: the part of a training profile that decides nothing."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from attfc_train.cuda_environment import NATIVE_ALLOCATOR, expands
from attfc_train.document import MOST, MOST_BYTES, MOST_SEED, Frozen
from attfc_train.units import Bytes

FRAGMENTATION = "fragmentation"
"""Name of the memory term for what the allocator reserves beyond the bytes alive at the peak."""

NCCL_BUFFERS = "nccl"
"""Name of the memory term for what NCCL holds of a device, which torch's allocator does not see."""


class Interval(Frozen):
    """A figure with its band; `source` says where it is from."""

    low: float
    high: float
    source: str

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low <= high must hold, but got {self.low} and {self.high}")
        return self


class MemoryTerm(Frozen):
    """One line of the memory table."""

    name: str
    bytes: Bytes = Field(ge=0, le=MOST_BYTES)
    source: str
    """``traced``, ``table: ...``, ``measured`` or ``rule: ...``."""


class MemoryPrediction(Frozen):
    """What one train step needs at its peak; the terms add up to `total_bytes`."""

    terms: tuple[MemoryTerm, ...]
    budget_bytes: Bytes = Field(ge=0, le=MOST_BYTES)
    peak_phase: str
    peak_operator: str
    allocator: str | None = None
    """CUDA: the ``PYTORCH_ALLOC_CONF`` that is assumed. None: for a CPU, which has no caching allocator."""
    native_bytes: Bytes | None = Field(None, ge=0, le=MOST_BYTES)
    """What takes the place of `measured_bytes` where expandable segments are assumed and not in force; None: not known."""

    @property
    def total_bytes(self) -> Bytes:
        """The sum of all terms, headroom included."""
        return sum(term.bytes for term in self.terms)

    def without(self, *names: str) -> Bytes:
        """Return the sum of the terms that have other names."""
        return sum(term.bytes for term in self.terms if term.name not in names)

    @property
    def measured_bytes(self) -> Bytes:
        """The part that a run measures as its peak (`attfc_train.run.device_memory`).

        On a CPU that is the resident set, on a GPU what the allocator reserved, so not the context. Neither holds other
        processes or headroom.
        """
        return self.without("foreign", "headroom", *(["context", NCCL_BUFFERS] if self.allocator else []))

    def under(self, setting: str) -> MemoryPrediction:
        """Return the prediction for an allocator setting in force: where it has native segments, with what these reserve."""
        if self.native_bytes is None or not self.assumes_other_segments(setting):
            return self
        more = self.native_bytes - self.measured_bytes
        terms = (_enlarged(term, more) if term.name == FRAGMENTATION else term for term in self.terms)
        return self.model_copy(update={"terms": tuple(terms), "allocator": NATIVE_ALLOCATOR, "native_bytes": None})

    def assumes_other_segments(self, setting: str) -> bool:
        """Return whether this prediction is for another kind of segments than a setting has."""
        return self.allocator is not None and expands(self.allocator) != expands(setting)


def _enlarged(term: MemoryTerm, more: Bytes) -> MemoryTerm:
    return MemoryTerm(name=term.name, bytes=max(0, term.bytes + more), source="traced: replay with native segments")


class Loading(Frozen):
    """What decoding images gives beside a step, and the cores that would do."""

    images_per_core_second: Interval
    """Images of `image_size` that one core of the loader decodes."""
    image_size: int = Field(ge=1, le=MOST)
    host_cores: int | None = Field(None, ge=1, le=MOST)
    """Cores of the host; None: not known."""
    most_threads: int = Field(ge=1, le=MOST)
    """Threads that the loader starts at most."""
    images_per_second: Interval | None
    """Queries that these cores decode, with their references; None: not known, or all decoded images stay in memory."""
    step_images_per_second: Interval
    """Queries that would be trained if decoding took no time."""
    needed_cores: int | None = Field(None, ge=1, le=MOST)
    """Cores that keep up with that; None: all decoded images stay in memory, a CPU does both, or the GPU decodes."""
    is_limit: bool = False
    """Whether training waits for images."""
    device: Literal["cpu", "cuda"] = "cpu"
    """What decodes; of ``cuda`` nothing is known, and it limits nothing."""


class SeveralGpus(Frozen):
    """What a plan for several GPUs says beside the memory of each and the speed of all."""

    links: str
    """How many GPUs there are, on how many machines, and what lies between them."""
    nodes: int = Field(ge=1, le=MOST)
    """Machines, with as many GPUs each."""
    sent_bytes: float = Field(ge=0)
    """That each GPU sends in a step, and receives."""
    exchanges: int = Field(ge=0, le=MOST)
    """Of a step."""
    communication_ms: Interval
    """Of a step, hidden or not."""
    share_of_step: float = Field(ge=0, le=1)
    """Of what the step waits for exchanges, at the middle."""
    hidden_ms: float | None = Field(None, ge=0)
    """The part of it that runs beside the backward pass: gradients. None: a plan from before it did."""
    hideable_ms: float | None = Field(None, ge=0)
    """In plans from before: what could have run so."""
    one_gpu_images_per_second: Interval
    """Of one GPU alone with as large a share of a batch and the whole head, in memory or not."""
    efficiency: float = Field(ge=0)
    """Images per second of all over those of as many GPUs alone, without waiting for images."""
    more_gpus: str
    """Where more GPUs stop helping, in a line."""


class PhaseSeconds(Frozen):
    """What one phase of a step (`attfc_train.phase`) takes, for ``attfc-train profile-step`` to compare with."""

    phase: str = Field(max_length=40)
    low: float = Field(ge=0)
    high: float = Field(ge=0)


class Prediction(Frozen):
    """What the planner expects of the run."""

    memory: MemoryPrediction
    images_per_second: Interval
    hours_per_epoch: Interval | None
    """None where the number of images is not known."""
    limited_by: str
    phases: tuple[PhaseSeconds, ...] = Field((), max_length=40)
    """Of a step, in its order; empty where an older attfc did not say."""
    loading: Loading | None = None
    """None where an older attfc did not say."""
    hours: Interval | None = None
    """To train all epochs; None where the number of images is not known."""
    accuracy: Interval
    """Points of verification accuracy relative to a full FC layer; a prior until `tune` has measured."""
    bytes_per_identity: float | None = Field(None, ge=0)
    """Bytes that the head keeps on the device between steps (buffers, parameters and their momentum), over the identities; None
    where an older attfc did not say."""
    several: SeveralGpus | None = None
    """None: for one GPU. `memory` is that of each of several, `images_per_second` that of all together."""

    @model_serializer(mode="wrap")
    def _without_several_that_are_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # So a plan for one GPU is the document that it was before there were plans for several.
        document: dict[str, Any] = dump(self)
        if self.several is None:
            document.pop("several", None)
        return document


class Provenance(Frozen):
    """Where a profile comes from."""

    attfc_version: str
    torch_version: str
    created: str
    gpu: str
    gpu_source: str
    command: str
    seed: int = Field(ge=0, le=MOST_SEED)
    num_trials: int = Field(ge=0, le=MOST)
    digest: str | None = None
    """Of the rest of the file as it was written; an edited file has another (`attfc_train.profile.former`)."""
