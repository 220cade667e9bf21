"""Profiles edited by hand, from another version, or no profiles at all: one line that names the key, nothing written."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attfc_train.errors import DeviceMemoryError, ProfileError, UsageError
from attfc_train.profile.file import MAX_PROFILE_BYTES, preset_names
from tests.cli.conftest import DOCUMENT, Refusal

ProfileFile = Callable[..., Path]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "must be JSON"),
        (b"batch_size: 128", "must be JSON"),
        (b"\x80\x05\xff\xfe", "must be JSON"),
        (b"[" * 200_000, "must be JSON"),
        (b'{"schema_version": 1, "name": ' + b"9" * 5000 + b"}", "must be JSON"),
        (b" " * (MAX_PROFILE_BYTES + 1), "at most 4 MiB"),
        (b"[]", "must have schema_version 1, but got None"),
        (b"null", "must have schema_version 1, but got None"),
        (b"{}", "must have schema_version 1, but got None"),
        (json.dumps({**DOCUMENT, "schema_version": 2}).encode(), "must have schema_version 1, but got 2. .*attfc-plan"),
        (json.dumps({**DOCUMENT, "schema_version": "1"}).encode(), "must have schema_version 1, but got '1'"),
        (json.dumps({**DOCUMENT, "name": "\ud800"}).encode(), "must hold text that UTF-8 can express, but got .*ud800"),
        (None, "must be a readable profile, but got No such file"),
    ],
)
def test_what_is_no_profile(content: bytes | None, expected: str, tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "best.json"
    if content is not None:
        path.write_bytes(content)
    refusal(ProfileError, expected, "--profile", path, "--output", tmp_path / "run", "--device", "cpu")
    assert not (tmp_path / "run").exists()


def test_a_folder_or_an_endless_device_is_no_profile(tmp_path: Path, refusal: Refusal) -> None:
    for path in (tmp_path, "/dev/zero"):
        expected = f"'{path}' must be a readable profile, but got a folder, device or pipe. Check the path"
        refusal(ProfileError, expected, "--profile", path, "--device", "cpu")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch_size": 128}, "got batch_size with value '128': Extra inputs"),
        ({"optim__lr": 0.1}, "got optim.lr with value '0.1': Extra inputs"),
        ({"optim": [1, 2]}, "got optim"),
        ({"optim__batch_size": "many"}, "got optim.batch_size with value 'many'"),
        ({"optim__batch_size": 1}, "got optim.batch_size with value '1': .*greater than or equal to 2"),
        ({"optim__batch_size": 128.5}, "got optim.batch_size"),
        ({"optim__learning_rate": float("nan")}, "got optim.learning_rate"),
        ({"optim__learning_rate": float("inf")}, "got optim.learning_rate"),
        ({"optim__accumulation": 3}, "got optim.* accumulation must divide batch_size"),
        ({"model__image_size": 50}, "got model.image_size with value '50': .*multiple of 16"),
        ({"model__backbone": "r51"}, "model.backbone must be a known name, but got 'r51'. .*r50"),
        ({"head": {"kind": "softmax"}}, "got head.*'softmax'"),
        ({"head": {}}, "got head"),
        (
            {"data__draw": "permutation", "data__window_share": 0.5},
            "got data.* needs draw 'residency' or 'sequential', but got 0.5 and draw 'permutation'; use one of these, or leave",
        ),
        ({"head__dcc_share": 0}, "got head.dcc_share"),
        ({"head__queue_length": 0.5}, "got head.queue_length"),
        ({"head__policy": "fifo"}, "got head: policy 'fifo' needs queue_length 1, but got 3.3; use 1 or policy 'identity'"),
        (
            {"head__queue_length": 1, "head__policy": "fifo", "head__queue_mode": "stored"},
            "got head.* queue_mode 'stored' needs policy 'identity', but got 'fifo'; use queue_mode 'averaged'",
        ),
        ({"head__queue_mode": "stored"}, "got head.* needs a whole queue_length, but got 3.3; use 3 or queue_mode 'averaged'"),
        ({"head__storage": "fp16"}, "got head.storage with value 'fp16'"),
        ({"head__dcc_size": 100}, "24 images: head.dcc_size must be at most data.num_ids, but got 100 and 8. "),
        ({"head__dcc_size": 100, "data__num_ids": 8}, "must be a valid profile, but got .*head.dcc_size must be at most"),
        ({"run__precision": "fp8"}, "got run.precision with value 'fp8'"),
        ({"run__val": "lfw.bin"}, "got run.val"),
        ({"run__steps": None, "run__epochs": 1e308}, "8 identities and 24 images, but got 1e.308 epochs"),
        ({"run__seed": -1}, "got run.seed"),
        ({"prediction": {"memory": 12}}, "got prediction.memory"),
    ],
)
def test_edited_by_hand(
    changes: dict[str, Any], expected: str, profile_file: ProfileFile, tmp_path: Path, refusal: Refusal
) -> None:
    path = profile_file(**changes)
    before = path.read_bytes()
    refusal(ProfileError, expected, "--profile", path, "--output", tmp_path / "run", "--device", "cpu")
    assert not (tmp_path / "run").exists()
    assert path.read_bytes() == before


@pytest.mark.parametrize("slots", [10**11, 10**12])
def test_a_container_that_no_machine_holds(slots: int, profile_file: ProfileFile, tmp_path: Path, refusal: Refusal) -> None:
    head = {"kind": "attfc", "policy": "fifo", "queue_length": 1, "dcc_size": slots}
    path = profile_file(head=head)
    expected = "must fit into the memory of cpu, .* Lower head.dcc_size"
    refusal(DeviceMemoryError, expected, "--profile", path, "--output", tmp_path / "run", "--device", "cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["r50", "", "../presets/tiny", "Tiny"])
def test_unknown_preset(name: str, refusal: Refusal) -> None:
    refusal(ProfileError, f"--preset .* Choose from: {', '.join(preset_names())}", "--preset", name, "--device", "cpu")


@pytest.mark.parametrize(
    ("assignment", "error", "expected"),
    [
        ("batch_size=8", UsageError, "--set must name a setting .*got 'batch_size'. Nearest: optim.batch_size"),
        ("optim.batch_size", UsageError, "--set must look like section.key=value"),
        ("", UsageError, "--set must look like section.key=value"),
        ("=", UsageError, "--set must look like section.key=value"),
        ("optimiser.batch_size=8", UsageError, "got 'optimiser.batch_size'. Nearest: optim.batch_size"),
        ("optim.batch_size.more=8", UsageError, "--set must name a setting .*got 'optim.batch_size.more'"),
        ("prediction.memory=8", UsageError, "--set must name a setting .*The sections are data, model, head, optim, run"),
        ("optim.lr=0.1", UsageError, "got 'optim.lr'. Nearest: optim.learning_rate, .*'optim' has batch_size, accumulation, "),
        ("head.dccsize=9", UsageError, "Nearest: head.dcc_size, .*'head' has kind, .*dcc_size"),
        ("optim.batch_size=", ProfileError, "--set optim.batch_size must be a whole number from 2 to 65,536, but got ''"),
        ("optim.batch_size=[8", ProfileError, "--set optim.batch_size must be a whole number .*got '.8'"),
        ("optim.batch_size=1e9", ProfileError, "--set optim.batch_size must be a whole number from 2 to 65,536, but got '1e9'"),
        ("run.steps=1.5", ProfileError, "--set run.steps must be a whole number of at least 1 or null, but got '1.5'"),
        ("run.val=lfw.bin", ProfileError, "--set run.val must be a list such as .*lfw.bin"),
        ("optim.milestones=[2]", ProfileError, "--set optim.milestones must be a list of numbers"),
        ("optim.milestones=[0.3]", ProfileError, "milestones needs schedule 'step', but got schedule 'cosine' and .0.3"),
        ("optim.step_factor=0.3", ProfileError, "step_factor needs schedule 'step', but got schedule 'cosine' and 0.3"),
        ("optim.polynomial_power=2", ProfileError, "polynomial_power needs schedule 'polynomial', .* leave it at 1.0"),
        ("optim.patience_share=0.1", ProfileError, "patience_share needs schedule 'mhlr' or 'mhlr_released', but got"),
        ("teacher.weight=3", ProfileError, "in teacher: weight needs a teacher, but got 3 and none; give --teacher MODEL"),
        ("data.augment.references=true", ProfileError, "references needs an augmentation that is switched on, .*mask, "),
        ("model.backbone=resnet", ProfileError, "--set model.backbone must be a known name, but got 'resnet'. .*r50"),
        (
            "model.gradient_checkpointing=1",
            ProfileError,
            "--set model.gradient_checkpointing must be true, false or wide, but got '1'",
        ),
        ("head.kind=softmax", ProfileError, "--set head.kind must be attfc, dcq, .*, but got 'softmax'"),
        (
            "head.margin=3",
            ProfileError,
            "--set head.margin must name one of its parts, but got '3' for all. .*head.margin.kind",
        ),
        ("head.sample_rate=0.1", UsageError, "got 'head.sample_rate'. It is one of --set head.kind=partial_fc"),
        ("head.attention_temperature=1e-40", ProfileError, "must be a number of at least 0.001, but got '1e-40'"),
        (
            "optim.accumulation=3",
            ProfileError,
            "divide batch_size into parts >= 2, but got 3 and 4. .*--set optim.accumulation",
        ),
    ],
)
def test_nonsense_overrides(
    assignment: str,
    error: type[UsageError | ProfileError],
    expected: str,
    profile_file: ProfileFile,
    tmp_path: Path,
    refusal: Refusal,
) -> None:
    output = tmp_path / "run"
    refusal(error, expected, "--profile", profile_file(), "--set", assignment, "--output", output, "--device", "cpu")
    assert not output.exists()


@pytest.mark.parametrize(
    ("assignments", "remedy"),
    [
        (["head.kind=partial_fc", "head.sample_rate=0"], "See 'attfc-train presets show partial-fc' for"),
        (["head.kind=softmax"], "See 'attfc-train presets show attfc' for"),
        (["run.steps=3", "head.policy=fifo"], "Correct --set head.policy."),
        (["head.kind=f2c", "optim.batch_size=7"], "Correct --set head.kind, --set optim.batch_size."),
    ],
)
def test_a_remedy_names_what_shows_or_breaks_the_rule(
    assignments: list[str], remedy: str, profile_file: ProfileFile, refusal: Refusal
) -> None:
    """Catches a preset without the setting, settings that have nothing to do with it, and a --set that was an option."""
    sets = [word for each in assignments for word in ("--set", each)]
    data = ("--data", "synthetic:8x3", "--val", "synthetic:6x3+500")
    refusal(ProfileError, re.escape(remedy) + ".*", "--profile", profile_file(), *sets, *data, "--device", "cpu")


def test_paths_that_are_no_text(profile_file: ProfileFile, tmp_path: Path, refusal: Refusal) -> None:
    for option in ("--data", "--val"):
        refusal(ProfileError, "that UTF-8 can express", "--profile", profile_file(), option, "faces\udcff", "--device", "cpu")


def test_deeply_nested_override(profile_file: ProfileFile, refusal: Refusal) -> None:
    refusal(ProfileError, "--set run.val", "--profile", profile_file(), "--set", "run.val=" + "[" * 100_000, "--device", "cpu")


def test_an_unreadable_profile(profile_file: ProfileFile, refusal: Refusal) -> None:
    path = profile_file()
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("needs a user whom file permissions stop")
    refusal(ProfileError, "Permission denied", "--profile", path, "--device", "cpu")
