"""What the trainer relies on of torch's private names, each in a test of its own: a new torch fails here first, by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attfc_train.optim.torch_internals import (
    first_byte,
    foreach_add_,
    foreach_copy_,
    foreach_lerp_,
    foreach_mul_,
    foreach_norm,
    set_allocator,
    unscale_and_check_,
    update_scale_,
)


def pair() -> list[Tensor]:
    return [torch.tensor([1.0, 2.0]), torch.tensor([[4.0]])]


def values(tensors: list[Tensor]) -> list[float]:
    return torch.cat([tensor.flatten() for tensor in tensors]).tolist()


def test_foreach_add_adds_a_multiple_in_place() -> None:
    changed = pair()
    foreach_add_(changed, pair(), alpha=-0.5)
    assert values(changed) == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("factor", [3.0, torch.tensor(3.0)])
def test_foreach_mul_takes_a_number_or_a_scalar_tensor(factor: float | Tensor) -> None:
    changed = pair()
    foreach_mul_(changed, factor)
    assert values(changed) == [3.0, 6.0, 12.0]


def test_foreach_lerp_moves_by_a_share_and_all_the_way_exactly() -> None:
    changed = pair()
    foreach_lerp_(changed, [torch.zeros(2), torch.zeros(1, 1)], 0.25)
    assert values(changed) == [0.75, 1.5, 3.0]
    foreach_lerp_(changed, pair(), 1.0)
    assert values(changed) == [1.0, 2.0, 4.0]


def test_foreach_copy_copies_in_place() -> None:
    changed = [torch.zeros(2), torch.zeros(1, 1)]
    first = changed[0]
    foreach_copy_(changed, pair())
    assert values(changed) == [1.0, 2.0, 4.0]
    assert changed[0] is first


def test_foreach_norm_is_the_l2_norm_of_each() -> None:
    norms = foreach_norm([torch.tensor([3.0, 4.0]), torch.tensor([[2.0]])])
    assert [norm.shape for norm in norms] == [(), ()]
    assert values(list(norms)) == [5.0, 2.0]


def test_an_allocator_setting_is_in_the_words_of_the_environment() -> None:
    """That later segments follow it only a device shows: `tests/standin`."""
    set_allocator("expandable_segments:False")
    with pytest.raises(ValueError, match="'True' or 'False'"):
        set_allocator("expandable_segments:7")


@pytest.mark.parametrize(("bad", "expected"), [(1.0, 0.0), (float("inf"), 1.0), (float("nan"), 1.0)])
def test_unscale_and_check_multiplies_and_tells_of_what_is_not_finite(bad: float, expected: float) -> None:
    gradients = [torch.tensor([8.0]), torch.tensor([[bad]])]
    found = torch.zeros(())
    unscale_and_check_(gradients, found, torch.tensor(0.25))
    assert gradients[0].item() == 2.0
    assert found.item() == expected


def test_update_scale_halves_after_a_bad_step_and_doubles_after_enough_good_ones() -> None:
    scale, tracker = torch.tensor(8.0), torch.zeros((), dtype=torch.int32)
    history = []
    for found in (1.0, 0.0, 0.0, 0.0):
        update_scale_(scale, tracker, torch.tensor(found), 2.0, 0.5, 2)
        history.append((scale.item(), tracker.item()))
    assert history == [(4.0, 0), (4.0, 1), (8.0, 0), (8.0, 1)]


def test_first_byte_is_where_a_storage_lies_in_its_file(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(3), "b": torch.arange(5, 9)}, tmp_path / "file.pt")
    content = torch.load(tmp_path / "file.pt", map_location="meta", weights_only=True)
    begin = first_byte(content["b"])
    assert begin is not None
    data = (tmp_path / "file.pt").read_bytes()
    assert torch.frombuffer(bytearray(data[begin : begin + 32]), dtype=torch.int64).tolist() == [5, 6, 7, 8]
    assert first_byte(torch.ones(2).to_sparse()) is None
    assert first_byte(torch.empty(3, device="meta")) is None
