"""Accuracy of classification heads for the same images, the same processor time and the same bytes an identity.

    python -m benchmarks.heads --data glyphs-5k --glyphs FOLDER      # 5,000 characters; also glyphs-25k, glyphs-70k
    python -m benchmarks.heads --data lfw --lfw FOLDER               # real faces: a folder with lfw_train and lfw_fold8.bin
    python -m benchmarks.heads --quick                               # under six minutes, computed faces, no claim
    python -m benchmarks.heads --report                              # tables, plots and pages from what was recorded

Every run is a line of ``results/heads-DATA.jsonl``. A run that is there is not done again, one that was stopped is resumed, and
several processes share the work. Give each one thread: ``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from attfc_train.data.source import open_dataset
from benchmarks.heads.data_sets import CACHE, DataSet, computed, glyphs, lfw
from benchmarks.heads.page import write_pages
from benchmarks.heads.rates import chosen_rate
from benchmarks.heads.records import Line, file_of, line_of, record
from benchmarks.heads.report import report
from benchmarks.heads.study import MAIN, STUDIES
from benchmarks.heads.training import digest_on, profile_on, run_once, step_seconds
from benchmarks.heads.variants import FULL, VARIANTS, Variant
from benchmarks.provenance import RESULTS, provenance

LEAST_DIFFERENCE = 0.05
"""Steps that take as long as the full FC layer's within this share count as equally many."""


def compare(data: DataSet, study: str, options: argparse.Namespace) -> bool:
    """Do what is missing of a study; return whether all of it is on record."""
    num_ids = open_dataset(data.path).index.num_ids
    seconds: dict[str, Any] = {}
    is_complete = True
    for wanted in STUDIES[study]:
        for seed in wanted.seeds:
            for name in wanted.names:
                if options.only and name not in options.only:
                    continue
                variant = VARIANTS[name]
                rate = chosen_rate(variant.family, data, options.results, options.work)
                if rate is None:
                    is_complete = False
                    continue
                steps = data.steps
                if wanted.equal_time:
                    seconds = seconds or _times(data, num_ids, options)
                    steps = equal_steps(data.steps, name, seconds)
                is_complete &= _run(variant, data, num_ids, steps, seed, rate, options)
    return is_complete


def equal_steps(steps: int, name: str, seconds: dict[str, Any]) -> int:
    """Return the steps that take a head as long as `steps` of the full FC layer."""
    ratio = seconds[FULL]["p50"] / seconds[name]["p50"]
    return steps if abs(ratio - 1) < LEAST_DIFFERENCE else round(steps * ratio)


def _run(
    variant: Variant, data: DataSet, num_ids: int, steps: int, seed: int, rate: float, options: argparse.Namespace
) -> bool:
    profile = profile_on(variant, data, num_ids, steps, seed, rate, data.test[:1])
    key: Line = {
        "kind": "run",
        "data": data.name,
        "name": variant.name,
        "steps": steps,
        "seed": seed,
        "rate": rate,
        "settings": digest_on(variant, data, num_ids, steps, rate),
    }
    begin = time.perf_counter()
    was_there = line_of(key, options.output) is not None
    is_there = run_once(key, profile, data, options.output, options.work)
    if is_there and not was_there:
        line = line_of(key, options.output) or {}
        print(
            f"{variant.name} | {steps} steps | seed {seed} | {line.get('accuracy', 0):.4f} | "
            f"{time.perf_counter() - begin:.0f} s",
            flush=True,
        )
    return is_there


def _times(data: DataSet, num_ids: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the step times of the main table's heads, measured once a data set."""
    key: Line = {"kind": "times", "data": data.name}
    line = line_of(key, options.output)
    if line is None:
        seconds = step_seconds({name: VARIANTS[name] for name in MAIN}, data, num_ids, options.rounds)
        record({**key, "seconds": seconds, **provenance()}, options.output)
        line = line_of(key, options.output)  # the first on file: another process may have measured meanwhile
    assert line is not None, "it was recorded"
    return dict(line["seconds"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", choices=[name for name in STUDIES if name != "quick"])
    what.add_argument("--quick", action="store_true", help="300 computed identities, a few heads, one seed")
    what.add_argument("--report", action="store_true", help="only write tables and plots, and the tables of the pages")
    parser.add_argument("--glyphs", type=Path, default=Path("glyphs"), help="folder that python -m benchmarks.glyphs wrote")
    parser.add_argument("--lfw", type=Path, default=Path("lfw"), help="folder with lfw_train and lfw_fold8.bin")
    parser.add_argument("--only", nargs="*", help="names of heads")
    parser.add_argument("--rounds", type=int, default=20, help="timed steps per head")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--work", type=Path, default=CACHE / "heads", help="folder of the runs under way")
    options = parser.parse_args()
    if options.report:
        report(options.results)
        write_pages(options.results)
        return
    if options.quick:
        _quick(options)
        return
    data = lfw(options.lfw) if options.data == "lfw" else glyphs(options.glyphs, options.data.removeprefix("glyphs-"))
    options.output = file_of(data.name, options.results)
    while not compare(data, options.data, options):
        time.sleep(20)  # other processes have what is left


def _quick(options: argparse.Namespace) -> None:
    """Compare a few heads in minutes; the figures are no claim."""
    with tempfile.TemporaryDirectory() as folder:
        data = computed(300, 8, 32, 200, 64, 150)
        options.results, options.work = Path(folder), Path(folder) / "work"
        options.output = file_of(data.name, options.results)
        compare(data, "quick", options)


if __name__ == "__main__":
    main()
