"""A run whose features become alike is recognised, said and stopped; one that learns is not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.errors import CollapseError
from attfc_train.heads.head import Head, HeadOutput
from attfc_train.losses.margin import Margin
from attfc_train.profile.file import load_preset, with_overrides
from attfc_train.profile.profile import TrainProfile
from attfc_train.run import run
from attfc_train.run.checkpoint import load_checkpoint
from attfc_train.run.collapse import EVERY, LARGEST_GAIN, LEAST_COSINE, LOOKS, WATCHED_STEPS, CollapseWatch, stranger_cosine
from attfc_train.run.log import read_log

CHANCE = 10.0


class ToldHead(Head):
    """A head of which a test decides everything; it is given features of which strangers have a certain cosine."""

    chance: float | None = CHANCE

    def forward(self, features: Tensor, references: Tensor, labels: Tensor, weights: Tensor, margin: Margin) -> HeadOutput:
        del references, labels, weights, margin
        return HeadOutput(features.sum(), features)

    def chance_loss(self, cosine: float, margin: Margin, observed: object) -> float | None:
        del cosine, margin, observed
        return self.chance


def watched(head: ToldHead) -> CollapseWatch:
    return CollapseWatch(head, lambda step: Margin("cosface", 0.2))


def features_of(cosine: float) -> Tensor:
    """Two unit vectors with that cosine, for two people."""
    return torch.tensor([[1.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]])


def after(watch: CollapseWatch, head: ToldHead, step: int, cosine: float, loss: float, logged: bool = False) -> bool:
    """Whether a collapse is found after a step."""
    watch.begin_step(step, logged)
    head(features_of(cosine), torch.empty(0), torch.tensor([0, 1]), torch.empty(0), None)
    watch.look(step, loss, {})
    return watch.has_just_collapsed()


def looks(cosine: float, gain: float, chance: float | None = CHANCE, spacing: int = EVERY, number: int = LOOKS) -> list[bool]:
    head = ToldHead()
    head.chance = chance
    watch = watched(head)
    return [after(watch, head, spacing * k, cosine, CHANCE - gain, logged=True) for k in range(1, number + 1)]


def test_both_figures_must_be_bad_for_long() -> None:
    """Catches a rule of one figure, looser thresholds, and one that does not wait."""
    assert looks(LEAST_COSINE + 0.01, LARGEST_GAIN - 0.01) == [False] * (LOOKS - 1) + [True]
    assert not any(looks(LEAST_COSINE - 0.01, LARGEST_GAIN - 0.01)), "a loss that stands, but features that differ"
    assert not any(looks(LEAST_COSINE + 0.01, LARGEST_GAIN + 0.01)), "features that are alike, but tell people apart"
    assert LOOKS * EVERY <= 200


def test_a_head_that_does_not_tell_is_not_judged() -> None:
    """Catches a chance level of 0, which every loss is above."""
    assert not any(looks(1.0, 0.0, chance=None, number=2 * LOOKS))


def test_lines_close_together_are_no_more_evidence() -> None:
    """Catches a window of five steps where every step is logged."""
    found = looks(1.0, 0.0, spacing=1, number=LOOKS * EVERY)
    assert found.index(True) + 1 == (LOOKS - 1) * EVERY + 1


def test_it_looks_by_itself_at_the_beginning_and_with_the_log_later() -> None:
    """Catches recognition that waits for a log interval of thousands of steps, and a sync in every later step."""
    watch = watched(ToldHead())
    looked_at = [step for step in range(1, 2 * WATCHED_STEPS) if watch.begin_step(step, is_logged=step % 1500 == 0)]
    assert looked_at == [*range(EVERY, WATCHED_STEPS + 1, EVERY), 3000]


def test_a_recovery_ends_it_and_another_collapse_is_said_again() -> None:
    """Catches a warning at every look, and one that comes only once in a run."""
    head = ToldHead()
    watch = watched(head)
    course = [0.9] * 8 + [0.0] * 5 + [0.9] * 5
    found = [after(watch, head, EVERY * k, cosine, CHANCE) for k, cosine in enumerate(course, 1)]
    assert [k for k, collapsed in enumerate(found, 1) if collapsed] == [5, 17]


@pytest.mark.parametrize(("cosine", "gain"), [(LEAST_COSINE - 0.01, 0.0), (0.9, LARGEST_GAIN + 0.01)])
def test_a_run_that_is_leaving_that_state_is_not_accused(cosine: float, gain: float) -> None:
    """Catches a rule that asks most looks but not the last, and one good look that makes two collapses of one."""

    def found(*figures: tuple[float, float]) -> list[int]:
        head = ToldHead()
        watch = watched(head)
        return [k for k, figure in enumerate(figures, 1) if after(watch, head, EVERY * k, *figure)]

    bad, good = (0.9, CHANCE), (cosine, CHANCE - gain)
    assert found(bad, bad, bad, bad, good) == []
    assert found(bad, bad, bad, bad, good, bad) == [6]
    assert found(good, good, bad, bad, bad, good) == []
    assert found(bad, bad, bad, bad, bad, good, bad) == [5]


def test_people_are_compared_with_others_only() -> None:
    """Catches pairs of one identity or a sample with itself, lengths that count, and more pairs than the sample's."""
    features = torch.tensor([[1.0, 0.0], [100.0, 0.0], [0.0, 3.0], [0.0, -1.0]])
    assert stranger_cosine(features, torch.tensor([4, 4, 7, 7])).item() == 0
    assert stranger_cosine(features[:3], torch.tensor([4, 9, 9])).item() == pytest.approx(0.5)
    assert stranger_cosine(features[:2], torch.tensor([4, 4])).isnan()
    many = torch.cat([torch.ones(64, 2), -torch.ones(200, 2)])
    assert stranger_cosine(many, torch.arange(264)).item() == pytest.approx(1)


def test_a_batch_of_one_identity_and_a_cosine_below_zero_are_no_collapse() -> None:
    """Catches NaN that counts as a look, and opposite features of two people that count as alike."""
    assert not any(looks(-1.0, -5.0, number=2 * LOOKS))
    head = ToldHead()
    watch = watched(head)
    for step in range(EVERY, 20 * EVERY, EVERY):
        watch.begin_step(step, is_logged=False)
        head(features_of(1.0), torch.empty(0), torch.tensor([3, 3]), torch.empty(0), None)
        watch.look(step, CHANCE, {})
        assert not watch.has_just_collapsed()


def test_a_paired_batch_is_compared_by_its_queries() -> None:
    """Catches labels [2, b] of queries and references taken for those of the queries."""
    head = ToldHead()
    watch = watched(head)
    watch.begin_step(EVERY, is_logged=True)
    head(features_of(0.25), torch.empty(0), torch.tensor([[0, 1], [5, 5]]), torch.empty(0), None)
    look = watch.look(EVERY, 0.0, {})
    assert look is not None
    assert look.stranger_cosine == pytest.approx(0.25)


def faces(folder: Path, share_inverted: float) -> Path:
    """60 people, of whom a part of the images is inverted: at this rate an encoder cannot see through that."""
    rng = np.random.default_rng(0)
    labels = [identity for identity in range(60) for _ in range(6)]

    def png(identity: int, number: int) -> bytes:
        face = render_face(identity, number, 32)
        file = io.BytesIO()
        Image.fromarray(255 - face if rng.random() < share_inverted else face).save(file, "PNG")
        return file.getvalue()

    write_recordio(folder / "train.rec", labels, [png(identity, number) for number, identity in enumerate(labels)])
    return folder


def profile_of(data: Path, head: str, steps: int, **run_settings: Any) -> TrainProfile:
    settings = {
        "data.path": data,
        "data.num_workers": 1,
        "model.image_size": 32,
        "model.embedding_size": 32,
        "head.kind": head,
        # Slots that learn do not collapse on these data; generated ones with references do.
        **({"head.slot_rate": 0, "head.num_references": 1} if head == "attfc" else {}),
        "head.margin.ramp_steps": 0,
        "optim.warmup_steps": 0,
        "optim.batch_size": 16,
        "run.steps": steps,
        "run.log_every": 10**6,
        "run.eval_every": 10**6,
        "run.save_every": 10**6,
        **{f"run.{name}": value for name, value in run_settings.items()},
    }
    return with_overrides(load_preset("tiny"), [f"{key}={value}" for key, value in settings.items()])


def options(folder: Path, **more: Any) -> run.RunOptions:
    return run.RunOptions(folder, torch.device("cpu"), Console(quiet=True), **more)


@pytest.mark.parametrize("head", ["attfc", "full_fc"])
def test_a_run_that_collapses_is_stopped_and_saved_and_can_go_on(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a head without `chance_loss`, a watch that waits for the log, a stop without a checkpoint, a deaf resume."""
    folder = tmp_path / "run"
    with pytest.raises(CollapseError, match=r"had features alike .* --on-collapse warn") as caught:
        run.start(profile_of(faces(tmp_path, 0.5), head, steps=124), options(folder, on_collapse="fail"))
    assert caught.value.exit_code == 11
    stopped = [record["step"] for record in read_log(folder) if record["event"] == "collapse"]
    assert len(stopped) == 1
    assert load_checkpoint(folder / "checkpoint.pt").step == stopped[0] < 124
    monkeypatch.setattr(CollapseWatch, "finding", "as if it had gone on")
    monkeypatch.setattr(CollapseWatch, "has_just_collapsed", lambda watch: True)
    with pytest.raises(CollapseError):
        run.resume(options(folder, on_collapse="fail"))
    run.resume(options(folder))
    assert read_log(folder)[-1]["event"] == "end"


def test_a_run_that_learns_is_left_alone(tmp_path: Path) -> None:
    """Catches thresholds that young encoders are beyond: the same run without inverted images."""
    folder = tmp_path / "run"
    run.start(profile_of(faces(tmp_path, 0.0), "attfc", steps=120, log_every=20), options(folder, on_collapse="fail"))
    steps = [record for record in read_log(folder) if record["event"] == "step"]
    assert steps[-1]["loss"] < steps[-1]["chance_loss"] - 1
