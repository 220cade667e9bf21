"""The links between the GPUs of one run: what NCCL gets through them, how long an exchange takes at least, and its buffers.

A share of a link's rate is what `nccl-tests` calls bus bandwidth over the rate of one direction. The figures are of others;
where none was found a range is an assumption and says so.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from attfc_train.document import MOST_BYTES, Frozen
from attfc_train.errors import UsageError
from attfc_train.profile.profile import MAX_GPUS
from attfc_train.units import MIB, Bytes

LinkName: TypeAlias = Literal["nvlink", "pcie", "eth100"]
LINKS: tuple[LinkName, ...] = ("nvlink", "pcie", "eth100")

NVLINK_BYTES_PER_SECOND = {
    "p100-sxm2": 80e9,
    "v100-16": 150e9,
    "v100-32": 150e9,
    "a100-40": 300e9,
    "a100-80": 300e9,
    "a800-40": 200e9,
    "a800-80": 200e9,
    "h20": 450e9,
    "h100-sxm": 450e9,
    "h800": 200e9,
    "h200": 450e9,
    "gh200": 450e9,
    "b200": 900e9,
}
"""One direction, all links of a card: half of what NVIDIA's datasheets add up (P100 160 GB/s, V100 300, A100 600, A800 and H800
400, H100, H200, H20 and GH200 900, B200 1,800). Bridges between two or four PCIe cards are not here: eight do not share one."""
ETH100_BYTES_PER_SECOND = 12.5e9
"""100 Gbit/s of a machine: a ring over all GPUs enters and leaves each machine once, however many GPUs it has."""

REACHED: dict[LinkName, tuple[float, float]] = {
    # 8 x A100: about 200 of 300 GB/s (nccl-tests#149), two of them 208 (nccl-tests#178); H100: 350 of 450 (nccl#986).
    "nvlink": (0.60, 0.80),
    # PCIe 3.0: at most 12 of 15.8 GB/s (nccl#986). Eight RTX 5090: 28 of 63 GB/s, four 35 (nccl#1639). The low end, for cards
    # that reach each other through the memory of two processors, is an assumption.
    "pcie": (0.20, 0.75),
    # Two machines with 200 Gbit/s: 80 (nccl#700). The high end is an assumption.
    "eth100": (0.40, 0.90),
}
"""Share of the rate that a large exchange gets, from low to high."""
LEAST_SECONDS: dict[LinkName, tuple[float, float]] = {
    # Assumption: half of PCIe's.
    "nvlink": (30e-6, 15e-6),
    # 8 bytes among 8 RTX 4090: 42 us (nccl#1530).
    "pcie": (60e-6, 30e-6),
    # Assumption.
    "eth100": (150e-6, 50e-6),
}
"""Of an exchange of a few bytes, from slow to fast."""

_NCCL_BYTES: dict[LinkName, Bytes] = {"nvlink": 688 * MIB, "pcie": 256 * MIB, "eth100": 512 * MIB}
_NCCL_BYTES_LARGE: Bytes = 1_088 * MIB
"""NCCL's buffers grow with the channels that a link's rate needs (nccl#986). NVLink: four A100 took 688 MiB each, two 544
(nccl#964); eight H100 1.06 GB (nccl#1685). PCIe and Ethernet, which need fewer channels: assumptions."""
_LARGE = ("hopper", "blackwell")


class Links(Frozen):
    """How many GPUs there are, and what lies between them; `low` is the slow end of every pair."""

    gpus: int = Field(ge=2, le=MAX_GPUS)
    nodes: int = Field(ge=1, le=MAX_GPUS)
    """Machines."""
    name: LinkName
    """The slowest link between two of the GPUs."""
    bytes_per_second: float = Field(gt=0)
    """One direction, without any share."""
    nccl_bytes: Bytes = Field(ge=0, le=MOST_BYTES)

    @property
    def rates(self) -> tuple[float, float]:
        """Return the bytes per second that a large exchange gets, at the slow end and at the fast one."""
        low, high = REACHED[self.name]
        return low * self.bytes_per_second, high * self.bytes_per_second

    @property
    def words(self) -> str:
        """Return text such as ``'8 GPUs in 2 machines, eth100 (12.5 GB/s)'``."""
        machines = f" in {self.nodes} machines" if self.nodes > 1 else ""
        return f"{self.gpus} GPUs{machines}, {self.name} ({self.bytes_per_second / 1e9:g} GB/s a direction)"


def links_between(
    slug: str, architecture: str, pcie_bytes_per_second: float, gpus: int, nodes: int = 1, name: LinkName | None = None
) -> Links:
    """Return the links between so many of a card.

    Args:
        slug: of the card. pcie_bytes_per_second: of the card, one direction.
        name: the slowest; None: eth100 between machines, else nvlink where the card has it, else pcie.

    Raises:
        UsageError: the GPUs are no equal number a machine, or such a link cannot be there.
    """
    if gpus % nodes:
        raise UsageError("--gpus must be as many on each of --nodes", f"{gpus} on {nodes}", f"Use a multiple of {nodes}.")
    if name is None:
        name = "eth100" if nodes > 1 else "nvlink" if slug in NVLINK_BYTES_PER_SECOND else "pcie"
    if name == "pcie" and nodes > 1:
        raise UsageError("--link must reach from machine to machine", f"pcie and --nodes {nodes}", "Use --link eth100.")
    if name == "eth100" and nodes == 1:
        raise UsageError("--link eth100 is between machines", "--nodes 1", "Give --nodes, or use --link pcie.")
    if name == "nvlink" and slug not in NVLINK_BYTES_PER_SECOND:
        having = ", ".join(NVLINK_BYTES_PER_SECOND)
        raise UsageError("--link nvlink must be about a card with NVLink", slug, f"Use --link pcie, or one of {having}.")
    rates = {"pcie": pcie_bytes_per_second, "eth100": ETH100_BYTES_PER_SECOND}
    rate = NVLINK_BYTES_PER_SECOND[slug] if name == "nvlink" else rates[name]
    large = name == "nvlink" and architecture in _LARGE
    buffers = _NCCL_BYTES_LARGE if large else _NCCL_BYTES[name]
    return Links(gpus=gpus, nodes=nodes, name=name, bytes_per_second=rate, nccl_bytes=buffers)
