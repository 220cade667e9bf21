"""Seconds that the GPUs of a run exchange in a step, from the bytes that the traced step would send.

Of K processes in a ring, with a buffer of n bytes (the sum, or the rows of all), each sends and receives

    all_reduce  2 (K - 1) / K n      all_gather, reduce_scatter  (K - 1) / K n

bytes (Patarasuk and Yuan 2009; the factors of nccl-tests), at the rate that NCCL gets through the slowest link
(`attfc_planner.gpu.links`), and no exchange is faster than one of a few bytes.

The trainer exchanges between two parts of its work and waits for what comes (`attfc_train.step.step`), so nothing of it is
hidden behind arithmetic: a step takes the sum. What could be hidden, were gradients added up while the backward pass still
runs, is told beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attfc_planner.gpu.links import LEAST_SECONDS, Links
from attfc_planner.speed.efficiency import Range
from attfc_train.timing.op_cost import OpCost

_GRADIENT_PHASE = "update"


@dataclass(frozen=True)
class Communication:
    """The exchanges of one step on one GPU."""

    sent_bytes: float
    """That it sends, and receives."""
    count: int
    seconds: Range
    """Of all exchanges: ``low`` is the slow end."""
    gradients: Range
    """The part of it in which gradients are added up, after the backward pass."""

    def could_hide(self, backward: float) -> float:
        """Return the seconds that could run beside a backward pass of so many."""
        return min(self.gradients.middle, backward)


def sent(cost: OpCost, gpus: int) -> float:
    """Return the bytes that each of so many processes sends for an exchange."""
    share = (gpus - 1) / gpus * cost.bytes_read_written
    return 2 * share if cost.name == "all_reduce" else share


def communication(costs: Iterable[OpCost], links: Links) -> Communication:
    """Return the exchanges among a step's costs, which lists other operators, too."""
    exchanges = [cost for cost in costs if cost.kind == "exchange"]
    gradients = [cost for cost in exchanges if cost.phase == _GRADIENT_PHASE and cost.name == "all_reduce"]
    return Communication(
        sent_bytes=sum(sent(cost, links.gpus) for cost in exchanges),
        count=sum(cost.count for cost in exchanges),
        seconds=_seconds(exchanges, links),
        gradients=_seconds(gradients, links),
    )


def _seconds(exchanges: list[OpCost], links: Links) -> Range:
    num_bytes = sum(sent(cost, links.gpus) for cost in exchanges)
    count = sum(cost.count for cost in exchanges)
    slow, fast = (count * least + num_bytes / rate for least, rate in zip(LEAST_SECONDS[links.name], links.rates, strict=True))
    return Range(slow, fast)
