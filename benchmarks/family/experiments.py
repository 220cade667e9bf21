"""What is compared: a question, the arms that answer it, and the figures that are looked at.

All arms train the same base on the same images in the same order, but for what an arm changes; an arm that changes nothing is
trained once, whatever asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from attfc_planner.knobs.recipe import with_schedule
from attfc_train.heads.pace import Pace
from attfc_train.profile.profile import OptimSettings
from benchmarks.family.base import RATE
from benchmarks.family.workshop import Workshop
from benchmarks.heads.variants import MARGIN_RAMP_STEPS, WARMUP_STEPS

Prepare = Callable[[Workshop, int], tuple[str, ...]]
"""Makes what a run of a seed needs, once; returns settings as ``--set`` takes them."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train."""

    name: str
    sets: tuple[str, ...] = ()
    """Settings as ``--set`` takes them."""
    share: float = 1.0
    """Of the data set's steps."""
    prepare: Prepare | None = None
    prepared: str = ""
    """What `prepare` makes, in words: part of what tells runs apart, in the place of its files."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """A question and the arms that answer it."""

    question: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    figures: tuple[str, ...] = ("accuracy", "auc")
    """Names in the records, see `benchmarks.heads.measures.measured`."""


def _scheduled(kind: str, share: float) -> Arm:
    return Arm(f"{kind}, {share:g} of the steps", (f"optim.schedule={kind}",), share)


def _margin(name: str, *sets: str) -> Arm:
    return Arm(name, ("head.margin.gradient=exact", *sets))


def _taught(name: str, *sets: str) -> Arm:
    """Return the base with a teacher of its own size, trained for as long on the same faces."""

    def prepare(workshop: Workshop, seed: int) -> tuple[str, ...]:
        del seed
        return (f"teacher.path={json.dumps(str(workshop.model('teacher', TEACHER)))}",)

    return Arm(name, sets, prepare=prepare, prepared=f"teacher, {TEACHER}")


def _thinned(name: str, by: str) -> Arm:
    """Return the base on a share of the images, for as many epochs."""

    def prepare(workshop: Workshop, seed: int) -> tuple[str, ...]:
        at_random = by == "random"
        path = workshop.coreset(f"random-{seed}" if at_random else by, KEEP, seed if at_random else None)
        return (f"data.path={json.dumps(str(path))}",)

    return Arm(name, share=KEEP, prepare=prepare, prepared=f"{KEEP:g} of the images, {by}")


def _sized(times: float, words: str) -> Arm:
    """Return the base with a batch so many times as large, the rate and warm-up of the planner's rule, and as many images."""

    def prepare(workshop: Workshop, seed: int) -> tuple[str, ...]:
        del seed
        data = workshop.data
        recipe = OptimSettings(
            batch_size=data.batch_size, learning_rate=RATE, warmup_steps=None, warmup_images=WARMUP_STEPS * data.batch_size
        )
        batch_size = round(times * data.batch_size)
        pace = Pace(batch_size, data.steps / times)
        optim = with_schedule(recipe.model_copy(update={"batch_size": batch_size}), recipe, pace)
        return (
            f"optim.batch_size={batch_size}",
            f"optim.learning_rate={optim.learning_rate}",
            f"optim.warmup_steps={optim.warmup_steps}",
            f"head.margin.ramp_images={MARGIN_RAMP_STEPS * data.batch_size}",
        )

    return Arm(words, share=1 / times, prepare=prepare, prepared=f"{words}, by the rule")


TEACHER: Final = "model.backbone=mbf"
KEEP: Final = 0.6
"""The share that Face-NMS's paper keeps of WebFace42M."""
LONG: Final = (1.0, 0.5, 0.25)

EXPERIMENTS: Final[dict[str, Experiment]] = {
    "schedules": Experiment(
        "Does a schedule that listens to the loss reach in a quarter of the steps what a cosine reaches in all?",
        (
            *(_scheduled(kind, share) for share in LONG for kind in ("cosine", "mhlr", "mhlr_released")),
            *(_scheduled(kind, 1.0) for kind in ("polynomial", "step", "constant")),
        ),
    ),
    "teacher": Experiment(
        "What does a student learn from a trained teacher, beside its identities?",
        (Arm("no teacher"), _taught("teacher, weight 7"), _taught("teacher, weight 30", "teacher.weight=30")),
    ),
    "margins": Experiment(
        "Which margin, all with the same size and scale?",
        (
            Arm("cosface (the recipe)"),
            _margin("arcface", "head.margin.kind=arcface"),
            _margin("adaface", "head.margin.kind=adaface", "head.margin.statistics_rate=0.05"),
            _margin("curricularface", "head.margin.kind=curricularface"),
            _margin("curricularface, slots do not learn", "head.margin.kind=curricularface", "head.slot_rate=0"),
        ),
    ),
    "masks": Experiment(
        "What do masks in training cost without, and bring with a mask on one face of each pair?",
        (
            Arm("no masks"),
            Arm("masks on a tenth", ("data.augment.mask=0.1",)),
            Arm("masks on three tenths", ("data.augment.mask=0.3",)),
        ),
        figures=("accuracy", "auc", "masked accuracy", "masked auc"),
    ),
    "batches": Experiment(
        "Does the rule for learning rate, warm-up and ramps keep the accuracy when the batch changes, with as many images?",
        (_sized(0.25, "a quarter of the batch"), Arm("the batch"), _sized(4, "four times the batch")),
    ),
    "coreset": Experiment(
        "Is Face-NMS's choice of 60 % of the images better than one at random?",
        (
            Arm("all images"),
            Arm("all images, 0.6 of the steps", share=KEEP),
            _thinned("60 % by Face-NMS, as many epochs", "nms"),
            _thinned("60 % at random, as many epochs", "random"),
        ),
    ),
}
"""Name -> experiment. A new one is an entry here."""
