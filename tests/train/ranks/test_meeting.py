"""Who tells that not all processes have met: one, whatever the order in which they notice it."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from torch.distributed import HashStore, TCPStore

from attfc_train.ranks.launch import Place, _tells_of_meeting


def place(rank: int, local_rank: int | None = None) -> Place:
    return Place(rank, 4, rank if local_rank is None else local_rank, "127.0.0.1", 1)


@pytest.mark.parametrize("gone", range(4))
@pytest.mark.parametrize("is_reversed", [False, True])
def test_the_first_that_notices_tells(gone: int, is_reversed: bool) -> None:
    """Catches two messages for one loss, none, and a rank 0 that waits for the one that is gone."""
    store = HashStore()
    told: list[int] = []
    left = [rank for rank in range(4) if rank != gone]
    if is_reversed:
        left.reverse()

    def notice(rank: int) -> None:
        if _tells_of_meeting(store, place(rank)):
            told.append(rank)

    threads = [threading.Thread(target=notice, args=(rank,)) for rank in left]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
    assert len(told) == 1


def test_without_a_store_one_of_each_machine_tells() -> None:
    """Catches silence where rank 0 is gone, or is not reached."""
    told = [_tells_of_meeting(None, each) for each in (place(0), place(1), place(2), place(2, 0), place(3, 1))]
    assert told == [True, True, False, True, False]


def test_a_store_that_is_gone_is_no_fault() -> None:
    """Catches the error of a store whose process was killed, which took the place of the one that is told."""
    server = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    client = TCPStore("127.0.0.1", server.port, is_master=False, timeout=timedelta(seconds=5))
    del server
    assert _tells_of_meeting(client, place(1))
    assert not _tells_of_meeting(client, place(2))
