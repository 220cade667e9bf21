"""One run of the comparison: trained once, resumed where it was stopped, judged, recorded."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from attfc_train.data.batch import Batch
from attfc_train.export.teacher import open_teacher
from attfc_train.profile.file import with_overrides
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.checkpoint import FILE_NAME as CHECKPOINT
from attfc_train.run.log import read_log
from attfc_train.run.run import RunOptions, resume, start
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from benchmarks.heads.data_sets import DataSet
from benchmarks.heads.measures import measured
from benchmarks.heads.records import Line, claimed, folder_of, line_of, record
from benchmarks.heads.variants import Variant, profile_of, settings_digest
from benchmarks.provenance import provenance, quantiles

CPU = torch.device("cpu")
CACHE_BYTES = 3 * 1024**3
"""Decoded images: 25,000 identities at 32 pixels take 2.3 GB."""


def profile_on(
    variant: Variant, data: DataSet, num_ids: int, steps: int, seed: int, rate: float, test: tuple[str, ...]
) -> TrainProfile:
    """Return the resolved profile of a run on a data set."""
    return with_overrides(profile_of(variant, data.batch_size, steps, seed, rate), settings_on(data, test)).resolve(num_ids)


def settings_on(data: DataSet, test: tuple[str, ...]) -> list[str]:
    """Return the settings, as ``--set`` takes them, that train on a data set and draw the learning curve on `test`."""
    return [
        f"data.path={json.dumps(data.path)}",
        f"data.cache_bytes={CACHE_BYTES}",
        "data.num_workers=1",
        f"run.val={json.dumps(test)}",
    ]


def run_once(
    key: Line, profile: TrainProfile, data: DataSet, output: Path, work: Path, *, judged: bool = True, masked: bool = False
) -> bool:
    """Train, judge and record a run, unless it is recorded or another process is at it.

    Args:
        key: tells the run from all others.
        masked: see `benchmarks.heads.measures.measured`.
        judged: whether the model is judged on what `data` is judged on; else only the learning curve is recorded.

    Returns:
        Whether the run is on record now.
    """
    if line_of(key, output) is not None:
        return True
    folder = folder_of(key, work)
    with claimed(folder) as is_ours:
        if not is_ours:
            return False
        if line_of(key, output) is not None:  # another process finished it meanwhile
            return True
        seconds = _trained(profile, folder)
        figures = measured(folder, profile, data, masked=masked) if judged else {}
        record({**key, **figures, **_history(folder), "cpu_seconds": seconds, **provenance()}, output)
        shutil.rmtree(folder)
    return True


def _trained(profile: TrainProfile, folder: Path) -> float | None:
    """Train to the end, from the last checkpoint if there is one; return the processor's seconds, None for a part of a run."""
    options = RunOptions(folder, CPU, Console(quiet=True))
    if (folder / CHECKPOINT).exists():
        resume(options, open_teacher=open_teacher)
        return None
    shutil.rmtree(folder, ignore_errors=True)  # stopped before its first checkpoint
    begin = time.process_time()
    start(profile, options, open_teacher=open_teacher)
    return round(time.process_time() - begin, 1)


def _history(folder: Path) -> dict[str, Any]:
    """Return the learning curve and the last health figures."""
    lines = read_log(folder)
    curve = [[line["step"], line["accuracy"], line["auc"]] for line in lines if line["event"] == "evaluate"]
    logged = [line for line in lines if line["event"] == "step"]
    kept = ("loss", "mean_age_steps", "found_age_steps", "conflict_share", "center_cosine")
    health = {name: logged[-1][name] for name in kept if name in logged[-1]}
    losses = [[line["step"], round(line["loss"], 3)] for line in logged[:: max(1, len(logged) // 20)]]
    return {"curve": curve, "losses": losses, **health}


def step_seconds(variants: dict[str, Variant], data: DataSet, num_ids: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the processor's seconds of a train step of every variant, measured in turn.

    Unlike wall time they hardly depend on what else runs.
    """
    profiles = {name: profile_on(variant, data, num_ids, data.steps, 0, 0.05, ()) for name, variant in variants.items()}
    states = {name: build(profile, CPU) for name, profile in profiles.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for step in range(rounds + 2):
        for name, state in states.items():
            batch = Batch.example(profiles[name], CPU)
            batch.query.random_(0, 256)
            batch.labels.random_(0, num_ids)
            begin = time.process_time()
            train_step(state, batch)
            if step >= 2:
                seconds[name].append(time.process_time() - begin)
    return {name: quantiles(each) for name, each in seconds.items()}


def digest_on(variant: Variant, data: DataSet, num_ids: int, steps: int, rate: float) -> str:
    """Return the digest of what decides a run's learning, but for its seed."""
    return settings_digest(profile_of(variant, data.batch_size, steps, 0, rate).resolve(num_ids))
