"""Seconds that the GPUs of a run exchange in a step, from the bytes that the traced step would send.

Of K processes in a ring, with a buffer of n bytes (the sum, or the rows of all), each sends and receives

    all_reduce  2 (K - 1) / K n      all_gather, reduce_scatter  (K - 1) / K n

bytes (Patarasuk and Yuan 2009; the factors of nccl-tests), at the rate that NCCL gets through the slowest link
(`attfc_planner.gpu.links`), and no exchange is faster than one of a few bytes.

The trainer exchanges between two parts of its work and waits for what comes (`attfc_train.step.step`), but for the gradients:
they are added up while the backward pass goes on (`attfc_train.step.gradient_sums`). Of n equal buckets the i-th is complete
after i / n of the last backward pass at the latest, because the layers that come first in it have the most parameters and the
least arithmetic; what is still under way when the pass ends, a step waits for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attfc_planner.gpu.links import LEAST_SECONDS, Links
from attfc_planner.speed.efficiency import Range
from attfc_train.timing.op_cost import BESIDE, OpCost


@dataclass(frozen=True)
class Communication:
    """The exchanges of one step on one GPU."""

    sent_bytes: float
    """That it sends, and receives."""
    count: int
    seconds: Range
    """Of all exchanges: ``low`` is the slow end."""
    beside: Range
    """The part of it in which gradients are added up beside the backward pass."""
    buckets: int
    """Exchanges of that part."""

    def waited(self, backward: Range) -> Range:
        """Return the seconds that a step waits for its exchanges.

        Args:
            backward: seconds of its last backward pass.
        """
        slow, fast = (
            whole - beside + _left_over(beside, self.buckets, computed)
            for whole, beside, computed in zip(_ends(self.seconds), _ends(self.beside), _ends(backward), strict=True)
        )
        return Range(slow, fast)

    def hidden(self, backward: Range) -> float:
        """Return the seconds of the exchanges, at their middle, for which a step does not wait."""
        return max(0.0, self.seconds.middle - self.waited(backward).middle)


def _left_over(seconds: float, buckets: int, computed: float) -> float:
    """Return how long the sums of so many buckets go on after a backward pass of `computed` seconds."""
    end = 0.0
    for number in range(1, buckets + 1):
        end = max(end, number / buckets * computed) + seconds / buckets
    return max(0.0, end - computed)


def _ends(seconds: Range) -> tuple[float, float]:
    return seconds.low, seconds.high


def sent(cost: OpCost, gpus: int) -> float:
    """Return the bytes that each of so many processes sends for an exchange."""
    share = (gpus - 1) / gpus * cost.bytes_read_written
    return 2 * share if cost.name in ("all_reduce", BESIDE) else share


def communication(costs: Iterable[OpCost], links: Links) -> Communication:
    """Return the exchanges among a step's costs, which lists other operators, too."""
    exchanges = [cost for cost in costs if cost.kind == "exchange"]
    beside = [cost for cost in exchanges if cost.name == BESIDE]
    return Communication(
        sent_bytes=sum(sent(cost, links.gpus) for cost in exchanges),
        count=sum(cost.count for cost in exchanges),
        seconds=_seconds(exchanges, links),
        beside=_seconds(beside, links),
        buckets=sum(cost.count for cost in beside),
    )


def _seconds(exchanges: list[OpCost], links: Links) -> Range:
    num_bytes = sum(sent(cost, links.gpus) for cost in exchanges)
    count = sum(cost.count for cost in exchanges)
    slow, fast = (count * least + num_bytes / rate for least, rate in zip(LEAST_SECONDS[links.name], links.rates, strict=True))
    return Range(slow, fast)
