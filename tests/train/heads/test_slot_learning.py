"""Slots that learn between refreshes, against the gradient that autograd finds in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from attfc_train.heads.attfc.head import AttFCHead
from attfc_train.heads.containers.container import DynamicClassContainer, FifoContainer, IdentityContainer
from attfc_train.heads.containers.writes import commit
from attfc_train.losses.card import Card
from attfc_train.losses.container_loss import IMPLEMENTATIONS
from attfc_train.losses.learned_layers import PASSES
from attfc_train.losses.learning import Descent, Learner
from attfc_train.losses.learning_chunked import learner
from attfc_train.losses.margin import Margin
from attfc_train.losses.reference import container_loss
from attfc_train.losses.slots import Slots
from attfc_train.rounding import StorageType

MARGIN = Margin("arcface", 0.3)
SCALE = 16.0
RATE, MOMENTUM, SLOT_RATE = 0.2, 0.5, 0.75
LABELS = torch.tensor([1, 7, 3, 7, 11])
DIM = 16


@pytest.fixture(params=["chunked", "triton"])
def learn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Learner:
    """Both passes; the kernel multiplies in fp32, as on a card without tensor cores."""
    if request.param == "triton":
        pytest.importorskip("triton", reason="needs triton, which CUDA builds of torch bring")
        from attfc_train.losses import learning_triton, triton

        if not triton.INTERPRETED:
            pytest.skip("needs triton's interpreter, which is not used beside a CUDA device")
        monkeypatch.setattr(learning_triton, "card_of", lambda _: Card(75, 64 * 1024))
    return PASSES[request.param].learn


def head_of(container: DynamicClassContainer, learn: Learner = learner) -> AttFCHead:
    return AttFCHead(
        container,
        loss=IMPLEMENTATIONS["chunked"],
        num_references=1,
        scale=SCALE,
        temperature=1.0,
        chunk=3,
        batch_negatives=True,
        slot_rate=SLOT_RATE,
        learn=learn,
    )


def container_of(kind: str, storage: StorageType) -> DynamicClassContainer:
    """Some slots are empty, or nobody's."""
    torch.manual_seed(0)
    container: DynamicClassContainer
    if kind == "fifo":
        container = FifoContainer(10, DIM, storage)
    else:
        container = IdentityContainer(12, 12 if kind == "direct" else 8, DIM, 3.3, storage)
    container.enqueue(normalize(torch.randn(6, DIM), dim=1), torch.tensor([1, 2, 3, 4, 5, 7]), 0)
    return container


def scored(head: AttFCHead, parts: int = 1, margin: Margin = MARGIN) -> tuple[Tensor, Tensor]:
    """Unit queries and fresh centers of a step that was scored in parts."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(5, DIM, generator=generator)
    references = torch.randn(1, 5, DIM, generator=generator)
    weights = head.begin_step(LABELS, 1)
    for part in torch.arange(5).tensor_split(parts):
        head(features[part], references[:, part], LABELS[part], weights[part], margin)
    return normalize(features, dim=1), normalize(references[0], dim=1)


def expected(container: DynamicClassContainer, query: Tensor, fresh: Tensor, margin: Margin = MARGIN) -> Tensor:
    """Every row after a step of plain descent on the sphere; no row moves for a query of its own identity."""
    rows = container.centers.read(torch.arange(len(container.slot_labels))).double().requires_grad_()
    slots = Slots(normalize(rows, dim=1), None, container.slot_labels)
    more = Slots(fresh.double(), None, torch.where(container.stands_for(LABELS), -1, LABELS))
    positive = container.positive(query, fresh, LABELS).double()
    weights = torch.full((5,), 0.2, dtype=torch.float64)
    loss = container_loss(query.double(), positive, weights, slots, LABELS, margin, SCALE, 3, more)
    (gradient,) = torch.autograd.grad(loss, rows)
    return normalize(rows.detach() - SLOT_RATE * RATE / (1 - MOMENTUM) * gradient, dim=1)


@pytest.mark.parametrize("kind", ["direct", "mapped", "fifo"])
@pytest.mark.parametrize(("storage", "tolerance"), [("fp32", 1e-6), ("bf16", 0.015), ("fp8", 0.08), ("int8", 0.01)])
def test_slots_descend_on_the_sphere(kind: str, storage: StorageType, tolerance: float, learn: Learner) -> None:
    """Catches labels taken for slots, empty slots that learn, a lost factor of momentum, and rows that grow."""
    container = container_of(kind, storage)
    head = head_of(container, learn)
    query, fresh = scored(head)
    wanted = expected(container, query, fresh)
    every = torch.arange(len(container.slot_labels))
    before = container.centers.read(every)
    commit(head.prepare_learning(Descent(RATE, MOMENTUM, 5e-4), 1))
    after = container.centers.read(every)
    held = container.slot_labels != -1
    # Random int8 rows are signs alone: their first steps are mostly rounding.
    exact = held if storage != "int8" else container.slot_labels >= 0
    torch.testing.assert_close(after[exact].double(), wanted[exact], rtol=0, atol=tolerance)
    assert (after[held] - before[held]).abs().amax() > 0.01, "something moved"
    torch.testing.assert_close(after[held].norm(dim=1), torch.ones(int(held.sum())), rtol=0, atol=2.0**-6)
    assert torch.isfinite(after).all()
    assert not after[~held].any(), "an empty slot stays empty"


@pytest.mark.parametrize("storage", ["fp32", "bf16", "int8"])
def test_an_overflow_leaves_every_bit(storage: StorageType, learn: Learner) -> None:
    """Catches rows that are brought back to length 1 although nothing moved, and NaNs that reach them."""
    container = container_of("mapped", storage)
    head = head_of(container, learn)
    scored(head)
    head._pulls[0].query.fill_(torch.nan)
    before = {name: tensor.clone() for name, tensor in container.state_dict().items() if isinstance(tensor, Tensor)}
    commit(head.prepare_learning(Descent(RATE, MOMENTUM, 5e-4, torch.tensor(1.0)), 1))
    held = container.slot_labels != -1
    for name in ("centers.values", "centers.scales"):
        if name in before:
            assert torch.equal(container.state_dict()[name][held], before[name][held])


@pytest.mark.parametrize("kind", ["direct", "fifo"])
def test_hard_negatives_are_pushed_by_what_they_count_for(kind: str, learn: Learner) -> None:
    """Catches CurricularFace in the first pass alone."""
    margin = Margin("curricularface", 0.3, "exact", hardness=torch.tensor(0.4))
    container = container_of(kind, "fp32")
    head = head_of(container, learn)
    wanted = expected(container, *scored(head, margin=margin), margin)
    plain = expected(container, *scored(head))
    head.forget_step()
    scored(head, margin=margin)
    commit(head.prepare_learning(Descent(RATE, MOMENTUM, 5e-4), 1))
    held = container.slot_labels != -1
    after = container.centers.read(torch.arange(len(container.slot_labels)))[held].double()
    torch.testing.assert_close(after, wanted[held], rtol=0, atol=1e-6)
    assert (wanted - plain)[held].abs().max() > 1e-3, "some negatives are hard"


def test_parts_of_a_batch_learn_as_the_whole() -> None:
    """All are scored against the container as the step found it; batch negatives are off, for they are the part's own."""
    containers = []
    for parts in (1, 2):
        container = container_of("direct", "fp32")
        head = head_of(container)
        head.batch_negatives = False
        scored(head, parts)
        commit(head.prepare_learning(Descent(RATE, MOMENTUM, 0.0), 1))
        containers.append(container.centers.values)
    torch.testing.assert_close(*containers)


def test_nothing_is_kept_where_slots_do_not_learn() -> None:
    """Catches queries that stay in memory to the next step."""
    head = head_of(container_of("direct", "fp32"))
    head.slot_rate = 0.0
    scored(head)
    assert head.prepare_learning(Descent(RATE, MOMENTUM, 0.0), 1) == []
    head.slot_rate = SLOT_RATE
    scored(head)
    head.forget_step()
    assert head.prepare_learning(Descent(RATE, MOMENTUM, 0.0), 1) == []


@pytest.mark.parametrize(("loss", "learn", "phases"), [("chunked", "triton", {"update"}), ("triton", "chunked", {"loss"})])
def test_each_kernel_is_told_by_its_phase(loss: str, learn: str, phases: set[str]) -> None:
    """Catches one pass that is taken for both."""
    head = head_of(container_of("direct", "fp32"), PASSES[learn].learn)
    head.loss = IMPLEMENTATIONS[loss]
    assert head.kernel_phases == phases
