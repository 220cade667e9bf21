"""A tuned profile against a shipped preset, both trained at full length, with several seeds, on people neither has seen.

    attfc-plan tune --gpu cpu --data ../shared/data/lfw_train --backbone tiny --image-size 64 --epochs 12.375 \\
        --trials 16 --hours 0.5
    python -m benchmarks.tuned best.json --data ../shared/data/lfw_train --val ../shared/data/lfw_fold8.bin

The preset decides how many images are seen; the tuned profile must see as many. Accuracy is that of the last model, looked at
once. A training that is on file is not done again; `results/tuned.jsonl` has a line for each, `results/tuned.json` the summary.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from attfc_train.profile.file import load_preset, load_profile, with_overrides
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.log import read_log
from attfc_train.run.run import RunOptions, start
from benchmarks.heads.records import record, recorded
from benchmarks.heads.variants import settings_digest
from benchmarks.provenance import RESULTS, provenance, save

T_QUANTILE = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
"""Student's t, 97.5 %, by number of seeds, for the mean of paired differences."""


def trained(profile: TrainProfile, data: str, val: str, seed: int) -> dict[str, Any]:
    """Train, and verify the last model."""
    quiet = {"log_every": 100, "eval_every": 10**9, "save_every": 10**9, "seed": seed, "val": [val]}
    changes = [f"run.{name}={json.dumps(value)}" for name, value in quiet.items()]
    whole = with_overrides(profile, [*changes, f"data.path={json.dumps(data)}"])
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        start(whole, RunOptions(Path(folder) / "run", torch.device("cpu"), Console(quiet=True)))
        events = read_log(Path(folder) / "run")
    last = [event for event in events if event["event"] == "evaluate"][-1]
    seconds = round(time.process_time() - begin, 1)
    return {key: last[key] for key in ("accuracy", "auc", "num_pairs")} | {"steps": last["step"], "cpu_seconds": seconds}


def compared(lines: list[dict[str, Any]], seeds: list[int]) -> dict[str, Any]:
    """Return means over seeds, and the paired difference with its 95 % interval."""
    by_name = {name: [line for line in lines if line["name"] == name] for name in ("preset", "tuned")}
    result: dict[str, Any] = {"seeds": seeds}
    for measure in ("accuracy", "auc"):
        values = {name: [line[measure] for line in rows] for name, rows in by_name.items()}
        gaps = [tuned - preset for preset, tuned in zip(values["preset"], values["tuned"], strict=True)]
        half = T_QUANTILE[len(gaps)] * statistics.stdev(gaps) / math.sqrt(len(gaps))
        result[measure] = {name: statistics.fmean(rows) for name, rows in values.items()}
        result[measure] |= {"difference": statistics.fmean(gaps), "half_width": half}
    cpu_seconds = {name: statistics.fmean(line["cpu_seconds"] for line in rows) for name, rows in by_name.items()}
    return result | {"cpu_seconds": cpu_seconds}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", type=Path, help="what attfc-plan tune wrote")
    parser.add_argument("--data", required=True)
    parser.add_argument("--val", required=True)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="two to five")
    parser.add_argument("--output", type=Path, default=RESULTS / "tuned.jsonl")
    options = parser.parse_args()
    if len(set(options.seeds)) not in T_QUANTILE:
        parser.error("--seeds takes two to five different ones")
    tuned = load_profile(options.profile)
    preset = load_preset(options.preset)
    lines = []
    for seed in options.seeds:
        for name, profile in (("preset", preset), ("tuned", tuned)):
            digest = settings_digest(profile.resolve(tuned.num_ids, tuned.data.num_images))
            key = {"name": name, "settings": digest, "data": Path(options.data).name, "seed": seed}
            on_file = [line for line in recorded(options.output) if key.items() <= line.items()]
            if not on_file:
                result = trained(profile, options.data, options.val, seed)
                record({**key, **result, **provenance()}, options.output)
                on_file = [line for line in recorded(options.output) if key.items() <= line.items()]
            lines.append(on_file[0])
            print(name, seed, on_file[0]["steps"], on_file[0]["accuracy"], on_file[0]["auc"], flush=True)
    summary = compared(lines, options.seeds) | provenance()
    save("tuned.json", json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
