"""The screening's front is that of plain enumeration, for every kind of head."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from attfc_planner.accuracy.prior import accuracy_prior
from attfc_planner.knobs.space import SearchSpace, knobs_of
from attfc_planner.plan.problem import base_profile
from attfc_planner.plan.request import PlanRequest
from attfc_planner.search.candidates import Candidate, Evaluator, PredictAccuracy
from attfc_planner.search.choose import describe
from attfc_planner.search.constraints import Limits, is_feasible
from attfc_planner.search.refusal import smallest
from attfc_planner.search.screening import screen
from attfc_planner.search.study import pareto_front
from attfc_train.heads.kinds import HEADS
from attfc_train.profile.prediction import Interval
from attfc_train.profile.profile import TrainProfile
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel, make_gpu
from tests.planner.planned import planned

SEEDS = range(8)


def imagined_accuracy(seed: int) -> PredictAccuracy:
    """Return points of any size that keep to fact 1: a queue is worth the same everywhere, and ways are worth nothing."""

    @cache
    def points(*settings: object) -> float:
        return random.Random(f"{seed} {settings}").uniform(-3, 0)

    def predict(profile: TrainProfile) -> Interval:
        head = profile.head.model_dump(include={"sample_rate", "dcc_share", "num_references", "storage"})
        queue = points("queue", getattr(profile.head, "queue_length", 0))
        middle = queue / 4 + points(*head.items(), profile.optim.batch_size, profile.run.precision)
        return Interval(low=middle - 1, high=middle + 1, source="a test")

    return predict


class Problem:
    """A device, a data set, limits and accuracies for a kind of head, all drawn from one seed."""

    def __init__(self, kind: str, seed: int) -> None:
        draw = random.Random(seed)
        num_ids = draw.choice([500, 93_431, 1_000_000, 2_059_906])
        budget = draw.choice([3, 6, 10, 16, 24]) * GIB
        self.gpu = make_gpu(budget, fp32_flops=draw.uniform(5e12, 60e12), bf16_flops=draw.uniform(6e13, 2e14))
        self.limits = Limits(budget, draw.choice([0.6, 1.5, 4.0]), max_hours=draw.choice([None, 40.0, 200.0]))
        space = SearchSpace(knobs_of(HEADS[kind].settings))
        self.space = space.narrowed(
            batch_size=tuple(sorted(draw.sample(space.values["batch_size"], 4))),
            accumulation=draw.choice([(1, 2, 4), (1, 4, 16)]),
            precision=draw.choice([("bf16", "fp32"), ("bf16",)]),
            **{name: tuple(values) for name, values in self._of_the_head(kind, space, draw).items()},
        )
        self.model = FakeMemoryModel(budget)
        self.base = base_profile(PlanRequest(num_ids=num_ids, num_images=20_000_000, head=kind), self.gpu)
        self.accuracy = draw.choice([accuracy_prior, imagined_accuracy(seed)])

    @staticmethod
    def _of_the_head(kind: str, space: SearchSpace, draw: random.Random) -> dict[str, list[Any]]:
        """The first value, which may allocate in its own way, and others in order."""
        values = {knob.name: list(knob.values) for knob in HEADS[kind].settings.knobs()}
        count = 3 if kind == "attfc" else 8
        return {
            name: [every[0], *sorted(draw.sample(every[1:], min(count, len(every)) - 1), key=every.index)]
            for name, every in values.items()
        }

    def evaluator(self) -> Evaluator:
        return Evaluator(self.base, self.gpu, self.model, self.accuracy)

    def feasible(self) -> list[Candidate]:
        """By plain enumeration."""
        evaluate = self.evaluator()
        everything = [evaluate(setting) for setting in self.space if setting.divides]
        return [candidate for candidate in everything if is_feasible(candidate, self.limits)]


def figures(front: list[Candidate]) -> list[tuple[float, float]]:
    return [(candidate.images_per_second, candidate.accuracy_points) for candidate in front]


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_front_is_that_of_plain_enumeration(kind: str, seed: int) -> None:
    """Catches a cell that is dropped though another is no better, a way that is passed over, and a fit that is assumed."""
    problem = Problem(kind, seed)
    front = screen(problem.space, problem.evaluator(), problem.limits)
    assert figures(front) == figures(pareto_front(problem.feasible()))
    assert all(is_feasible(candidate, problem.limits) for candidate in front)


@pytest.mark.parametrize("kind", ["full_fc", "partial_fc"])
@pytest.mark.parametrize("seed", SEEDS[:4])
def test_the_smallest_needs_the_least_of_all(kind: str, seed: int) -> None:
    """Catches a corner that leaves a knob without a size at its first value."""
    problem = Problem(kind, seed)
    problem.limits = replace(problem.limits, budget_bytes=10**15, max_hours=None)
    feasible = problem.feasible()
    least = smallest(problem.space, problem.evaluator(), problem.limits)
    assert (least is None) == (not feasible)
    if least is not None:
        assert least.memory_bytes == min(candidate.memory_bytes for candidate in feasible)


def test_these_problems_are_no_formality() -> None:
    """Catches limits that everything respects, and fronts of one member for heads that have a knob of their own."""
    for kind in HEADS:
        problems = [Problem(kind, seed) for seed in SEEDS]
        fronts = [screen(problem.space, problem.evaluator(), problem.limits) for problem in problems]
        assert sum(map(bool, fronts)) >= 4
        if kind != "full_fc":
            assert max(map(len, fronts)) >= 3
        ways = [candidate.setting for front in fronts for candidate in front]
        assert any(way.gradient_checkpointing or way.accumulation > 1 for way in ways), "memory is short somewhere"


@pytest.mark.parametrize("kind", ["full_fc", "partial_fc"])
def test_a_plan_with_learned_centers_is_made_of_their_own_knobs(kind: str) -> None:
    plan = planned(head=kind, num_ids=1_000_000)
    summary = plan.profile.search
    assert summary is not None
    own = {knob.name for knob in HEADS[kind].settings.knobs()}
    assert set(summary.knobs) & {"dcc_share", "num_references", "storage", "sample_rate"} == own
    assert plan.profile.head.kind == kind
    assert plan.profile.dcc_size == 0
    assert describe(plan.chosen).startswith("sample rate" if kind == "partial_fc" else "batch size")


def test_a_smaller_sample_is_cheaper() -> None:
    """Which the figures above rest on: catches a fake that charges every sampled layer for all identities."""
    problem = Problem("partial_fc", 0)
    evaluate = problem.evaluator()
    setting = next(iter(problem.space))
    whole, tenth = (evaluate(setting.turned(sample_rate=rate)) for rate in (1.0, 0.1))
    assert tenth.memory_bytes < whole.memory_bytes
    assert tenth.images_per_second >= whole.images_per_second
