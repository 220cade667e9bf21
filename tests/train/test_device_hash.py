"""The hash against Python's integers; every input bit reaches every output bit."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from attfc_train.device_hash import BITS_32, mixed, mixed_key


def in_python(key: int) -> int:
    key ^= key >> 16
    key = key * 0x21F0AAAD % 2**32
    key ^= key >> 15
    key = key * 0x735A2D97 % 2**32
    return key ^ key >> 15


@given(st.lists(st.integers(0, BITS_32), min_size=1))
def test_it_is_what_integers_without_bounds_say(keys: list[int]) -> None:
    assert mixed(torch.tensor(keys)).tolist() == [in_python(key) for key in keys]


@given(st.integers(0, 2**70))
def test_the_host_has_the_same_hash(key: int) -> None:
    """Catches a key beyond 32 bits that is not cut first."""
    assert mixed_key(key) == in_python(key & BITS_32)


def test_every_bit_reaches_every_bit() -> None:
    keys = torch.arange(20_000) * 214_741
    for bit in range(32):
        changed = mixed(keys.clone()) ^ mixed(keys ^ (1 << bit))
        shares = torch.stack([((changed >> place) & 1).double().mean() for place in range(32)])
        assert (shares - 0.5).abs().max() < 0.05
