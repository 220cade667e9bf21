"""Runs that collapse and runs that do not, and when the watch over them says so.

    python -m benchmarks.collapse --lfw FOLDER    # ten minutes on one core; without --lfw the runs on real faces are left out
    python -m benchmarks.collapse --report        # only write the table of docs/training.md from what was recorded

Every run is the preset ``tiny`` at 32 pixels, 200 steps of 16 images, without the preset's warm-up and its ramp of the margin:
what leads to collapses. The usual recipe has both, and 64 images. Half of the images of one set are inverted: an encoder that
sees them sees light and dark first. Nothing is stopped: the record says at which step ``--on-collapse fail`` would have.
Accuracy is that of the last step, on identities that nobody trained on.
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image, ImageOps
from rich.console import Console

from attfc_train.data.formats.procedural_face import render_face
from attfc_train.data.formats.recordio_writer import write_recordio
from attfc_train.data.sampling.hashing import hashed, uniform
from attfc_train.files import write_text_atomically
from attfc_train.profile.file import load_preset, with_overrides
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.collapse import EVERY
from attfc_train.run.log import read_log
from attfc_train.run.run import RunOptions, start
from benchmarks.heads.data_sets import CACHE, FIRST_STRANGER
from benchmarks.heads.records import Line, line_of, record, recorded
from benchmarks.provenance import RESULTS, provenance

RESULT: Final = "collapse.jsonl"
PAGE: Final = Path(__file__).parents[1] / "docs" / "training.md"
BEGIN, END = "<!-- collapse -->\n", "<!-- end -->"
SIZE: Final = 32
STEPS: Final = 200
LOOKED_AT: Final = 100
"""The step whose figures are in the table."""
NUM_IDS, IMAGES_PER_ID, NUM_STRANGERS = 300, 8, 150
INVERTED: Final = "computed faces, half of them inverted"
COMPUTED: Final = "computed faces"
USUAL: Final = "computed faces, usual recipe"
LFW: Final = "LFW"

Changes = Mapping[str, Any]
GENERATED: Final[Changes] = {"head.slot_rate": 0, "head.num_references": 1}
"""AttFC without slots that learn."""
STRICT: Final[Changes] = {"head.margin.kind": "arcface", "head.margin.margin": 0.5, "head.margin.scale": 64}
RAMPS: Final[Changes] = {"head.margin.ramp_images": 25600, "optim.warmup_images": 2560}
"""Those of the preset, which end within a tenth and within half of the run."""
RING: Final[Changes] = {
    **STRICT,
    "head.slot_rate": 0,
    "head.num_references": 2,
    "head.policy": "fifo",
    "head.queue_length": 1,
    "head.dcc_share": 0.3,
    "head.batch_negatives": False,
    "data.draw": "reference",
}


def of_kind(kind: str, **settings: Any) -> Changes:
    """Return the changes that make a head of another kind."""
    return {"head.kind": kind} | {f"head.{name}": value for name, value in settings.items()}


@dataclass(frozen=True, slots=True)
class Case:
    """A run."""

    data: str
    name: str
    changes: Changes

    @property
    def key(self) -> Line:
        """What tells the run from all others."""
        return {"data": self.data, "name": self.name, "changes": dict(self.changes), "steps": STEPS}


HEADS: Final[dict[str, Changes]] = {
    "AttFC": {},
    "AttFC, slots generated alone, R = 1": GENERATED,
    "AttFC, slots generated alone, R = 0": {"head.slot_rate": 0},
    "full FC": of_kind("full_fc"),
    "Partial FC 0.1": of_kind("partial_fc", sample_rate=0.1),
    "F2C": of_kind("f2c"),
    "DCQ": of_kind("dcq"),
}
MORE: Final[dict[str, dict[str, Changes]]] = {
    INVERTED: {
        "full FC, ArcFace 0.5, scale 64": {**of_kind("full_fc"), **STRICT},
        "full FC, scale 16": {**of_kind("full_fc"), "head.margin.scale": 16},
        "full FC, warm-up and ramp of the preset": {**of_kind("full_fc"), **RAMPS},
        "full FC, rate 0.02": {**of_kind("full_fc"), "optim.learning_rate": 0.02},
        "full FC, 64 images a batch": {**of_kind("full_fc"), "optim.batch_size": 64},
        "AttFC, 64 images a batch": {"optim.batch_size": 64},
    },
    COMPUTED: {
        "full FC, rate 1": {**of_kind("full_fc"), "optim.learning_rate": 1},
        "full FC, rate 10": {**of_kind("full_fc"), "optim.learning_rate": 10},
        "full FC, ArcFace 0.5, scale 64, rate 100": {**of_kind("full_fc"), **STRICT, "optim.learning_rate": 100},
    },
    USUAL: {},
    LFW: {
        "AttFC as published: ring, R = 2, momentum 0.999 at once": {**RING, "head.encoder_momentum_ramp_steps": 0},
        "the same, momentum growing over the run": {**RING, "head.encoder_momentum_ramp_steps": STEPS - 1},
    },
}


def cases(data: str) -> list[Case]:
    """Return the runs on a data set."""
    chosen = {LFW: ("AttFC", "full FC"), USUAL: tuple(name for name in HEADS if name != "DCQ")}.get(data, tuple(HEADS))
    heads = {name: HEADS[name] for name in chosen}
    usual = {**RAMPS, "optim.batch_size": 64} if data == USUAL else {}
    return [Case(data, name, {**changes, **usual}) for name, changes in {**heads, **MORE[data]}.items()]


def write_faces(path: Path, first: int, num_ids: int, images_per_id: int, share_inverted: float) -> Path:
    """Write computed faces of 32 x 32 pixels as RecordIO, of which a share is inverted; return the file."""
    images = [(first + identity, image) for identity in range(num_ids) for image in range(images_per_id)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_recordio(path, [identity - first for identity, _ in images], (_png(*image, share_inverted) for image in images))
    return path


def _png(identity: int, number: int, share_inverted: float) -> bytes:
    face = Image.fromarray(render_face(identity, number, SIZE))
    file = io.BytesIO()
    is_inverted = uniform(hashed(7, identity, number)) < share_inverted
    (ImageOps.invert(face) if is_inverted else face).save(file, "PNG")
    return file.getvalue()


@cache
def computed(share_inverted: float) -> tuple[Path, Path]:
    """Return the files of a set to train on and of strangers to judge on; written where they are not there."""
    folder = CACHE / f"collapse-{share_inverted:g}"
    paths = []
    for name, first, num, each in (("train", 0, NUM_IDS, IMAGES_PER_ID), ("test", FIRST_STRANGER, NUM_STRANGERS, 4)):
        path = folder / name / "train.rec"
        if not path.with_suffix(".idx").exists():
            write_faces(path, first, num, each, share_inverted)
        paths.append(path)
    return paths[0], paths[1]


def profile_of(case: Case, train: str, test: str) -> TrainProfile:
    """Return the profile of a run."""
    settings = {
        "data.path": train,
        "data.num_workers": 1,
        "data.cache_bytes": 2**29,
        "model.image_size": SIZE,
        "model.embedding_size": 32,
        "optim.batch_size": 16,
        "optim.warmup_steps": 0,
        "head.margin.ramp_steps": 0,
        "run.steps": STEPS,
        "run.log_every": EVERY,
        "run.eval_every": STEPS,
        "run.save_every": STEPS,
        "run.val": f'["{test}"]',
        **case.changes,
    }
    return with_overrides(load_preset("tiny"), [f"{name}={value}" for name, value in settings.items()])


def run_once(case: Case, train: str, test: str, output: Path) -> None:
    """Train, and record what was seen, unless it is on record."""
    if line_of(case.key, output) is not None:
        return
    folder = CACHE / "collapse-run"
    shutil.rmtree(folder, ignore_errors=True)
    start(profile_of(case, train, test), RunOptions(folder, torch.device("cpu"), Console(quiet=True)))
    record({**case.key, **seen(read_log(folder)), **provenance()}, output)
    shutil.rmtree(folder)
    print(row(line_of(case.key, output) or {}), flush=True)


def seen(log: Sequence[Mapping[str, Any]]) -> Line:
    """Return the figures of a run's record."""
    steps = [line for line in log if line["event"] == "step"]
    step = next(line for line in steps if line["step"] == LOOKED_AT)
    return {
        "stranger_cosine": step["stranger_cosine"],
        "gain": step["chance_loss"] - step["loss"],
        "looks": [[line[name] for name in ("stranger_cosine", "chance_loss", "loss")] for line in steps],
        "accuracy": [line["accuracy"] for line in log if line["event"] == "evaluate"][-1],
        "recognised": [line["step"] for line in log if line["event"] == "collapse"],
    }


def row(line: Line) -> str:
    """Return a line of the table."""
    steps = ", ".join(map(str, line["recognised"])) or "-"
    figures = f"{line['stranger_cosine']:.2f} | {line['gain']:.1f} | {100 * line['accuracy']:.0f} % | {steps}"
    return f"| {line['data']}: {line['name']} | {figures} |"


def table(lines: Sequence[Line]) -> str:
    """Return the table of all runs on record, in the order of the cases."""
    head = f"| run | cosine at step {LOOKED_AT} | chance − loss | accuracy | recognised at |\n|---|---|---|---|---|\n"
    keys = [case.key for data in MORE for case in cases(data)]
    return head + "\n".join(row(line) for key in keys for line in lines if key.items() <= line.items()) + "\n"


def filled(page: str, results: Path) -> str:
    """Return the page with its table made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(recorded(results / RESULT))}\n{END}{after}"


def _run(lfw: Path | None) -> None:
    sets = {data: computed(share) for data, share in ((INVERTED, 0.5), (COMPUTED, 0.0), (USUAL, 0.0))}
    if lfw is not None:
        sets[LFW] = (lfw / "lfw_train", lfw / "lfw_fold8.bin")
    for data, (train, test) in sets.items():
        for case in cases(data):
            run_once(case, str(train), str(test), RESULTS / RESULT)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, help="folder with lfw_train and lfw_fold8.bin")
    parser.add_argument("--report", action="store_true", help="only write the table")
    options = parser.parse_args()
    if not options.report:
        _run(options.lfw)
    write_text_atomically(PAGE, filled(PAGE.read_text(encoding="utf-8"), RESULTS))


if __name__ == "__main__":
    main()
