"""A run of several processes: it goes on with the same bits where it is resumed, and with another number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from attfc_train.data.encode import jpeg
from attfc_train.errors import ProfileError
from attfc_train.profile.profile import DataSettings, ModelSettings, OptimSettings, RunSettings, TrainProfile
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.run import loop, run
from attfc_train.run.checkpoint import load_checkpoint
from attfc_train.run.log import read_log
from attfc_train.run.several import shared_profile
from attfc_train.step.build import build
from attfc_train.step.state import TrainState
from tests.train.profiles import HEADS, random_batch, small_profile
from tests.train.ranks.gloo import in_processes
from tests.train.ranks.saved import as_saved
from tests.train.ranks.test_equality import SHARED, share_of

CPU = torch.device("cpu")
STEPS = 9
SAVE_EVERY = 3


def profile_of(head: str) -> TrainProfile:
    return TrainProfile(
        data=DataSettings(path="synthetic:23x4", num_workers=1, cache_bytes=0),
        model=ModelSettings(backbone="tiny", image_size=32, embedding_size=16),
        head=HEADS[head],
        optim=OptimSettings(batch_size=24, accumulation=2),
        run=RunSettings(
            precision="fp32", steps=STEPS, save_every=SAVE_EVERY, eval_every=5, log_every=1, val=("synthetic:12x3+500",)
        ),
    )


def options(folder: Path, ranks: Ranks) -> run.RunOptions:
    return run.RunOptions(folder, CPU, Console(quiet=True), ranks=ranks)


class Killed(BaseException):
    pass


def start(ranks: Ranks, head: str, folder: Path, killed_at: int = STEPS) -> None:
    """Train, and leave before a step as a killed process would: without saving."""
    step = loop.train_step

    def train_step(state: TrainState, batch: Any) -> Any:
        if state.step == killed_at:
            raise Killed
        return step(state, batch)

    loop.train_step = train_step  # in this process alone, which ends with the test
    try:
        run.start(profile_of(head), options(folder, ranks))
    except Killed:
        return


def resume(ranks: Ranks, folder: Path) -> None:
    run.resume(options(folder, ranks))


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {k: leaf for name, each in value.items() for k, leaf in leaves(each, f"{path}/{name}").items()}
    if isinstance(value, (list, tuple)):
        return {k: leaf for n, each in enumerate(value) for k, leaf in leaves(each, f"{path}/{n}").items()}
    return {path: value}


def differing(left: Any, right: Any) -> list[str]:
    """Names of leaves that differ by a bit."""
    a, b = leaves(left), leaves(right)
    assert a.keys() == b.keys()
    return [name for name in a if not _same(a[name], b[name])]


def _same(left: Any, right: Any) -> bool:
    if not isinstance(left, torch.Tensor):
        return bool(left == right)
    return left.dtype == right.dtype and torch.equal(left.view(-1).view(torch.uint8), right.view(-1).view(torch.uint8))


# Catches: averaging running statistics at a save alone; a checkpoint without the parts of other processes; a record, a model
# or an accuracy that a process beside rank 0 writes; a part of the rows that is taken from another place.
@pytest.mark.parametrize("head", ["identity-30%", "partial_fc-bf16"])
def test_a_resumed_run_has_the_same_bits(head: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    in_processes(3, start, head, whole)
    in_processes(3, start, head, parts, 7)
    assert load_checkpoint(parts / "checkpoint.pt").step == 6
    in_processes(3, resume, parts)
    ends = [load_checkpoint(folder / "checkpoint.pt") for folder in (whole, parts)]
    assert differing(ends[0].state, ends[1].state) == []
    assert ends[0].best_accuracy == ends[1].best_accuracy
    events = [record["event"] for record in read_log(parts)]
    assert events.count("resume") == 1
    assert events.count("step") == STEPS
    assert sorted(path.name for path in whole.iterdir()) == sorted(path.name for path in parts.iterdir())


def test_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    """From three to one to two; the last step's checkpoint is that of one process, whoever wrote it."""
    in_processes(3, start, "identity-30%", tmp_path / "run", 4)
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt").step == 3
    start_of_rest = load_checkpoint(tmp_path / "run" / "checkpoint.pt").state
    in_processes(2, resume, tmp_path / "run")
    end = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert end.step == STEPS
    assert {name: value.shape for name, value in leaves(end.state["head"]).items() if isinstance(value, torch.Tensor)} == {
        name: value.shape for name, value in leaves(start_of_rest["head"]).items() if isinstance(value, torch.Tensor)
    }
    assert (tmp_path / "run" / "model.pt").is_file()


def saved_again(ranks: Ranks, profile: TrainProfile, saved: dict[str, Any]) -> Any:
    state = build(profile, CPU, ranks)
    state.restore(saved)
    return as_saved(state)


# Catches a part that begins a row too early, and the row that is nobody's in a checkpoint.
@pytest.mark.parametrize("head", SHARED)
def test_a_state_is_the_same_whoever_holds_it(head: str) -> None:
    profile = small_profile(head, num_ids=41, batch_size=24)
    alone = build(profile, CPU)
    from attfc_train.step.step import train_step

    train_step(alone, share_of(random_batch(profile), ALONE))
    saved = alone.saved()
    first, *_ = in_processes(3, saved_again, profile, saved)
    assert differing(first, saved) == []


@pytest.mark.parametrize(
    ("head", "optim", "words"),
    [
        ("f2c", {"batch_size": 24}, "head 'f2c' and 3 processes"),
        ("full_fc", {"batch_size": 25}, "Use a multiple of 3 from 6 on"),
        ("full_fc", {"batch_size": 12, "accumulation": 4}, "Use a multiple of 12 from 24 on"),
    ],
)
def test_what_cannot_be_shared_is_refused(head: str, optim: dict[str, int], words: str) -> None:
    profile = small_profile(head, **optim)
    assert shared_profile(profile, ALONE) is profile
    with pytest.raises(ProfileError, match=words):
        shared_profile(profile, Ranks(1, 3))


def test_fewer_slots_than_processes_are_refused() -> None:
    with pytest.raises(ProfileError, match="at least as many centers"):
        shared_profile(small_profile("full_fc", num_ids=2), Ranks(0, 3))


def broken_profile(folder: Path) -> TrainProfile:
    """A profile of a folder of 12 people with 4 images each; the last image of every third person cannot be decoded."""
    pixels = np.random.default_rng(0)
    for person in range(12):
        (folder / f"{person:02d}").mkdir(parents=True)
        for image in range(4):
            content = b"no image" if person % 3 == 0 and image == 3 else jpeg(pixels.integers(0, 256, (32, 32, 3), np.uint8))
            (folder / f"{person:02d}" / f"{image}.jpg").write_bytes(content)
    profile = profile_of("full_fc")
    data = profile.data.model_copy(update={"path": str(folder), "max_corrupt_share": 1.0})
    run_settings = profile.run.model_copy(update={"val": ()})
    return profile.model_copy(update={"data": data, "run": run_settings})


def train_on(ranks: Ranks, profile: TrainProfile, folder: Path, killed_at: int = STEPS) -> None:
    globals()["profile_of"] = lambda _: profile  # in this process alone
    start(ranks, "", folder, killed_at)


def image_counts(folder: Path) -> list[Any]:
    """What a run's record says of images last, and at its end."""
    records = read_log(folder)
    images = [record for record in records if record["event"] == "images"][-1]
    end = records[-1]
    assert end["event"] == "end"
    return [images["drawn"], images["replaced"], end["corrupt_images"], sorted(end["corrupt_examples"])]


# Catches counts of rank 0's share; and a share that is held against the replaced images of all, in a resumed run.
def test_images_are_counted_over_all_processes(tmp_path: Path) -> None:
    profile = broken_profile(tmp_path / "faces")
    in_processes(1, train_on, profile, tmp_path / "one")
    expected = image_counts(tmp_path / "one")
    assert expected[1] == expected[2] > 0
    in_processes(3, train_on, profile, tmp_path / "three")
    assert image_counts(tmp_path / "three") == expected
    in_processes(2, train_on, profile, tmp_path / "resumed", 7)
    in_processes(3, resume, tmp_path / "resumed")
    assert image_counts(tmp_path / "resumed")[:3] == expected[:3]


def verified_with(ranks: Ranks, folder: Path) -> list[int]:
    """Most images in a forward pass of each verification."""
    sizes: list[int] = []

    def verified(encoder: Any, batch_size: int) -> dict[str, Any]:
        sizes.append(batch_size)
        return {}

    run._evaluator = lambda profile, device: verified  # type: ignore[assignment]  # in this process alone
    run.start(profile_of("full_fc"), options(folder, ranks))
    return sizes


# Catches a forward pass that has as many images as those of all processes together.
def test_verification_takes_what_a_step_takes_on_one_device(tmp_path: Path) -> None:
    assert in_processes(3, verified_with, tmp_path / "run") == [[4, 4], [], []]
