"""Shares of the ceilings by phase, and the line that says what limits a step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from attfc_train.profile.prediction import PhaseSeconds
from attfc_train.timing.ceilings import Ceilings
from attfc_train.timing.marks import BETWEEN, WAITING
from attfc_train.timing.op_cost import OpCost
from attfc_train.timing.report import PhaseTimes
from attfc_train.units import Bytes, Seconds

ORDER: Final = (
    WAITING,
    "input",
    "momentum",
    "references",
    "teacher",
    "forward",
    "loss",
    "backward",
    "update",
    "enqueue",
    BETWEEN,
)
"""Rows of a report; a phase that takes no time has none."""
LABELS: Final = {
    WAITING: "waiting for data",
    "input": "batch copy",
    "momentum": "momentum",
    "references": "references",
    "teacher": "teacher",
    "forward": "query forward",
    "loss": "loss",
    "backward": "backward",
    "update": "optimiser",
    "enqueue": "enqueue",
    BETWEEN: "between phases",
}
_GROUPS: Final = {
    WAITING: (WAITING,),
    "batch copy": ("input",),
    "references": ("references",),
    "teacher": ("teacher",),
    "query forward and backward": ("forward", "backward"),
    "loss": ("loss",),
    "momentum, optimiser and enqueue": ("momentum", "update", "enqueue"),
    "the host between phases": (BETWEEN,),
}
_KINDS: Final = {
    "conv": "convolutions",
    "grouped": "convolutions of narrow groups",
    "depthwise": "depthwise convolutions",
    "matmul": "matrix products",
    "norm": "normalisation",
    "elementwise": "element-wise operators",
    "optimizer": "updates",
    "loss": "the loss",
    "narrow kernel": "the kernels over the slots",
    "wide kernel": "the kernels over the slots, in fp32",
    "other": "other operators",
}
_FAR: Final = 0.25
"""Share of both ceilings below which neither explains the time."""


@dataclass(frozen=True, slots=True)
class _Least:
    """The least time that the ceilings allow operators."""

    arithmetic: Seconds
    traffic: Seconds

    @classmethod
    def of(cls, cost: OpCost, ceilings: Ceilings) -> _Least:
        return cls(ceilings.arithmetic_seconds(cost), cost.bytes_read_written / ceilings.bandwidth)

    @property
    def seconds(self) -> Seconds:
        """The longer one."""
        return max(self.arithmetic, self.traffic)

    @property
    def is_arithmetic(self) -> bool:
        return self.arithmetic > self.traffic


def phase_times(
    seconds: Mapping[str, Seconds],
    costs: Iterable[OpCost],
    ceilings: Ceilings,
    copied_bytes: Bytes = 0,
    predicted: Iterable[PhaseSeconds] = (),
) -> tuple[PhaseTimes, ...]:
    """Return the rows of a report, in `ORDER`.

    Args:
        seconds: measured, by phase.
        costs: counted, of one step.
        copied_bytes: of a batch, from the host to a GPU.
        predicted: by a plan.
    """
    whole = sum(seconds.values())
    by_phase: dict[str, list[OpCost]] = {}
    for cost in costs:
        by_phase.setdefault(cost.phase, []).append(cost)
    expected = {each.phase: each for each in predicted}
    rows = (
        _row(
            name,
            seconds[name],
            whole,
            by_phase.get(name, []),
            ceilings,
            copied_bytes if name == "input" else 0,
            expected.get(name),
        )
        for name in ORDER
        if name in seconds
    )
    return _beside(copied_bytes / ceilings.copy_rate if ceilings.copy_rate else 0.0, tuple(rows))


def _beside(copying: Seconds, rows: tuple[PhaseTimes, ...]) -> tuple[PhaseTimes, ...]:
    """Return the rows with the least that is waited for a copy which takes so long, and runs beside the step before."""
    waited = max(0.0, copying - sum(row.least_seconds for row in rows))
    return tuple(
        row.model_copy(update={"least_seconds": row.least_seconds + waited}) if row.phase == "input" else row for row in rows
    )


def _row(
    name: str,
    seconds: Seconds,
    whole: Seconds,
    costs: list[OpCost],
    ceilings: Ceilings,
    copied: Bytes,
    predicted: PhaseSeconds | None,
) -> PhaseTimes:
    moved = sum(cost.bytes_read_written for cost in costs)
    elapsed = max(seconds, 1e-12)
    return PhaseTimes(
        phase=name,
        seconds=seconds,
        share=min(1.0, seconds / whole),
        flops=sum(cost.flops for cost in costs),
        bytes=moved,
        operators=sum(cost.count for cost in costs),
        copied_bytes=copied,
        matrix_share=sum(map(ceilings.arithmetic_seconds, costs)) / elapsed,
        memory_share=moved / elapsed / ceilings.bandwidth,
        least_seconds=sum(_Least.of(cost, ceilings).seconds for cost in costs),
        predicted=predicted,
    )


def limit_line(rows: Sequence[PhaseTimes], costs: Iterable[OpCost], ceilings: Ceilings) -> str:
    """Return the part of a step that takes most of the time, and how near it is to the ceiling that bounds it."""
    taken = {group: [row for row in rows if row.phase in phases] for group, phases in _GROUPS.items()}
    group = max(taken, key=lambda name: sum(row.seconds for row in taken[name]))
    chosen = taken[group]
    seconds = sum(row.seconds for row in chosen)
    share = f"{sum(row.share for row in chosen):.0%}"
    if group == WAITING:
        return f"waiting for data: {share}; the device stands still meanwhile"
    copied = sum(row.copied_bytes for row in chosen)
    if copied and ceilings.copy_rate:
        # It began when the step before did, or later: so it took no longer than all rows.
        rate = copied / sum(row.seconds for row in rows)
        return f"{group}: {share}, at {rate / ceilings.copy_rate:.0%} of the copy rate from the host, or more"
    return f"{group}: {share}, {_nearness(group, seconds, chosen, list(costs), ceilings)}"


def _nearness(group: str, seconds: Seconds, rows: list[PhaseTimes], costs: list[OpCost], ceilings: Ceilings) -> str:
    """Return the share of the ceiling that bounds most of a group's work, and the kind of operator that has most of it."""
    least = [(cost, _Least.of(cost, ceilings)) for cost in costs if cost.phase in _GROUPS[group]]
    arithmetic = sum(each.seconds for _, each in least if each.is_arithmetic)
    traffic = sum(each.seconds for _, each in least if not each.is_arithmetic)
    by_arithmetic = arithmetic > traffic
    by_kind: dict[str, Seconds] = {}
    for cost, each in least:
        if each.is_arithmetic == by_arithmetic:
            by_kind[cost.kind] = by_kind.get(cost.kind, 0.0) + each.seconds
    if not by_kind:
        return "with no operator in it"
    kind = _KINDS[max(by_kind, key=lambda name: by_kind[name])]
    if by_arithmetic:
        reached = sum(row.matrix_share * row.seconds for row in rows) / seconds
        words = f"at {reached:.0%} of the matrix rate (most of its work: {kind})"
    else:
        reached = sum(row.bytes for row in rows) / seconds / ceilings.bandwidth
        words = f"at {reached:.0%} of the memory bandwidth (most of its traffic: {kind})"
    if arithmetic + traffic < _FAR * seconds:
        words += f"; far from both ceilings, with {sum(row.operators for row in rows):,} calls of operators"
    return words
