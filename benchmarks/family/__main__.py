"""What the methods of the family are worth, each beside what it would replace.

    python -m benchmarks.family --lfw FOLDER                     # all experiments on real faces, three seeds
    python -m benchmarks.family --lfw FOLDER --only schedules    # one of them
    python -m benchmarks.family --glyphs FOLDER --only schedules # on 5,000 characters
    python -m benchmarks.family --quick                          # a few minutes, computed faces, one seed, no claim
    python -m benchmarks.family --report                         # the tables of what was recorded, into docs/family.md

Every run is a line of ``results/family-DATA.jsonl``. A run that is there is not done again, one that was stopped is resumed,
and several processes share the work. Give each one thread: ``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.family.experiments import EXPERIMENTS, Experiment
from benchmarks.family.report import file_of, table, write_page
from benchmarks.family.training import Run
from benchmarks.family.workshop import Workshop
from benchmarks.heads.data_sets import CACHE, DataSet, computed, glyphs, lfw
from benchmarks.heads.records import recorded
from benchmarks.provenance import RESULTS


def compare(experiment: Experiment, workshop: Workshop, options: argparse.Namespace) -> bool:
    """Do what is missing of an experiment; return whether all of it is on record."""
    is_complete = True
    for seed in experiment.seeds if options.seeds is None else options.seeds:
        for arm in experiment.arms:
            begin = time.perf_counter()
            is_there = Run(arm, seed).done(workshop, options)
            print(f"{arm.name} | seed {seed} | {time.perf_counter() - begin:.0f} s", flush=True)
            is_complete &= is_there
    return is_complete


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--lfw", type=Path, help="folder with lfw_train and lfw_fold8.bin")
    what.add_argument("--glyphs", type=Path, help="folder that python -m benchmarks.glyphs wrote")
    what.add_argument("--quick", action="store_true", help="300 computed identities, one seed")
    what.add_argument("--report", action="store_true", help="only write the tables of the page")
    parser.add_argument("--only", nargs="*", choices=list(EXPERIMENTS), default=list(EXPERIMENTS), help="experiments")
    parser.add_argument("--seeds", nargs="*", type=int, help="instead of each experiment's own")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the records")
    parser.add_argument("--work", type=Path, default=CACHE / "family", help="folder of the runs under way")
    options = parser.parse_args()
    if options.report:
        write_page(options.results)
    elif options.quick:
        with tempfile.TemporaryDirectory() as folder:
            options.results, options.work, options.seeds = Path(folder), Path(folder) / "work", [0]
            _compare_all(computed(300, 8, 32, 200, 64, 60), options)
    else:
        _compare_all(lfw(options.lfw) if options.lfw else glyphs(options.glyphs, "5k"), options)


def _compare_all(data: DataSet, options: argparse.Namespace) -> None:
    """Do the experiments that were asked for, and print their tables."""
    options.output = file_of(data.name, options.results)
    workshop = Workshop(data, options.work)
    for name in options.only:
        experiment = EXPERIMENTS[name]
        while not compare(experiment, workshop, options):
            time.sleep(20)  # other processes have what is left
        print(f"\n{experiment.question}\n\n{table(experiment, recorded(options.output))}")


if __name__ == "__main__":
    main()
