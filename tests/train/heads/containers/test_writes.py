"""Writes happen when they are made, in their order, and not before."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from attfc_train.heads.containers.container import DynamicClassContainer, FifoContainer, IdentityContainer
from attfc_train.heads.containers.stored_queue import StoredQueueContainer
from attfc_train.heads.containers.writes import IndexCopy, IndexFill, commit


def test_later_writes_win() -> None:
    target, index = torch.zeros(4, dtype=torch.int64), torch.tensor([1, 3])
    commit([IndexFill(target, index, 7), IndexCopy(target, index[:1], torch.tensor([5]))])
    assert target.tolist() == [0, 5, 0, 7]


@pytest.mark.parametrize(
    "container",
    [FifoContainer(4, 5), IdentityContainer(9, 4, 5, 2.0, "int8"), StoredQueueContainer(9, 4, 5, 2, 1.0)],
    ids=lambda container: type(container).__name__,
)
def test_a_container_changes_only_when_the_writes_are_made(container: DynamicClassContainer) -> None:
    """Catches a write that happens while the others are computed: a ring that moves on, an entry of the map."""
    centers, labels = normalize(torch.randn(3, 5), dim=1), torch.tensor([2, 7, 2])
    for step in range(2):
        before = {key: torch.as_tensor(value).clone() for key, value in flat(container).items()}
        writes = container.prepare_enqueue(centers, labels, step)
        assert all(torch.equal(torch.as_tensor(value), before[key]) for key, value in flat(container).items())
        commit(writes)
        assert not all(torch.equal(torch.as_tensor(value), before[key]) for key, value in flat(container).items())


def flat(container: DynamicClassContainer) -> dict[str, torch.Tensor | int]:
    """Return the state dict, a ring's position among it as a number."""
    return {key: value["position"] if isinstance(value, dict) else value for key, value in container.state_dict().items()}
