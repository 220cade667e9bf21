"""Accuracy of classification heads for the same images seen and for the same time, on one network.

    python -m benchmarks.heads --lfw ../shared/data --steps 350            # real faces, all studies of `head_variants.STUDIES`
    python -m benchmarks.heads --ids 20000 --steps 900 --studies heads     # computed faces
    python -m benchmarks.heads --quick                                     # under five minutes, one seed, no claim
    python -m benchmarks.heads --report                                    # tables and plot from what was recorded

First the CPU seconds of a step of every head are measured, in turn. Then every variant trains with every seed for ``--steps``
steps (same images) and, some of the study ``heads``, for as many steps as take as long as ``--steps`` of the full FC layer
(same time). The time budget is set from the measured step times and not by a clock, so that a busy machine does not change
what is trained. Every run is a line of ``results/heads.jsonl``; a run that is there is not done again, so that a stopped
benchmark goes on, and several processes can share the work by their ``--seeds``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from attfc_train.data.batch import Batch
from attfc_train.profile.file import with_overrides
from attfc_train.run.log import read_log
from attfc_train.run.run import RunOptions, start
from attfc_train.step.build import build
from attfc_train.step.step import train_step
from benchmarks.face_sets import FaceSet, lfw, synthetic
from benchmarks.head_variants import FULL, STUDIES, TIMED, Variant, profile_of, settings_digest
from benchmarks.heads_report import report
from benchmarks.provenance import RESULTS, provenance, quantiles

RUNS = RESULTS / "heads.jsonl"
QUICK = ("full FC", "Partial FC 0.1", "AttFC as published, C 30 %", "AttFC, C 10 %", "AttFC, C 100 %")


def step_seconds(variants: dict[str, Variant], image_size: int, num_ids: int, rounds: int) -> dict[str, dict[str, float]]:
    """CPU seconds per train step of every variant, in turn: unlike wall time they do not depend on what else runs."""
    cpu = torch.device("cpu")
    profiles = {name: profile_of(variant, image_size, 1000, 0).resolve(num_ids) for name, variant in variants.items()}
    states = {name: build(profile, cpu) for name, profile in profiles.items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for step in range(rounds + 2):
        for name, state in states.items():
            batch = Batch.example(profiles[name], cpu)
            batch.query.random_(0, 256)
            batch.labels.random_(0, num_ids)
            begin = time.process_time()
            train_step(state, batch)
            if step >= 2:
                seconds[name].append(time.process_time() - begin)
    return {name: quantiles(each) for name, each in seconds.items()}


def trained(variant: Variant, faces: FaceSet, image_size: int, steps: int, seed: int) -> dict[str, float]:
    """Train; return the last model's accuracy and area under the ROC curve, and the CPU seconds it took."""
    sets = [f"data.path={json.dumps(faces.data)}", f"run.val={json.dumps([faces.val])}"]
    profile = with_overrides(profile_of(variant, image_size, steps, seed), sets)
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        start(profile, RunOptions(Path(folder) / "run", torch.device("cpu"), Console(quiet=True)))
        last = [record for record in read_log(Path(folder) / "run") if record["event"] == "evaluate"][-1]
    return {"accuracy": last["accuracy"], "auc": last["auc"], "cpu_seconds": round(time.process_time() - begin, 1)}


def recorded(path: Path = RUNS) -> list[dict[str, Any]]:
    """Return all lines: step times (``kind`` "times") and trainings (``kind`` "run"); a ValueError names a torn line."""
    lines = []
    for number, text in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{path.name}, line {number}: {error}") from error
    return lines


def record(line: dict[str, Any], path: Path = RUNS) -> None:
    """Append a line in one short write, so that processes can share the file."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def budgets(study: str, name: str, steps: int, seconds: dict[str, dict[str, float]]) -> dict[str, int]:
    """Return the steps of a variant by what is held equal to the full FC layer."""
    if study != "heads" or name not in TIMED:
        return {"images": steps}
    return {"images": steps, "time": round(steps * seconds[FULL]["p50"] / seconds[name]["p50"])}


def compare(faces: FaceSet, options: argparse.Namespace) -> None:
    """Measure what is missing of the studies on one data set."""
    setting = {"data": faces.name, "image_size": options.image_size, "full_steps": options.steps}
    seconds = _times(faces, options, setting)
    for seed in options.seeds:
        for study in options.studies:
            for name, variant in STUDIES[study].items():
                if options.only and name not in options.only:
                    continue
                for equal, steps in budgets(study, name, options.steps, seconds).items():
                    digest = settings_digest(profile_of(variant, options.image_size, steps, seed).resolve(faces.num_ids))
                    key = {
                        "kind": "run",
                        **setting,
                        "name": name,
                        "equal": equal,
                        "steps": steps,
                        "seed": seed,
                        "variant": variant,
                        "settings": digest,
                    }
                    _run_once(key, variant, faces, options.output)


def _times(faces: FaceSet, options: argparse.Namespace, setting: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Step times of the study ``heads``, measured once per setting."""
    for line in recorded(options.output):
        if line["kind"] == "times" and setting.items() <= line.items():
            return dict(line["seconds"])
    seconds = step_seconds(STUDIES["heads"], options.image_size, faces.num_ids, options.rounds)
    record({"kind": "times", **setting, "seconds": seconds, **provenance()}, options.output)
    return _times(faces, options, setting)  # the first on file: another process may have measured meanwhile


def _run_once(key: dict[str, Any], variant: Variant, faces: FaceSet, output: Path) -> None:
    """Train once, unless it is recorded, maybe under another name or for the same number of steps in another comparison.

    A line that repeats another's result keeps that one's provenance.
    """
    same = {word: value for word, value in key.items() if word not in ("name", "equal", "variant")}
    done = [line for line in recorded(output) if same.items() <= line.items()]
    if any(key.items() <= line.items() for line in done):
        return
    result = {word: value for word, value in done[0].items() if word not in key} if done else {}
    result = result or {**trained(variant, faces, key["image_size"], key["steps"], key["seed"]), **provenance()}
    record({**key, **result}, output)
    print(" | ".join(str(value) for value in [*key.values(), result["accuracy"], result["auc"]]), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    faces = parser.add_mutually_exclusive_group(required=True)
    faces.add_argument("--lfw", type=Path, help="folder with lfw_train and lfw_fold8.bin")
    faces.add_argument("--ids", type=int, help="identities of a computed set, 8 images each")
    faces.add_argument("--quick", action="store_true", help="300 computed identities, a few heads, one seed")
    faces.add_argument("--report", action="store_true", help="only write tables and plot")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=10, help="timed steps per head")
    parser.add_argument("--studies", nargs="*", choices=list(STUDIES), default=list(STUDIES))
    parser.add_argument("--only", nargs="*", help="names of variants")
    parser.add_argument("--output", type=Path, default=RUNS)
    options = parser.parse_args()
    if options.quick:
        _quick(options)
    elif not options.report:
        compare(lfw(options.lfw) if options.lfw else synthetic(options.ids, 8, options.image_size), options)
    report(recorded(options.output), None if options.quick else RESULTS)


def _quick(options: argparse.Namespace) -> None:
    """Set options for a run of minutes; the figures of one short training per head are no claim."""
    options.seeds = [0]
    options.steps = 60
    options.studies = ["heads"]
    options.only = QUICK
    options.rounds = 3
    options.output = Path(tempfile.mkdtemp()) / "heads.jsonl"
    compare(synthetic(300, 8, options.image_size, num_strangers=200), options)


if __name__ == "__main__":
    main()
