"""What a short run must keep of the full one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attfc_planner.tune.stages.scaling import NUM_CHECKS, full_fc_beside, ratios, shortened
from attfc_train.heads.attfc.settings import AttFCSettings
from attfc_train.heads.containers.settings import FASTEST_FORGETTING
from attfc_train.heads.full_fc.settings import FullFCSettings
from attfc_train.heads.settings import MarginSettings
from attfc_train.profile.profile import DataSettings, OptimSettings, RunSettings, TrainProfile


def full_run(num_ids: int = 200_000, images_per_id: int = 20, **head: object) -> TrainProfile:
    settings = {"dcc_size": num_ids // 5, "encoder_momentum": 0.999, "encoder_momentum_ramp_steps": 2000, **head}
    return TrainProfile(
        data=DataSettings(path="faces", num_ids=num_ids, num_images=num_ids * images_per_id),
        head=AttFCSettings(margin=MarginSettings(ramp_steps=4000), **settings),  # type: ignore[arg-type]
        optim=OptimSettings(batch_size=256, warmup_steps=1000),
        run=RunSettings(epochs=5, val=("lfw.bin",)),
    )


def test_every_ratio_is_kept() -> None:
    full = full_run()
    short = shortened(full, 20_000, 400_000)
    assert [each.name for each in ratios(full, short) if not each.is_kept] == []
    assert short.dcc_size == 4_000
    assert isinstance(short.head, AttFCSettings)
    assert short.head.encoder_momentum == pytest.approx(1 - 0.001 * 10)
    assert short.head.encoder_momentum_ramp_steps == pytest.approx(200, abs=2)
    assert short.head.margin.ramp_steps == pytest.approx(400, abs=4)
    assert short.optim.warmup_steps == pytest.approx(100, abs=1)


def test_what_a_short_run_has_is_what_the_full_one_has() -> None:
    full = full_run(queue_length=5.0, num_references=2)
    short = shortened(full, 20_000, 400_000)
    assert isinstance(short.head, AttFCSettings)
    assert (short.head.queue_length, short.head.num_references) == (5.0, 2)
    assert short.optim.batch_size == full.optim.batch_size
    assert short.optim.learning_rate == full.optim.learning_rate
    assert short.model == full.model
    assert (short.data.path, short.run.val, short.prediction) == (None, (), None)
    assert short.total_steps % NUM_CHECKS == 0
    assert short.run.eval_every * NUM_CHECKS == short.total_steps


def test_a_bound_on_the_momentum_is_told() -> None:
    full = full_run()
    short = shortened(full, 500, 10_000)
    assert isinstance(short.head, AttFCSettings)
    assert 1 - short.head.encoder_momentum == pytest.approx(FASTEST_FORGETTING)
    assert "age of centers (C / B) x (1 - m)" in [each.name for each in ratios(full, short) if not each.is_kept]


def test_a_momentum_that_forgets_faster_than_the_bound_stays() -> None:
    head = shortened(full_run(encoder_momentum=0.5), 500, 10_000).head
    assert isinstance(head, AttFCSettings)
    assert head.encoder_momentum == pytest.approx(0.5)


def test_fewer_passes_are_told() -> None:
    full = full_run()
    short = shortened(full, 20_000, 400_000, epochs=1)
    assert short.total_steps == pytest.approx(400_000 / 256, rel=0.01)
    assert [each.name for each in ratios(full, short) if not each.is_kept] == [
        "passes over the images",
        "run in time constants T x (1 - m)",
    ]


@given(st.integers(100, 10**6), st.floats(0.0001, 1), st.floats(0.001, 1), st.integers(2, 2048), st.floats(0, 0.9999))
def test_a_short_run_is_always_a_valid_profile(ids: int, share: float, part: float, batch: int, momentum: float) -> None:
    full = full_run(ids, dcc_size=None, dcc_share=share, encoder_momentum=momentum)
    full = full.model_copy(update={"optim": OptimSettings(batch_size=batch, warmup_steps=3)})
    num = max(2, int(part * ids))
    short = shortened(full.resolve(ids), num, num * 20)
    assert TrainProfile.model_validate(short.model_dump()) == short
    assert 1 <= short.dcc_size <= num
    assert isinstance(short.head, AttFCSettings)
    assert short.head.encoder_momentum <= momentum + 1e-12


def test_too_many_identities_are_refused() -> None:
    with pytest.raises(ValueError, match="2 to 200000 identities, but got 200001"):
        shortened(full_run(), 200_001, 10**6)


def test_the_baseline_differs_in_its_head_only() -> None:
    short = shortened(full_run(), 20_000, 400_000)
    base = full_fc_beside(short)
    assert isinstance(base.head, FullFCSettings)
    assert base.head.margin == short.head.margin
    assert base.model_copy(update={"head": short.head}) == short
