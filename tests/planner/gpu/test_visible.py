"""Which device CUDA takes for its first, held to what torch has found CUDA to do."""

from __future__ import annotations

import os
from unittest import mock

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from attfc_planner.gpu.visible import VARIABLE, hides_all, listed, match

UUIDS = ["GPU-12345678-aaaa", "GPU-12345678-bbbb", "GPU-9abcdef0-cccc"]
WORDS = st.one_of(
    st.integers(-3, 5).map(str),
    st.sampled_from(["", " ", "NoDevFiles", "none", "all", "+1", "1gpu2", "0x1", " 2", "2 ", "\t3", "1.5"]),
    st.sampled_from(
        ["GPU-", "GPU-1", "GPU-12345678-a", "GPU-9", "gpu-9", "GPU-x", "MIG-", "MIG-1", "MIG-GPU-1/2/0", " GPU-9", *UUIDS]
    ),
)


@given(st.lists(WORDS, max_size=5).map(",".join))
@example("")
@example("0,2,-1,1")
@example("GPU-9,GPU-1,0")
def test_a_setting_is_read_as_torch_reads_it(setting: str) -> None:
    """Catches a list by ``isdecimal``, and one that goes on behind what is no device."""
    with mock.patch.dict(os.environ, {VARIABLE: setting}):
        expected = torch.cuda._parse_visible_devices()
    assert listed(setting) == expected


def test_without_a_setting_the_first_is_taken() -> None:
    assert listed(None) == [0]
    assert not hides_all(None)


@given(st.sampled_from([uuid[:length] for uuid in UUIDS for length in range(4, len(uuid) + 1)]) | WORDS)
def test_a_beginning_that_is_one_devices_names_it(name: str) -> None:
    found = match(name, UUIDS)
    assert ([] if found is None else [found]) == torch.cuda._transform_uuid_to_ordinals([name], UUIDS)


def test_a_whole_name_is_not_the_beginning_of_a_longer_one() -> None:
    assert match("MIG-GPU-1/1/0", ["MIG-GPU-1/1/00", "MIG-GPU-1/1/0"]) == 1


@pytest.mark.parametrize(
    "setting", ["", " ", "-1", "-1,0", "NoDevFiles", "none", "all", ",0", "gpu-9", "- 1", "--1", "²", "٣", "+"]
)
def test_what_begins_with_no_device_hides_all(setting: str) -> None:
    assert hides_all(setting)


@pytest.mark.parametrize("setting", ["0", "9", "0,0", "GPU-x", "GPU-", "MIG-x", "9" * 5000, "0,-1", "GPU-9,GPU-9"])
def test_what_names_a_device_hides_none(setting: str) -> None:
    """A device that is not here, or there twice, is a mistake to be told, not a wish to have none."""
    assert not hides_all(setting)
