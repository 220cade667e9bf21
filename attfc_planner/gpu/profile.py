"""The GPU profile: the figures of one device, and where each number is from.

The catalogue (`profiles/gpus/*.json`) is made of these, and so is what `attfc-plan --gpu auto` finds. Rates are per second,
dense (never structured-sparse) and for fp32 accumulation; capacities are bytes; power is watts. A number without a source is
refused: nobody can check a figure that does not say where it is from.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from attfc_planner.gpu.calibration import Calibration
from attfc_planner.gpu.links import LinkName, Links, links_between
from attfc_train.document import MOST, MOST_BYTES, Frozen, Precision
from attfc_train.errors import UsageError
from attfc_train.losses.card import Card
from attfc_train.units import Bytes, format_bytes

Architecture = Literal["pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell", "cpu"]

THIS_HOST = "sched_getaffinity of this process"
"""Source of the number of cores of a machine that is here."""
NOT_IN_CATALOGUE = "this-gpu"
"""Slug of a GPU that is here and that no card of the catalogue stands for: its rates are measured."""

TENSOR_FIELD: dict[Precision, Literal["fp32_flops", "fp16_flops", "bf16_flops"]] = {
    "fp32": "fp32_flops",
    "fp16": "fp16_flops",
    "bf16": "bf16_flops",
}


class GpuProfile(Frozen):
    """One device to plan for: a card of the catalogue, the card that is here, or this machine's CPU and RAM."""

    name: str
    slug: str = Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")
    aliases: tuple[str, ...] = ()
    """Other names of the same device, such as the driver's."""
    kind: Literal["cuda", "cpu"]
    architecture: Architecture
    compute_capability: float | None = Field(None, gt=0)
    """CUDA compute capability, such as 8.9; None for a CPU."""
    capacity_bytes: Bytes = Field(gt=0, le=MOST_BYTES)
    """Device memory that CUDA offers, which is less than nvidia-smi's total; a CPU: RAM in total."""
    foreign_bytes: Bytes = Field(0, ge=0, le=MOST_BYTES)
    """Memory that others hold now; 0 for a card of the catalogue."""
    holders: tuple[str, ...] = ()
    """The processes that hold it, the most first, as far as the driver tells."""
    memory_bandwidth_bytes_per_second: float = Field(gt=0)
    fp32_flops: float = Field(gt=0)
    """Plain fp32 outside the tensor cores."""
    tf32_flops: float | None = Field(None, gt=0)
    fp16_flops: float | None = Field(None, gt=0)
    """Tensor-core fp16 with fp32 accumulation where there are tensor cores. None: not supported."""
    bf16_flops: float | None = Field(None, gt=0)
    pcie_bytes_per_second: float = Field(gt=0)
    """Host to device, one direction."""
    max_power_watts: float | None = Field(None, gt=0)
    num_cores: int | None = Field(None, ge=1, le=MOST)
    """Host cores for decoding images; None: the host is not known (``--cores`` says it)."""
    driver: str | None = None
    native_segments: str | None = None
    """Why torch's allocator has native segments on this device; None: it has the expandable ones that attfc asks for."""
    measured: dict[str, float] | None = None
    """What was measured on this very device, by name: the probes' rates replace the ceilings (see `ceiling`), the figures of
    a calibration replace tables (`attfc_planner.memory.overheads`) and stated ranges (`attfc_planner.speed.efficiency`)."""
    links: Links | None = None
    """Between this device and others like it that train with it; None: nothing was said."""
    calibration: Calibration | None = None
    """Where the calibrated figures in `measured` are from, and how well they agree."""
    sources: dict[str, str]
    """Field name -> where its number is from."""

    @model_validator(mode="after")
    def _every_number_has_a_source(self) -> Self:
        missing = sorted(name for name, value in self if _needs_source(name, value) and not self.sources.get(name))
        if missing:
            raise ValueError(f"every number needs an entry in 'sources', but these have none: {', '.join(missing)}")
        unknown = sorted(set(self.sources) - set(type(self).model_fields))
        if unknown:
            raise ValueError(f"'sources' names fields that do not exist: {', '.join(unknown)}")
        return self

    def calibrated(self, calibration: Calibration) -> GpuProfile:
        """Return this device with the figures of a calibration in place of any former ones."""
        rates = self.without_calibration().measured or {}
        return self.model_copy(update={"measured": {**rates, **calibration.values}, "calibration": calibration})

    def without_calibration(self) -> GpuProfile:
        """Return this device as the probes alone know it."""
        if self.calibration is None:
            return self
        rates = {name: value for name, value in (self.measured or {}).items() if name not in self.calibration.values}
        return self.model_copy(update={"measured": rates or None, "calibration": None})

    def in_host(self, cores: int | None) -> GpuProfile:
        """Return this device in a host of so many cores; None: unchanged.

        Raises:
            UsageError: it is a CPU.
        """
        if cores is None or cores == self.num_cores:
            return self
        if self.kind == "cpu":
            rule = "--cores must be about the host of a GPU"
            raise UsageError(rule, f"{cores} for {self.name}", "Leave it out: a CPU trains and decodes on its own cores.")
        instead = f", in place of {self.sources['num_cores']}" if "num_cores" in self.sources else ""
        sources = {**self.sources, "num_cores": f"--cores{instead}"}
        return self.model_copy(update={"num_cores": cores, "sources": sources})

    def beside_others(self, gpus: int, nodes: int = 1, link: LinkName | None = None) -> GpuProfile:
        """Return this device as one of so many that train together; of one: unchanged.

        Raises:
            UsageError: it is a CPU, or `links_between` refuses.
        """
        if self.kind == "cpu" and gpus > 1:
            raise UsageError("--gpus must be about a GPU", f"{gpus} for {self.name}", "Give --gpu CARD: a CPU has one memory.")
        if nodes > 1 and gpus == 1:
            raise UsageError("--nodes needs --gpus, those of all machines together", f"{nodes} and one GPU", "Give --gpus.")
        if gpus == 1:
            return self
        return self.model_copy(update={"links": self._links(gpus, nodes, link)})

    def links_among(self, gpus: int) -> Links:
        """Return what lies between so many of this device: `links` where that is about them, else by the defaults."""
        return self.links if self.links is not None and self.links.gpus == gpus else self._links(gpus, 1, None)

    def _links(self, gpus: int, nodes: int, link: LinkName | None) -> Links:
        rate = self.ceiling("pcie_bytes_per_second")
        return links_between(self.slug, self.architecture, rate, gpus, nodes, link)

    @property
    def host_is_here(self) -> bool:
        """Return whether its host is this machine, as far as is known."""
        return THIS_HOST in self.sources.get("num_cores", "")

    @property
    def source(self) -> str:
        """Return where the device's figures are from, in a few words."""
        if not self.measured:
            return f"catalogue entry {self.slug}, not measured"
        measured = self.sources.get("measured", "measured")
        if self.calibration:
            measured += f", calibration of {self.calibration.date}"
        return f"this machine's CPU and RAM, {measured}" if self.kind == "cpu" else f"NVML and {measured}"

    @property
    def triton_card(self) -> Card | None:
        """What decides how the kernels over the slots work here; None: there are none."""
        return None if self.compute_capability is None else Card.of_capability(round(10 * self.compute_capability))

    def supports(self, precision: Precision) -> bool:
        """Return whether training in `precision` runs in hardware."""
        return getattr(self, TENSOR_FIELD[precision]) is not None

    def ceiling(self, field: str) -> float:
        """Return the measured rate of `field` where the probes ran, else the stated one.

        Args:
            field: a rate field such as ``bf16_flops`` or ``memory_bandwidth_bytes_per_second``; it must not be None.
        """
        measured = (self.measured or {}).get(field)
        value = measured if measured is not None else getattr(self, field)
        assert isinstance(value, int | float), f"{self.slug} has no {field}"
        return float(value)


def _needs_source(name: str, value: object) -> bool:
    """Return whether a field needs a source: every number does but the default that nobody else uses the card."""
    return isinstance(value, int | float) and not (name == "foreign_bytes" and value == 0)


if __name__ == "__main__":
    numbers = {
        "capacity_bytes": 24 * 1024**3,
        "memory_bandwidth_bytes_per_second": 1e12,
        "fp32_flops": 80e12,
        "bf16_flops": 160e12,
    }
    numbers["pcie_bytes_per_second"] = 25e9
    document = {"name": "Example", "slug": "example", "kind": "cuda", "architecture": "ada", **numbers}
    demo = GpuProfile.model_validate({**document, "sources": dict.fromkeys(numbers, "example")})
    print(demo.name, format_bytes(demo.capacity_bytes), demo.source, "bf16" if demo.supports("bf16") else "no bf16")
