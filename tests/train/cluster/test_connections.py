"""The bounded connections against a table of dicts that is sorted anew each time, and components by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.cluster.connections import Connections, components

SIZE = 7
CALLS = st.lists(
    st.tuples(
        st.sampled_from(["connect", "connect", "connect", "drop", "move"]),
        st.integers(0, SIZE - 1),
        st.integers(0, SIZE - 1),
        st.sampled_from([0.1, 0.2, 0.3, 0.4]),
    ),
    max_size=40,
)


class Slow:
    """Who keeps whom, as {owner: {other: distance}}."""

    def __init__(self, most) -> None:
        self.most = most
        self.kept = {number: {} for number in range(SIZE)}

    def keep(self, owner, other, distance):
        candidates = sorted((each, number) for number, each in {**self.kept[owner], other: distance}.items())
        self.kept[owner] = {number: each for each, number in candidates[: self.most]}

    def connect(self, first, second, distance):
        self.keep(first, second, distance)
        self.keep(second, first, distance)

    def drop(self, cluster):
        self.kept[cluster] = {}
        for kept in self.kept.values():
            kept.pop(cluster, None)

    def move(self, former, survivor):
        offers = [(survivor, other, distance) for other, distance in self.kept[former].items()]
        offers += [(owner, survivor, kept[former]) for owner, kept in self.kept.items() if former in kept]
        self.drop(former)
        for owner, other, distance in offers:
            if owner != other and other not in self.kept[owner]:
                self.keep(owner, other, distance)

    def rows(self):
        return [(owner, other, each) for owner, kept in self.kept.items() for other, each in sorted(kept.items())]


@given(st.integers(1, 3), CALLS)
def test_they_are_the_slow_ones(most, calls):
    """Catches who keeps a fused cluster without being kept by it, and of equally far ones the younger kept."""
    fast, slow = Connections(most), Slow(most)
    for name, first, second, distance in calls:
        if first == second:
            continue
        arguments = {"connect": (first, second, distance), "drop": (first,), "move": (first, second)}[name]
        getattr(fast, name)(*arguments)
        getattr(slow, name)(*arguments)
    pairs, distances = fast.table()
    rows = [(*pair, each) for pair, each in zip(pairs.tolist(), distances.tolist(), strict=True)]
    assert rows == slow.rows()
    again = Connections.of_table(most, pairs, distances).table()
    assert np.array_equal(again[0], pairs)
    assert np.array_equal(again[1], distances)


def test_nothing_is_left_of_what_was_dropped():
    """Catches a memory that grows with every cluster there ever was."""
    connections = Connections(2)
    for number in range(1, 50):
        connections.connect(0, number, 0.5)
        connections.drop(number)
    assert sum(map(len, (connections._kept, connections._keepers))) <= 2


def test_components():
    found = components(7, [(5, 6), (6, 1), (3, 2)])
    assert found.tolist() == [0, 1, 2, 2, 4, 1, 1]
    assert components(0, []).size == 0
