"""One process's share of what a step draws: a run draws the same images in the same order, whatever the number of processes.

Of K processes, rank r has the queries r, r + K, r + 2 K ... of the joined batch (`attfc_train.ranks.ranks`). The shares of a
step do not overlap and leave nothing out.

Legend: B queries of the joined batch, R references per query.
"""

from __future__ import annotations

from attfc_train.data.sampling.sampler import Draw, Sampler


class Share:
    """A sampler of every K-th query of another one.

    Args:
        sampler: draws the joined batch; K divides its number of queries.
        rank: of this process. size: K.
    """

    def __init__(self, sampler: Sampler, rank: int, size: int) -> None:
        assert 0 <= rank < size, "ranks count from 0"
        self._sampler = sampler
        self._rank = rank
        self._size = size

    def draw_step(self, step: int) -> Draw:
        """Return this process's share of what step `step`, counted from 0, trains on."""
        joined = self._sampler.draw_step(step)
        assert len(joined.query) % self._size == 0, "all processes have equal shares"
        own = slice(self._rank, None, self._size)
        return Draw(joined.query[own], joined.references[:, own], joined.flips[:, own].copy(), joined.labels[own].copy())

    def read_ahead(self, step: int, begins: bool) -> list[tuple[int, int]]:
        """Return ranges that are worth reading: the shares lie among each other, so it is those of the joined batch."""
        return self._sampler.read_ahead(step, begins)
