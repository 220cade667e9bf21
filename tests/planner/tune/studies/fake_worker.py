"""A worker of stage A as a real process, with real storage and trials that cost nothing: ``fake_worker URL LOG LIMIT [HANG]``.

Every trial appends its process and setting to LOG. With HANG the trial of that ordinal never ends.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from attfc_planner.calibrate.real_steps import RealSteps
from attfc_planner.knobs.space import SearchSpace, space_for
from attfc_planner.plan import problem
from attfc_planner.plan.request import PlanRequest
from attfc_planner.tune.question import Question, ask
from attfc_planner.tune.stages.steps import StepTrials
from attfc_planner.tune.studies.storage import open_storage, reachable
from attfc_planner.tune.studies.study import SharedStudy
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel, make_gpu

NAME = "shared"
SPACE = space_for(500_000, kind="attfc").narrowed(
    dcc_share=(1.0, 0.3, 0.1),
    queue_length=(2.0, 3.3, 5.0),
    batch_size=(32, 128, 512),
    num_references=(0, 1),
    accumulation=(1, 2),
    storage=("fp32", "bf16"),
)


class Silent:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def show(self, stage: str, done: int, total: int, best: str) -> None:
        """Nothing moves."""


def fake_question(capacity_bytes: int = 24 * GIB, num_ids: int = 500_000) -> Question:
    """A plan by formula for a card that nobody has."""
    problem.traced_model = lambda base, gpu, budget, profiles: FakeMemoryModel(budget)  # type: ignore[assignment]
    problem.space_for = _space_for  # type: ignore[assignment]
    request = PlanRequest(num_ids=num_ids, num_images=20 * num_ids, data_path="faces", num_trials=1, tries_heads=True)
    return ask(request, make_gpu(capacity_bytes))


def _space_for(*arguments: Any, kind: str, **options: Any) -> SearchSpace:
    return SPACE if kind == "attfc" else space_for(*arguments, kind=kind, **options)


@contextmanager
def opened_study(url: str, asked: Question) -> Iterator[SharedStudy]:
    with closing(open_storage(url)) as store, reachable(url):
        yield SharedStudy(store, NAME, asked.knobs, ("accuracy points", "images/s"))


class FakeSteps:
    """Writes down what it is asked to run."""

    def __init__(self, log: Path, hang: int | None) -> None:
        self._log = log
        self._hang = hang
        self._count = 0

    def __call__(self, profile: TrainProfile, kind: Literal["cuda", "cpu"], *, timeout: float) -> RealSteps:
        assert profile.total_steps, "real steps need a resolved profile"
        self._count += 1
        optim = profile.optim
        head = profile.head.model_dump()
        size = f"{head['dcc_share']}-{optim.batch_size}-{optim.accumulation}-{head['storage']}"
        setting = f"{size}-{profile.num_references}-{profile.model.gradient_checkpointing}"
        with self._log.open("a") as file:
            file.write(f"{setting}\n")
        if self._count == self._hang:
            time.sleep(600)
        time.sleep(0.02)
        seconds = optim.batch_size / 1000
        return RealSteps("ran", seconds=(seconds,) * 3, reserved_bytes=3 * GIB, context_bytes=GIB, process_bytes=4 * GIB)


def main() -> None:
    url, log, limit, *hang = sys.argv[1:]
    asked = fake_question()
    with opened_study(url, asked) as study:
        steps = FakeSteps(Path(log), int(hang[0]) if hang else None)
        deadline = time.monotonic() + 300
        StepTrials(asked, study, steps, int(limit), deadline, Silent()).run()


if __name__ == "__main__":
    main()
