"""What a head keeps between steps, counted on the head as it is built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from attfc_planner.trace.history import HeadBytes, Trace
from attfc_planner.trace.record import record, record_head
from attfc_planner.trace.store import Traces
from attfc_train.heads.head import Head, HeadOutput
from attfc_train.heads.kinds import HEADS
from attfc_train.losses.margin import Margin
from attfc_train.profile.profile import ModelSettings, OptimSettings, RunSettings, TrainProfile

DIM = 64


def profile_of(kind: str, num_ids: int, **settings: object) -> TrainProfile:
    return TrainProfile(
        model=ModelSettings(backbone="tiny", image_size=32, embedding_size=DIM),
        head=HEADS[kind].settings.model_validate(settings),
        optim=OptimSettings(batch_size=8),
        run=RunSettings(steps=100, precision="fp32"),
    ).resolve(num_ids)


def kept(trace: Trace) -> int:
    """Bytes that are alive when the last step has ended."""
    freed = {~event for event in trace.events if event < 0}
    return sum(int(nbytes) for storage, nbytes in enumerate(trace.nbytes) if storage not in freed)


@pytest.mark.parametrize("kind", HEADS)
def test_it_is_what_grows_with_the_identities_over_two_real_steps(kind: str) -> None:
    """Catches momentum that is left out or counted for the network, and a buffer that is not registered."""
    few, many = (profile_of(kind, num_ids) for num_ids in (300, 1300))
    grown = kept(record(many, [many, many])) - kept(record(few, [few, few]))
    assert grown > 0
    assert record_head(many).num_bytes - record_head(few).num_bytes == grown


@pytest.mark.parametrize("kind", HEADS)
def test_fake_tensors_count_like_real_ones(kind: str) -> None:
    profile = profile_of(kind, 200)
    assert record_head(profile) == record_head(profile, torch.device("cpu"))


def test_a_layer_of_learned_centers_keeps_them_and_their_momentum() -> None:
    assert record_head(profile_of("full_fc", 1000)) == HeadBytes(2 * 4 * DIM * 1000)


class Trained(Head):
    """A head whose weight the optimiser trains whole, as any that is added may be."""

    def __init__(self, num_ids: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(num_ids, DIM))

    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        raise NotImplementedError


def test_the_optimisers_momentum_of_a_head_is_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches momentum that only heads that update themselves would have, and that of the network."""
    monkeypatch.setattr("attfc_train.step.build.build_head", lambda settings, site, device: Trained(site.num_ids))
    assert record_head(profile_of("full_fc", 1000)) == HeadBytes(2 * 4 * DIM * 1000)


def test_fewer_slots_in_fewer_bits_are_kept_in_fewer_bytes() -> None:
    whole = record_head(profile_of("attfc", 1000)).num_bytes
    assert 4 * DIM * 1000 < whole < 1.1 * 4 * DIM * 1000
    assert record_head(profile_of("attfc", 1000, dcc_share=0.1, storage="int8")).num_bytes < 0.1 * whole


def test_it_is_kept_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a plan that builds a head, and so loads torch, though nothing has changed."""
    profiles = [profile_of("attfc", 500), profile_of("full_fc", 700), profile_of("attfc", 500)]
    first = Traces(tmp_path).head_bytes(profiles)
    assert first[0] == first[2] != first[1]
    monkeypatch.setattr("attfc_planner.trace.store.results", lambda jobs, _: pytest.fail("made anew") if jobs else [])
    assert Traces(tmp_path).head_bytes(profiles) == first


def test_the_network_and_the_run_do_not_matter(tmp_path: Path) -> None:
    """Catches a cache that builds a head for each of them."""
    profile = profile_of("attfc", 500)
    other = profile.model_copy(
        update={
            "name": "other",
            "model": profile.model.model_copy(update={"backbone": "r18", "image_size": 112}),
            "run": profile.run.model_copy(update={"seed": 7}),
        }
    )
    traces = Traces(tmp_path)
    assert traces.head_bytes([profile]) == traces.head_bytes([other])
    assert len(list(tmp_path.iterdir())) == 1
