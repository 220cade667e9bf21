"""Accuracy of classification heads for the same images seen and for the same time, on one network and one data set.

    python -m benchmarks.heads --data ../shared/data/lfw_train --val ../shared/data/lfw_fold8.bin --steps 400 --seeds 0 1 2

First the CPU seconds of a step of every head are measured, in turn. Then every head trains with every seed for ``--steps``
steps (same images), and for as many steps as take as long as ``--steps`` steps of the full FC layer (same time). One JSON file
holds all runs and is updated after each: a run that is there is not done again. The time budget is set from the measured step
times and not by a clock, so that a busy machine does not change what is trained.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from attfc_train.build import build
from attfc_train.data.batch import Batch
from attfc_train.log import read_log
from attfc_train.profile import TrainProfile
from attfc_train.profile_file import load_preset, with_overrides
from attfc_train.run import RunOptions, start
from attfc_train.step import train_step
from benchmarks.provenance import RESULTS, provenance, quantiles, save

BASELINE = "full FC"
PAPER = {
    "policy": "fifo",
    "dcc_share": 0.3,
    "queue_length": 1,
    "num_references": 2,
    "encoder_momentum": 0.999,
    "encoder_momentum_ramp_steps": 100,
}
HEADS: dict[str, dict[str, Any]] = {
    BASELINE: {"kind": "full_fc"},
    "AttFC as published": PAPER,
    "AttFC default": {},
    "AttFC default, R=0": {"num_references": 0},
}
"""Changes to the head of the preset ``tiny``; margin, scale, network and optimiser are the same for all."""


def profile_of(name: str, steps: int, seed: int, data: str | None = None, val: str | None = None) -> TrainProfile:
    """The preset ``tiny`` with another head."""
    base = load_preset("tiny")
    head = {"kind": "full_fc", "margin": base.head.margin.model_dump()}
    if HEADS[name].get("kind") != "full_fc":
        head = {**base.head.model_dump(), **HEADS[name]}
    settings = [f"run.steps={steps}", f"run.seed={seed}", "run.save_every=1000000", "run.eval_every=1000000"]
    settings += [f"data.path={data}", f"run.val={json.dumps([val])}"] if data and val else []
    draw = "reference" if HEADS[name] is PAPER else "permutation"
    document = base.model_dump() | {"head": head}
    return with_overrides(TrainProfile.model_validate(document), [f"data.draw={draw}", *settings])


def step_seconds(num_ids: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds per train step of every head, in turn: unlike wall time they do not depend on what else runs."""
    cpu = torch.device("cpu")
    profiles = {name: profile_of(name, 10, 0).resolve(num_ids) for name in HEADS}
    states = {name: build(profile, cpu) for name, profile in profiles.items()}
    seconds: dict[str, list[float]] = {name: [] for name in HEADS}
    for step in range(rounds + 2):
        for name, state in states.items():
            batch = Batch.example(profiles[name], cpu)
            batch.query.random_(0, 256)
            begin = time.process_time()
            train_step(state, batch)
            if step >= 2:
                seconds[name].append(time.process_time() - begin)
    return seconds


def accuracy_of(name: str, steps: int, seed: int, data: str, val: str) -> float:
    """Trains and returns the accuracy of the last step's model."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        start(profile_of(name, steps, seed, data, val), RunOptions(output, torch.device("cpu"), Console(quiet=True)))
        return float([record["accuracy"] for record in read_log(output) if record["event"] == "evaluate"][-1])


def summary(runs: dict[str, float]) -> dict[str, Any]:
    """Mean and standard error over seeds per comparison and head."""
    groups: dict[str, list[float]] = {}
    for key, accuracy in runs.items():
        groups.setdefault(key.rsplit(" | seed", 1)[0], []).append(accuracy)
    return {
        key: {
            "mean": statistics.mean(each),
            "standard_error": statistics.stdev(each) / len(each) ** 0.5 if len(each) > 1 else None,
            "seeds": len(each),
        }
        for key, each in groups.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--heads", nargs="*", default=list(HEADS))
    parser.add_argument("--output", default="heads_lfw.json")
    options = parser.parse_args()
    first = update(options.output, {"steps": options.steps})
    if "step_seconds" not in first:
        timings = {name: quantiles(each) for name, each in step_seconds(1156, options.rounds).items()}
        first = update(options.output, {"step_seconds": timings, "provenance": provenance()})
    middle = {name: first["step_seconds"][name]["p50"] for name in HEADS}
    for seed in options.seeds:
        for name in options.heads:
            same_time = round(options.steps * middle[BASELINE] / middle[name])
            for kind, steps in (("same images", options.steps), ("same time", same_time)):
                run_once(options, f"{kind} | {name} | {steps} steps | seed {seed}", name, steps, seed)
    print(json.dumps(update(options.output, {})["summary"], indent=2))


def run_once(options: argparse.Namespace, key: str, name: str, steps: int, seed: int) -> None:
    """One training, unless it is recorded; the baseline's two budgets are one run."""
    runs = update(options.output, {})["runs"]
    if key in runs:
        return
    accuracy = runs.get(key.replace("same time", "same images"))
    if accuracy is None:
        accuracy = accuracy_of(name, steps, seed, options.data, options.val)
    update(options.output, {}, {key: accuracy})
    print(f"{key}: {accuracy:.4f}", flush=True)


def update(name: str, values: dict[str, Any], runs: dict[str, float] | None = None) -> dict[str, Any]:
    """Adds to the result file, which other processes with other seeds may be adding to."""
    path = RESULTS / name
    result = json.loads(path.read_text()) if path.exists() else {"runs": {}}
    result |= values
    result["runs"] |= runs or {}
    result["summary"] = summary(result["runs"])
    save(name, json.dumps(result, indent=2) + "\n")
    return dict(result)


if __name__ == "__main__":
    main()
