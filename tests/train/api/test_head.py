"""The AttFC head in somebody else's loop is the head that the trainer uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attfc_train import DynamicClassContainer, attfc_loss
from attfc_train.errors import UsageError
from attfc_train.heads.kinds import HeadSite, build_head
from attfc_train.heads.settings import MarginSettings
from attfc_train.losses.margin import Margin
from attfc_train.optim.schedule import margin as margin_of
from tests.train.export.networks import CPU
from tests.train.profiles import HEADS

NUM_IDS, DIM, BATCH = 20, 8, 6


def inputs(seed: int, num_references: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(BATCH, DIM, generator=generator).requires_grad_()
    references = torch.randn(num_references, BATCH, DIM, generator=generator)
    return features, references, torch.randint(0, NUM_IDS, (BATCH,), generator=generator)


@pytest.mark.parametrize(("head", "slots"), [("identity", NUM_IDS), ("identity-30%", 6), ("identity-R0", NUM_IDS)])
def test_losses_gradients_and_centers_are_the_trainers(head: str, slots: int) -> None:
    """Catches another default, a margin in degrees, and centers that enter before the step."""
    settings = HEADS[head].model_copy(update={"margin": MarginSettings(ramp_steps=0)}).resolved(NUM_IDS)
    site = HeadSite(NUM_IDS, DIM, BATCH, BATCH, seed=0, total_steps=5)
    theirs: Any = build_head(settings, site, CPU)
    container = DynamicClassContainer(NUM_IDS, slots, DIM)
    references_per_query = settings.references_per_query
    for step in range(5):
        features, references, labels = inputs(step, references_per_query)
        wanted = theirs(features, references, labels, theirs.begin_step(labels, step), margin_of(settings.margin, step))
        (wanted_gradient,) = torch.autograd.grad(wanted.loss, features)
        loss, centers = attfc_loss(features, references if references_per_query else None, labels, container)
        (gradient,) = torch.autograd.grad(loss, features)
        assert torch.equal(loss, wanted.loss)
        assert torch.equal(gradient, wanted_gradient)
        assert torch.equal(centers, wanted.centers)
        theirs.container.enqueue(wanted.centers, labels, step)
        container.enqueue(centers, labels, step)
    assert torch.equal(container.slots.centers(torch.float32), theirs.container.slots.centers(torch.float32))


def test_one_reference_needs_no_first_dimension() -> None:
    features, references, labels = inputs(0)
    container = DynamicClassContainer(NUM_IDS, embedding_size=DIM)
    assert torch.equal(
        attfc_loss(features, references, labels, container)[0], attfc_loss(features, references[0], labels, container)[0]
    )


def test_the_margin_is_radians_or_a_margin() -> None:
    features, references, labels = inputs(0)
    container = DynamicClassContainer(NUM_IDS, embedding_size=DIM)
    losses = [
        attfc_loss(features, references, labels, container, margin=margin)[0].item()
        for margin in (0.3, Margin("arcface", 0.3), Margin("cosface", 0.3))
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_margin_with_statistics_is_taken_with_them_only() -> None:
    """Catches an AdaFace margin that is CosFace because nobody keeps its statistics."""
    features, references, labels = inputs(0)
    container = DynamicClassContainer(NUM_IDS, embedding_size=DIM)
    with pytest.raises(UsageError, match="have its statistics"):
        attfc_loss(features, references, labels, container, margin=Margin("adaface", 0.3))
    adaface = Margin("adaface", 0.3, quality=torch.zeros(len(labels)))
    losses = [
        attfc_loss(features, references, labels, container, margin=margin)[0].item()
        for margin in (adaface, Margin("cosface", 0.3))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_references_get_no_gradient() -> None:
    features, references, labels = inputs(0)
    references.requires_grad_()
    loss, centers = attfc_loss(features, references, labels, DynamicClassContainer(NUM_IDS, embedding_size=DIM))
    loss.backward()
    assert references.grad is None
    assert not centers.requires_grad


def test_a_container_is_saved_and_restored_like_any_module() -> None:
    container = DynamicClassContainer(NUM_IDS, 6, DIM, storage="int8")
    for step in range(3):
        features, references, labels = inputs(step)
        container.enqueue(attfc_loss(features, references, labels, container)[1], labels, step)
    other = DynamicClassContainer(NUM_IDS, 6, DIM, storage="int8")
    other.load_state_dict(container.state_dict())
    features, references, labels = inputs(9)
    assert torch.equal(
        attfc_loss(features, references, labels, container)[0], attfc_loss(features, references, labels, other)[0]
    )


@pytest.mark.parametrize(
    ("named", "settings"),
    [
        ("slots must be", {"slots": NUM_IDS + 1}),
        ("slots must be", {"slots": 1}),
        ("queue_length", {"queue_length": 0.5}),
        ("queue_length", {"queue_length": float("nan")}),
        ("storage", {"storage": "fp4"}),
    ],
)
def test_a_container_that_makes_no_sense_is_refused(named: str, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=named):
        DynamicClassContainer(NUM_IDS, **settings)


@pytest.mark.parametrize("wrong", ["features", "labels", "int32", "references"])
def test_shapes_that_do_not_belong_together_are_refused(wrong: str) -> None:
    features, references, labels = inputs(0)
    if wrong == "features":
        features = features[:, 1:]
    elif wrong == "labels":
        labels = labels[1:]
    elif wrong == "int32":
        labels = labels.int()
    else:
        references = references[:, 1:]
    with pytest.raises(UsageError, match="must be"):
        attfc_loss(features, references, labels, DynamicClassContainer(NUM_IDS, embedding_size=DIM))
