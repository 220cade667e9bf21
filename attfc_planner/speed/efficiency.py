"""Shares of a device's ceilings that the operators of a training step reach: stated priors, as ranges, or calibrated values.

The priors are the uncalibrated part of a speed prediction, which is why it is an interval. Where trainings were published,
the ranges of a generation and precision were set so that these fall inside (docs/how-true.md compares them row by row);
elsewhere low and high lie a factor of 3 apart. torchtitan's authors found single operators 2 to 7 times off such an analytic
price. The CPU ranges bracket real steps on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from attfc_planner.gpu.profile import NOT_IN_CATALOGUE, GpuProfile
from attfc_train.document import Precision


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
    basis: str
    """Whose ranges these are, in words that follow "times"."""
    calibrated: bool = False


_DEPTHWISE = Range(0.1, 0.8)
"""Share of the arithmetic; what a depthwise or grouped convolution reads and writes takes longer on most devices."""

GROUPED = 0.3
"""Bandwidth that a convolution of narrow groups reaches, over that of a depthwise one.

Trainings of ResNeXt-101 32x4d, whose groups have 4 to 32 channels, spend on them what its dense part does not explain: 7 % of
the bandwidth of a V100 and an A100 in fp32, 16 to 18 % in fp16 (`benchmarks.grouped_convolutions`), where depthwise ones are
stated with 20 to 90 %."""

_LAUNCH_GPU = Range(10e-6, 3e-6)

WIDTH_WITHOUT_EVIDENCE = 3.0
"""High over low of every range of a kind of card and precision that no published training is known of."""


def _bandwidth(depthwise: Range, optimizer: Range, default: Range) -> Mapping[str, Range]:
    """Return stated shares of the memory bandwidth.

    The loss may exceed it: its chunk of logits is a few MiB and stays in the L2 cache of recent cards.
    """
    grouped = Range(GROUPED * depthwise.low, GROUPED * depthwise.high)
    shares = {"loss": Range(0.4, 1.5), "grouped": grouped, "depthwise": depthwise, "optimizer": optimizer}
    return MappingProxyType({**shares, "default": default})


def _gpu_table(conv: Range, bandwidth: Range, basis: str) -> Efficiencies:
    """Return the table of a GPU."""
    return Efficiencies(
        arithmetic=MappingProxyType(
            {
                "conv": conv,
                "grouped": _DEPTHWISE,
                "depthwise": _DEPTHWISE,
                "matmul": Range(0.3, 0.9),
                "loss": Range(0.3, 0.9),
            }
        ),
        bandwidth=_bandwidth(depthwise=Range(0.2, 0.9), optimizer=Range(0.3, 0.9), default=bandwidth),
        launch_seconds=_LAUNCH_GPU,
        basis=basis,
    )


_HALF_PRECISION_SEEN = _gpu_table(
    Range(0.24, 0.60),
    Range(0.36, 0.75),
    "efficiency ranges that hold the published trainings of Volta, Turing and GeForce Ada cards in 16 bit",
)
"""Whole IResNet steps reached 33 to 35 % of an RTX 4090's fp16 rate, 17 to 28 % of a V100's, 21 to 24 % of a 2080 Ti's."""

_FP32_SEEN = _gpu_table(
    Range(0.60, 1.50),
    Range(0.45, 0.80),
    "efficiency ranges that hold the published trainings in fp32 on cards without TF32",
)
"""Winograd's 3 x 3 convolution multiplies less often than is counted: whole steps reached 88 to 116 % of a V100's fp32 rate."""

_CPU = Efficiencies(
    arithmetic=MappingProxyType(
        {
            "conv": Range(0.3, 0.95),
            "grouped": _DEPTHWISE,
            "depthwise": _DEPTHWISE,
            "matmul": Range(0.5, 1.0),
            "loss": Range(0.4, 1.0),
        }
    ),
    bandwidth=_bandwidth(depthwise=Range(0.1, 0.9), optimizer=Range(0.25, 0.9), default=Range(0.25, 0.9)),
    launch_seconds=Range(20e-6, 3e-6),
    basis="stated efficiency ranges",
)


def efficiencies(gpu: GpuProfile, precision: Precision) -> Efficiencies:
    """Return the stated ranges for a device and a precision, and whose they are."""
    if gpu.kind == "cpu":
        return _CPU
    if precision == "fp32" and gpu.tf32_flops is None and gpu.architecture in ("pascal", "volta", "turing"):
        return _FP32_SEEN
    if precision != "fp32" and _was_seen_in_half_precision(gpu):
        return _HALF_PRECISION_SEEN
    return _gpu_table(
        Range(0.25, 0.25 * WIDTH_WITHOUT_EVIDENCE),
        Range(0.3, 0.3 * WIDTH_WITHOUT_EVIDENCE),
        f"efficiency ranges {WIDTH_WITHOUT_EVIDENCE:g} wide, as no training of such a card in {precision} was published",
    )


def _was_seen_in_half_precision(gpu: GpuProfile) -> bool:
    if gpu.slug == NOT_IN_CATALOGUE:  # a laptop's chip or a part of a card, whose clocks and power are others
        return False
    return gpu.architecture in ("volta", "turing") or (gpu.architecture == "ada" and "GeForce" in gpu.name)


def calibrated_efficiencies(calibrated: Mapping[str, float], error: float = 0.0) -> Efficiencies:
    """Return calibrated values, each with the same relative error.

    An error that all values share is the error of every time that is made of them.

    Args:
        calibrated: `attfc_planner.gpu.calibration.SPEED_FIELDS` -> value.
    """
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
            **{kind: Range.around(_DEPTHWISE.middle, error) for kind in ("grouped", "depthwise")},
            **{name: Range.around(calibrated[field], error) for name, field in arithmetic.items()},
        },
        {
            "grouped": Range.around(GROUPED * calibrated["depthwise_bandwidth_efficiency"], error),
            **{name: Range.around(calibrated[field], error) for name, field in bandwidth.items()},
        },
        Range(launch.high, launch.low),
        basis="calibrated efficiencies",
        calibrated=True,
    )
