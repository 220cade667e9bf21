"""Channels-last encoders learn what others learn, go on bit for bit, and leave no trace in what is saved."""

from __future__ import annotations

from pathlib import Path

import torch

from attfc_train.profile.profile import TrainProfile
from attfc_train.run.checkpoint import Checkpoints, load_last, save_model
from attfc_train.run.tensor_file import load_tensors
from attfc_train.step.build import build
from tests.train.profiles import small_profile
from tests.train.step.states import flat, made

CPU = torch.device("cpu")


def profile_of(channels_last: bool) -> TrainProfile:
    profile = small_profile("identity-30%", accumulation=2)
    return profile.model_copy(update={"model": profile.model.model_copy(update={"channels_last": channels_last})})


def test_a_step_learns_the_same_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Catches momentum buffers or gradients that lie in another order than their weights, as if they were theirs."""
    apart, last = (build(profile_of(on), CPU) for on in (False, True))
    losses = made(last, 0, 2)
    Checkpoints(tmp_path, keep=1).save(last, None)
    losses += made(last, 2, 4)
    torch.testing.assert_close(losses, made(apart, 0, 4), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(flat(last), flat(apart), rtol=1e-2, atol=1e-3)
    resumed = build(profile_of(True), CPU)
    load_last(tmp_path, print).restore(resumed)
    made(resumed, 2, 4)
    assert torch.equal(flat(resumed), flat(last))
    load_last(tmp_path, print).restore(apart)  # a run goes on in the other order, too
    made(apart, 2, 4)
    torch.testing.assert_close(flat(apart), flat(last), rtol=1e-2, atol=1e-3)


def test_both_encoders_lie_so() -> None:
    state = build(profile_of(True), CPU)
    assert state.class_encoder is not None
    for encoder in (state.feature_encoder, state.class_encoder.class_encoder):
        filters = [weight for weight in encoder.parameters() if weight.dim() == 4 and min(weight.shape[1:]) > 1]
        assert filters
        assert all(weight.stride(1) == 1 for weight in filters)


def test_a_saved_model_is_in_the_usual_order(tmp_path: Path) -> None:
    """Catches filters that another program would read as they lie."""
    state = build(profile_of(True), CPU)
    save_model(tmp_path / "model.pt", state.feature_encoder)
    saved = load_tensors(tmp_path / "model.pt")
    assert all(value.is_contiguous() for value in saved.values())
    for name, value in state.feature_encoder.state_dict().items():
        assert torch.equal(saved[name], value), name


def test_a_document_names_it_only_where_it_is_on() -> None:
    """Catches a document, a digest of settings and a checkpoint that change for everybody."""
    assert "channels_last" not in profile_of(False).model_dump()["model"]
    document = profile_of(True).model_dump_json()
    assert TrainProfile.model_validate_json(document).model.channels_last
