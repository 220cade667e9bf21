"""A card that plays a smaller one has only so much free, and the memory matrix's probe frees everything between two runs."""

from __future__ import annotations

import pytest
import torch

from attfc_train.units import GIB, MIB
from benchmarks.memory_ballast import PAGE, NoRoom, free_limited_to
from benchmarks.memory_probe import steps_on
from tests.train.profiles import small_profile

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_so_much_is_free_as_long_as_the_ballast_is_held() -> None:
    """Catches a ballast in the allocator's large pages, one that outlives its use, and one that counts without its context."""
    torch.cuda.empty_cache()  # else the last allocation finds room in what other tests left
    before = torch.cuda.mem_get_info()[0]
    with free_limited_to(GIB + MIB):
        assert 0 <= torch.cuda.mem_get_info()[0] - (GIB + MIB) < PAGE
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(GIB + 2 * PAGE, dtype=torch.uint8, device="cuda")
    assert torch.cuda.mem_get_info()[0] == before
    with pytest.raises(NoRoom, match=f"bytes free beside the ballast's context, {before} wanted"), free_limited_to(before):
        pass


def test_a_run_that_died_leaves_nothing_behind() -> None:
    run = steps_on(small_profile("identity", batch_size=512), torch.device("cuda"))
    free = run(None, 1)
    assert free.outcome == "lived"
    assert free.measured is not None
    needed = free.measured["reserved_bytes"]
    capped = [run(capacity, 0) for capacity in (needed // 2, needed + 64 * MIB, 2 * MIB, None)]
    assert [each.outcome for each in capped] == ["died", "lived", "died", "lived"]
    assert [each.left_over for each in capped] == [capped[0].left_over] * 4
    assert capped[0].left_over < MIB
