"""What a run measured, to be set beside the prediction of its profile; a run of another profile is refused.

The trainer writes into the run folder the settings that it really trains with: those of ``--set``, the numbers of the data
set, the parts of a batch after a step that ran out of memory. A prediction is about them if the profile, with the numbers of
the same data set, is the same in all that decides what is learned, how fast, and in how much memory.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attfc_planner.plan import launch
from attfc_train.errors import ProfileError
from attfc_train.profile.file import load_profile, resolve_profile
from attfc_train.profile.keys import SECTIONS
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.facts import figure
from attfc_train.run.log import read_log

PROFILE_FILE = "profile.json"
"""In the folder of every run."""
DECIDE_NOTHING = {
    "data.path",
    "data.labels_digest",
    "data.num_workers",
    "data.prefetch_batches",
    "data.cache_bytes",
    "data.max_corrupt_share",
    "run.epochs",
    "run.seed",
    "run.log_every",
    "run.eval_every",
    "run.save_every",
    "run.keep_checkpoints",
    "run.val",
}
"""Where the data lie, how they are read, and what a run tells on its way; no prediction is about a seed, and epochs are
compared as steps."""
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run measured."""

    run: Path
    rows: list[tuple[str, str, str]]
    """Figure, predicted, measured."""
    images_per_second: float | None
    """None where the record lacks it."""


def measured(profile: TrainProfile, path: Path, run: Path) -> Measured:
    """Return what a run with the profile at `path` measured.

    Raises:
        ProfileError: the run has not ended, has other settings, or trained on another kind of device.
    """
    end = launch.read_end(run)
    if end is None:
        raise ProfileError(f"--run '{run}' must hold a run that has ended", "no 'end' in its log.jsonl", "Give another folder.")
    assert profile.prediction is not None
    kind: Literal["cuda", "cpu"] = "cuda" if profile.prediction.memory.allocator else "cpu"
    _check_settings(profile, path, run)
    _check_device(kind, run)
    return Measured(run, launch.comparison(profile.prediction, end, kind), figure(end, "images_per_second"))


def _check_settings(profile: TrainProfile, path: Path, run: Path) -> None:
    trained = load_profile(run / PROFILE_FILE)
    different = differences(profile, trained)
    if not different:
        return
    named = [f"{key} {there} in the run and {here} in '{path}'" for key, (here, there) in different.items()]
    more = f", and {len(named) - _MOST_NAMED} settings more" if len(named) > _MOST_NAMED else ""
    remedy = "Give a run with this profile, or report the profile that this run has."
    if trained.prediction is not None:
        command = shlex.join(["attfc-plan", "report", str(run / PROFILE_FILE), "--run", str(run)])
        remedy = f"Give a run with this profile, or report what this one trained with: {command}."
    rule = f"--run '{run}' must hold a run with the settings that are reported"
    raise ProfileError(rule, f"{'; '.join(named[:_MOST_NAMED])}{more}", remedy)


def differences(profile: TrainProfile, trained: TrainProfile) -> dict[str, tuple[str, str]]:
    """Return setting -> its values in a profile and in a run's, of what decides training and is not the same.

    Args:
        trained: resolved: with the numbers of its data set.
    """
    own = _settings(profile)
    others = _settings(trained)
    num_ids = "data.num_ids"
    if own[num_ids] not in (None, others[num_ids]):  # the rest follows from it
        return {num_ids: (_shown(own[num_ids]), _shown(others[num_ids]))}
    num_images = trained.data.num_images or profile.data.num_images
    if trained.data.num_ids is not None and num_images is not None:
        own = _settings(resolve_profile(profile, trained.data.num_ids, num_images))
    keys = [key for key in {**own, **others} if key not in DECIDE_NOTHING]
    pairs = {key: (own.get(key), others.get(key)) for key in keys}
    return {key: (_shown(here), _shown(there)) for key, (here, there) in pairs.items() if here != there}


def _settings(profile: TrainProfile) -> dict[str, Any]:
    """Return every setting by its dotted name."""
    flat: dict[str, Any] = {}
    for section in SECTIONS:
        flat |= _flat(getattr(profile, section).model_dump(mode="json"), section)
    return flat


def _flat(node: Any, name: str) -> dict[str, Any]:
    if not isinstance(node, dict):
        return {name: node}
    return {key: value for part, inner in node.items() for key, value in _flat(inner, f"{name}.{part}").items()}


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)[:60]


def _check_device(kind: str, run: Path) -> None:
    """Refuse a run on another kind of device, of which nothing was predicted."""
    begun = [record for record in read_log(run) if record["event"] in ("start", "resume")]
    devices = [str(record.get("device")) for record in begun]
    other = next((device for device in devices if device.partition(":")[0] != kind), None)
    if other is not None:
        remedy = "Plan for the device that trained (--gpu), or give a run on this one."
        raise ProfileError(f"--run '{run}' must have trained on '{kind}', which was planned for", f"'{other}'", remedy)
