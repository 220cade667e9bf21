"""Augmentations within the step: whom they change, what they depend on, and that without them nothing is different."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from attfc_train.augment.kinds import AUGMENTATIONS
from attfc_train.augment.settings import AugmentSettings
from attfc_train.data.batch import Batch
from attfc_train.profile.profile import TrainProfile
from attfc_train.step.build import build
from attfc_train.step.state import TrainState
from attfc_train.step.step import train_step
from tests.train.profiles import random_batch, small_profile

CPU = torch.device("cpu")


def augmented(profile: TrainProfile, **settings: Any) -> TrainProfile:
    augment = AugmentSettings.model_validate(settings or dict.fromkeys(AUGMENTATIONS, 0.5))
    return profile.model_copy(update={"data": profile.data.model_copy(update={"augment": augment})})


class Seen:
    """What encoders were given: [N, 3, S, S] a call."""

    def __init__(self, state: TrainState) -> None:
        self.queries: list[Tensor] = []
        self.references: list[Tensor] = []
        state.feature_encoder.register_forward_pre_hook(lambda _, images: self.queries.append(images[0].clone()))
        if state.class_encoder:
            state.class_encoder.class_encoder.register_forward_pre_hook(
                lambda _, images: self.references.append(images[0].clone())
            )


def seen(profile: TrainProfile, first: int = 0, steps: int = 1, batch: Batch | None = None) -> Seen:
    """Make steps from `first` on, each of the same images."""
    state = build(profile, CPU)
    state.step = first
    result = Seen(state)
    for _ in range(steps):
        train_step(state, batch or random_batch(profile))
    return result


@pytest.mark.parametrize("head", ["identity-30%", "f2c", "dcq"])
@pytest.mark.parametrize("references", [False, True])
def test_queries_are_changed_and_references_where_that_is_asked_for(head: str, references: bool) -> None:
    """Catches references that are changed without being asked for, or by the numbers of their queries."""
    profile = small_profile(head)
    plain, changed = seen(profile), seen(augmented(profile, grey=1.0, mask=1.0, references=references))
    for left, right in zip(plain.queries, changed.queries, strict=True):
        assert not torch.equal(left, right)
        assert (right[:, 0] == right[:, 1]).all()
    for left, right in zip(plain.references, changed.references, strict=True):
        assert torch.equal(left, right) != references


def test_each_reference_has_draws_of_its_own() -> None:
    """Catches one key for all views of a query: where the query is changed all its references would be."""
    profile = augmented(small_profile("identity-30%", batch_size=64, num_ids=100), grey=0.5, references=True)
    result = seen(profile)
    views = [images.view(-1, 64, *images.shape[1:]) for images in (*result.queries, *result.references)]
    is_grey = torch.cat([(images[:, :, 0] == images[:, :, 1]).all(dim=(2, 3)) for images in views])
    assert is_grey.shape == (3, 64)
    assert all((is_grey[one] != is_grey[other]).sum() > 10 for one, other in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("head", ["identity-30%", "f2c"])
def test_a_batch_in_parts_is_changed_alike(head: str) -> None:
    """Catches draws by the place in a part: a run that went on in smaller parts after it ran out of memory would differ."""
    whole, parts = (
        seen(augmented(small_profile(head, accumulation=accumulation, batch_size=16), mask=0.5, occlusion=0.5, references=True))
        for accumulation in (1, 2)
    )
    for views in ("queries", "references"):
        left, right = (torch.cat(getattr(each, views)) for each in (whole, parts))
        in_any_order = [set(map(tuple, images.flatten(1).tolist())) for images in (left, right)]
        assert in_any_order[0] == in_any_order[1]


def test_the_place_in_the_chain_of_epochs_decides() -> None:
    """Catches a counter of calls: a resumed run would draw what the first steps drew, and every epoch the same."""
    profile = augmented(small_profile("identity-R0"), mask=0.5, occlusion=0.5)
    first, later = seen(profile, steps=3), seen(profile, first=2)
    assert torch.equal(first.queries[2], later.queries[0])
    assert not torch.equal(first.queries[0], first.queries[1])
    other_seed = profile.model_copy(update={"run": profile.run.model_copy(update={"seed": 1})})
    assert not torch.equal(seen(other_seed).queries[0], first.queries[0])


def test_a_batch_size_is_no_part_of_it() -> None:
    """Two steps of 8 are one of 16: image 8 of a large batch has the draws of image 0 of the second small one."""
    settings = {"mask": 0.5, "occlusion": 0.5}
    large = augmented(small_profile("identity-R0", batch_size=16), **settings)
    small = augmented(small_profile("identity-R0", batch_size=8), **settings)
    batch = random_batch(large)
    half = Batch(batch.query[8:], batch.references[:, 8:], batch.flips[:, 8:], batch.labels[8:])
    assert torch.equal(seen(large, batch=batch).queries[0][8:], seen(small, first=1, batch=half).queries[0])


@pytest.mark.parametrize("head", ["identity-30%", "f2c", "full_fc"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_traces_without_data(head: str, precision: str) -> None:
    """No host sync and no data-dependent shape: two steps run on tensors that hold no values."""
    profile = augmented(small_profile(head, precision, accumulation=2), **dict.fromkeys(AUGMENTATIONS, 0.1), references=True)
    with FakeTensorMode(allow_fallback_kernels=False):
        state = build(profile, CPU)
        for _ in range(2):
            metrics = train_step(state, Batch.example(profile, CPU))
    assert metrics.loss.shape == ()


def test_autocast_does_not_round_pixels() -> None:
    """Catches matrix products of a blur in bf16: a pixel of 200 would be off by up to half."""
    full, half = (seen(augmented(small_profile("full_fc", precision), blur=1.0)) for precision in ("fp32", "bf16"))
    assert torch.equal(full.queries[0], half.queries[0])


def test_nothing_is_different_without() -> None:
    """Catches a section in the document, a tensor in the checkpoint or an operator in the step that was not there before."""
    profile = small_profile("identity-30%")
    assert "augment" not in profile.model_dump_json()
    state = build(profile, CPU)
    assert state.augmenter is None
    assert set(state.saved()) == {"step", "feature_encoder", "class_encoder", "head", "optimizer", "rates", "scaler"}
    batch = random_batch(profile)
    parts = list(batch.to(CPU).split(2))
    assert [part.keys for part in parts] == [None, None]
    result = Seen(state)
    train_step(state, batch)
    images = batch.query.float()
    expected = torch.where(batch.flips[0][:, None, None, None], images.flip(-1), images).mul_(1 / 127.5).sub_(1.0)
    assert torch.equal(result.queries[0], expected)


def test_state_and_checkpoint_are_the_same_with() -> None:
    """Catches constants of an augmentation among what is saved: such a checkpoint would not load without it."""
    plain = small_profile("identity-30%")
    states = [build(profile, CPU).saved() for profile in (plain, augmented(plain))]
    assert list(states[0]) == list(states[1])
    for name in ("feature_encoder", "class_encoder", "head"):
        assert all(torch.equal(states[0][name][key], states[1][name][key]) for key in states[1][name])
