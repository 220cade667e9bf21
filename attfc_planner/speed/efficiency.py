"""Shares of a device's ceilings that the operators of a training step reach: stated priors, as ranges, or calibrated values.

The priors are the uncalibrated part of a speed prediction, which is why it is an interval. The GPU ranges were set so that
published training speeds fall inside: InsightFace's logs and tables (RTX 4090, r100, full FC on MS1MV3, B = 128: 798 images/s;
V100, r50, 585 to 625, and r100, 483 images/s a card). torchtitan's authors found single operators 2 to 7 times off such an
analytic price. The CPU ranges bracket real steps on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Range:
    """A pessimistic and an optimistic value."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Return the geometric mean."""
        return float((self.low * self.high) ** 0.5)

    @staticmethod
    def around(value: float, error: float) -> Range:
        """Return the range of a value that may be off by a relative `error`."""
        return Range(value / (1 + error), value * (1 + error))


@dataclass(frozen=True)
class Efficiencies:
    """Shares of the arithmetic ceiling and of the memory bandwidth by operator kind, and seconds to launch one operator."""

    arithmetic: Mapping[str, Range]
    bandwidth: Mapping[str, Range]
    launch_seconds: Range
    """Host time per operator; ``low`` is the longer one. On a GPU it hides behind the device's work, on a CPU it adds."""
    calibrated: bool = False


_DEPTHWISE = Range(0.1, 0.8)
"""Share of the arithmetic; what a depthwise convolution reads and writes takes longer on every device."""

_GPU = Efficiencies(
    arithmetic=MappingProxyType(
        {"conv": Range(0.22, 0.8), "depthwise": _DEPTHWISE, "matmul": Range(0.4, 0.85), "loss": Range(0.4, 0.85)}
    ),
    bandwidth=MappingProxyType(
        {"loss": Range(0.4, 1.5), "depthwise": Range(0.2, 0.9), "optimizer": Range(0.4, 0.9), "default": Range(0.4, 0.9)}
    ),
    launch_seconds=Range(10e-6, 3e-6),
)
"""The loss may exceed the memory's bandwidth: its chunk of logits is a few MiB and stays in the L2 cache of recent cards."""

_CPU = Efficiencies(
    arithmetic=MappingProxyType(
        {"conv": Range(0.3, 0.95), "depthwise": _DEPTHWISE, "matmul": Range(0.5, 1.0), "loss": Range(0.4, 1.0)}
    ),
    bandwidth=MappingProxyType(
        {"loss": Range(0.4, 1.5), "depthwise": Range(0.1, 0.9), "optimizer": Range(0.25, 0.9), "default": Range(0.25, 0.9)}
    ),
    launch_seconds=Range(20e-6, 3e-6),
)

DECODED_PER_CORE_SECOND = Range(2500.0, 6000.0)
"""JPEG images of 112 x 112 that one core decodes per second: simplejpeg alone made 6,200 on an AMD EPYC core (9 KB a file,
quality 95); the loader's Python around it costs up to half."""

ASSUMED_CORES = 8
"""Host cores where the host is not known (a card of the catalogue)."""


def efficiencies(kind: Literal["cuda", "cpu"]) -> Efficiencies:
    """Return the stated ranges for a kind of device."""
    return _GPU if kind == "cuda" else _CPU


def efficiencies_on(kind: Literal["cuda", "cpu"], calibrated: Mapping[str, float] | None, error: float = 0.0) -> Efficiencies:
    """Return the calibrated values, each with the same relative error; without them the stated ranges.

    An error that all values share is the error of every time that is made of them.

    Args:
        calibrated: `attfc_planner.gpu.calibration.SPEED_FIELDS` -> value.
    """
    stated = efficiencies(kind)
    if calibrated is None:
        return stated
    arithmetic = {"conv": "conv_efficiency", "matmul": "matmul_efficiency", "loss": "loss_efficiency"}
    bandwidth = {
        "loss": "loss_bandwidth_efficiency",
        "depthwise": "depthwise_bandwidth_efficiency",
        "optimizer": "optimizer_bandwidth_efficiency",
        "default": "bandwidth_efficiency",
    }
    # An efficiency's low end is the slow one, a time's is the fast one: `launch_seconds` is turned round.
    launch = Range.around(calibrated["launch_seconds"], error)
    return Efficiencies(
        {
            "depthwise": Range.around(stated.arithmetic["depthwise"].middle, error),
            **{name: Range.around(calibrated[field], error) for name, field in arithmetic.items()},
        },
        {name: Range.around(calibrated[field], error) for name, field in bandwidth.items()},
        Range(launch.high, launch.low),
        calibrated=True,
    )
