"""The search against plain enumeration: what is screened, chosen and kept."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attfc_planner.accuracy.prior import Part, accuracy_parts, accuracy_prior
from attfc_planner.knobs.space import space_for
from attfc_planner.knobs.spaces import Spaces
from attfc_planner.memory.model import MemoryModel
from attfc_planner.plan.plan import Plan
from attfc_planner.plan.problem import base_profile
from attfc_planner.plan.request import PlanRequest, limits_of
from attfc_planner.search.candidates import Candidate, Evaluator, PredictAccuracy
from attfc_planner.search.choose import EQUAL_SPEED, TOLERANCE, Preference, choose, pick, runners_up
from attfc_planner.search.constraints import Limits, constraints, is_feasible
from attfc_planner.search.plainest import NEGLIGIBLE_POINTS
from attfc_planner.search.refusal import smallest
from attfc_planner.search.screening import _Border, screen
from attfc_planner.search.study import SearchResult, pareto_front, search
from attfc_train.profile.file import load_profile, save_profile
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel, make_gpu
from tests.planner.measured import random_accuracy
from tests.planner.planned import planned

FULL = space_for(40_000_000, kind="attfc")
SMALL = FULL.narrowed(
    dcc_share=(1.0, 0.3, 0.1, 0.02),
    queue_length=(1.0, 3.3),
    batch_size=(32, 128, 512),
    num_references=(0, 1),
    gradient_checkpointing=(False, "wide", True),
    accumulation=(1, 2, 4),
    storage=("fp32", "int8"),
)
IMAGES = 42_474_557
NUM_PROBLEMS = 44


class Problem:
    """A GPU, a data set and limits, all drawn from one seed."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self.num_ids = draw.choice([2_000, 93_431, 617_970, 2_059_906, 10_000_000, 40_000_000])
        self.limits = Limits(draw.choice([4, 6, 8, 11, 16, 24, 40, 80]) * GIB, draw.choice([0.15, 0.3, 0.6, 1.0, 2.0, 5.0]))
        self.prefer = draw.choice(list(TOLERANCE))
        self.space = FULL.narrowed(
            dcc_share=(1.0, *sorted(draw.sample(FULL.values["dcc_share"][1:], 3), reverse=True)),
            queue_length=tuple(sorted(draw.sample(FULL.values["queue_length"], 2))),
            batch_size=tuple(sorted(draw.sample(FULL.values["batch_size"], 4))),
            num_references=draw.choice([(0, 1, 2), (0, 1), (1, 2)]),
            gradient_checkpointing=draw.choice([(False, "wide", True), (False, True), (False,)]),
            accumulation=draw.choice([(1, 2, 4), (1, 2, 8), (1,)]),
            storage=draw.choice([("fp32", "int8"), ("fp32", "bf16"), ("fp32",)]),
        )
        rates = {"fp32_flops": draw.uniform(5e12, 60e12), "memory_bandwidth_bytes_per_second": draw.uniform(3e11, 4e12)}
        rates["bf16_flops"] = rates["fp32_flops"] * draw.choice([1, 2, 4, 8])
        cores = {"num_cores": 1} if seed % 2 else {}  # a host that limits the fast settings, or one that is not known
        self.gpu = make_gpu(self.limits.budget_bytes, **rates, **cores)
        self.model = FakeMemoryModel(self.limits.budget_bytes)
        self.base = base_profile(PlanRequest(num_ids=self.num_ids, num_images=IMAGES), self.gpu)
        self.accuracy: PredictAccuracy = accuracy_prior

    def evaluator(self) -> Evaluator:
        return Evaluator(self.base, self.gpu, self.model, self.accuracy)

    def feasible(self) -> list[Candidate]:
        """By plain enumeration."""
        evaluate = self.evaluator()
        everything = (evaluate(setting) for setting in self.space if setting.divides)
        return [candidate for candidate in everything if is_feasible(candidate, self.limits)]

    def searched(self, seed: int = 0) -> SearchResult:
        usual = self.base.optim.batch_size
        return search(Spaces((self.space,)), self.evaluator(), self.limits, batch_size=usual, num_trials=2, seed=seed)


def by_rule(feasible: list[Candidate], prefer: Preference) -> Candidate:
    """The rule in its plainest form, over all that is feasible."""
    least_points = max(candidate.accuracy_points for candidate in feasible) - TOLERANCE[prefer] - 1e-9
    accurate = [candidate for candidate in feasible if candidate.accuracy_points >= least_points]
    least_speed = max(candidate.images_per_second for candidate in accurate) * (1 - EQUAL_SPEED)
    fast = [candidate for candidate in accurate if candidate.images_per_second >= least_speed]
    return max(fast, key=lambda candidate: candidate.accuracy_points)


@pytest.mark.parametrize("seed", range(NUM_PROBLEMS))
def test_regret_against_enumeration(seed: int) -> None:
    """No feasible setting is as accurate as the chosen one and takes over 0.5 % fewer hours; the front misses none."""
    check_regret(Problem(seed))


@pytest.mark.parametrize("seed", range(100, 112))
def test_regret_with_measured_accuracy(seed: int) -> None:
    """Likewise where trainings that went anyhow took the prior's place."""
    problem = Problem(seed)
    divided = [setting for setting in problem.space if setting.accumulation == 1]
    problem.accuracy = random_accuracy(problem.base, divided, seed).interval
    problem.limits = replace(problem.limits, max_accuracy_drop=5.0)
    check_regret(problem, given_away=2 * NEGLIGIBLE_POINTS)  # at the best, and again at the chosen one


def check_regret(problem: Problem, given_away: float = NEGLIGIBLE_POINTS) -> None:
    feasible = problem.feasible()
    result = problem.searched()
    winner, _ = choose(lambda _: pick(result.front, problem.prefer), problem.model, problem.limits)
    assert (winner is None) == (not feasible)
    if winner is None:
        return
    for candidate in result.front:
        best = min(other.hours for other in feasible if other.accuracy_points >= candidate.accuracy_points)
        assert candidate.hours <= 1.005 * best
        assert is_feasible(candidate, problem.limits)
    for candidate in feasible:
        assert any(
            member.accuracy_points >= candidate.accuracy_points - NEGLIGIBLE_POINTS and member.hours <= 1.005 * candidate.hours
            for member in result.front
        )
    assert winner.hours <= by_rule(feasible, problem.prefer).hours / (1 - EQUAL_SPEED)
    assert winner.accuracy_points >= by_rule(feasible, problem.prefer).accuracy_points - given_away


def test_enough_of_these_problems_have_an_answer() -> None:
    answered = [bool(problem.searched().front) for problem in map(Problem, range(NUM_PROBLEMS))]
    assert sum(answered) >= 30


@pytest.mark.parametrize(("gib", "drop"), [(1.6, 2.0), (2.0, 0.5), (3.0, 1.0)])
def test_regret_with_traced_memory(gib: float, drop: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    """As above, with the memory and the costs of the real train step of ``tiny``."""
    budget = round(gib * GIB)
    gpu = make_gpu(budget)
    base = base_profile(PlanRequest(num_ids=200_000, num_images=IMAGES, backbone="tiny", image_size=64), gpu)
    space = SMALL.narrowed(
        dcc_share=(1.0, 0.1), batch_size=(128, 512), queue_length=(3.3,), accumulation=(1, 2), num_references=(1,)
    )
    model = MemoryModel(base, gpu, budget, tmp_path_factory.getbasetemp() / "traces")
    evaluate = Evaluator(base, gpu, model)
    limits = Limits(budget, drop)
    everything = [evaluate(setting) for setting in space if setting.divides]
    feasible = [candidate for candidate in everything if is_feasible(candidate, limits)]
    front = search(Spaces((space,)), evaluate, limits, batch_size=128, num_trials=1, seed=0).front
    assert feasible
    for member in front:
        least_hours = min(other.hours for other in feasible if other.accuracy_points >= member.accuracy_points)
        assert member.hours <= 1.005 * least_hours
    best = max(candidate.accuracy_points for candidate in feasible)
    assert max(candidate.accuracy_points for candidate in front) >= best - NEGLIGIBLE_POINTS


def test_the_same_seed_gives_the_same_answer() -> None:
    first, second = (planned(seed=3) for _ in range(2))
    without = {"provenance": None}
    assert first.profile.model_copy(update=without) == second.profile.model_copy(update=without)
    trials = [[(trial.params, trial.values) for trial in plan.search.record.study.trials] for plan in (first, second)]  # type: ignore[union-attr]
    assert trials[0] == trials[1]


def test_constraints_are_at_most_zero_where_they_hold() -> None:
    problem = Problem(3)
    evaluate, limits = problem.evaluator(), Limits(8 * GIB, 0.5, max_hours=100)
    for setting in SMALL:
        candidate = evaluate(setting)
        if not setting.divides:
            assert constraints(replace(candidate), limits)["divisibility"] > 0
            continue
        values = constraints(candidate, limits)
        assert (values["memory"] <= 0) == (candidate.memory_bytes <= 8 * GIB)
        assert values["memory"] == pytest.approx(candidate.memory_bytes / (8 * GIB) - 1)
        assert values["slots"] < 1
        assert values["data rate"] <= 0
        assert (values["accuracy"] <= 0) == (round(candidate.accuracy_points, 9) >= -0.5)
        assert (values["hours"] <= 0) == (candidate.hours <= 100)


def test_the_front_the_slacks_and_the_rule_are_in_the_file(tmp_path: Path) -> None:
    plan = planned(max_hours=60, cores=64)
    save_profile(plan.profile, tmp_path / "best.json")
    summary = load_profile(tmp_path / "best.json").search
    assert summary is not None
    assert summary == plan.profile.search
    assert {constraint.name for constraint in summary.constraints} == {
        "memory",
        "data rate",
        "hours",
        "accuracy",
        "slots",
        "divisibility",
    }
    assert all(constraint.slack >= 0 for constraint in summary.constraints)
    hours = [point.hours for point in summary.front]
    accuracy = [point.accuracy for point in summary.front]
    assert len(hours) > 2
    assert hours == sorted(hours)  # type: ignore[type-var]
    assert accuracy == sorted(accuracy)
    chosen = [point for point in summary.front if point.settings["dcc_share"] == plan.chosen.setting["dcc_share"]]
    assert plan.chosen.memory_bytes in {point.memory_bytes for point in chosen}
    assert "balanced" in summary.rule
    assert "60 hours" in summary.rule
    assert any("fp32" in line for line in summary.left_out)


def test_what_a_former_version_wrote_still_loads(tmp_path: Path) -> None:
    document = json.loads(planned().profile.model_dump_json())
    del document["search"]
    del document["prediction"]["hours"]
    (tmp_path / "best.json").write_text(json.dumps(document))
    profile = load_profile(tmp_path / "best.json")
    assert profile.search is None
    assert profile.prediction is not None
    assert profile.prediction.hours is None


def test_the_journal_has_every_constraint_of_every_trial() -> None:
    plan = planned(num_trials=60)
    assert plan.search.record is not None
    for trial in plan.search.record.study.trials:
        names = set(trial.constraints)
        if trial.state.name == "PRUNED":
            assert names == {"divisibility"}
            continue
        assert names >= {"memory", "accuracy", "slots", "divisibility", "data rate", "hours"}
        assert {"memory_bytes", "images_per_second", "setting"} <= set(trial.user_attrs)


def test_preferences_are_ordered() -> None:
    # Networks differ in both; of the settings of one head the fastest may be the most accurate, too.
    asked: dict[str, Any] = {"num_ids": 2_059_906, "compared": ("r50", "r100"), "max_accuracy_drop": 4}
    plans = {prefer: planned(prefer=prefer, **asked).chosen for prefer in TOLERANCE}
    speed, balanced, accuracy = (plans[name] for name in ("speed", "balanced", "accuracy"))
    assert speed.hours <= balanced.hours <= accuracy.hours
    assert speed.accuracy_points <= balanced.accuracy_points <= accuracy.accuracy_points
    assert speed.hours < accuracy.hours


def test_less_memory_is_respected() -> None:
    plan = planned(max_memory_bytes=5 * GIB)
    assert plan.chosen.memory_bytes <= 5 * GIB
    assert plan.profile.prediction is not None
    assert plan.profile.search is not None
    assert plan.profile.search.constraints[0].limit == 5


def test_a_batch_is_split_where_it_does_not_fit() -> None:
    plan = planned(gib=5, num_ids=10_000_000, num_images=200_000_000, prefer="accuracy", max_accuracy_drop=3)
    assert plan.chosen.setting.accumulation > 1
    assert plan.profile.optim.accumulation == plan.chosen.setting.accumulation
    assert plan.profile.optim.micro_batch_size >= 32


def test_backbones_are_compared_by_their_published_figures() -> None:
    both = ("r50", "r100")
    loose = planned(compared=both, max_accuracy_drop=4, prefer="speed")
    strict = planned(compared=both, max_accuracy_drop=1)
    assert loose.profile.model.backbone == "r50"
    assert strict.profile.model.backbone == "r100"
    behind = [sum(part.points for part in backbone_parts(plan)) for plan in (loose, strict)]
    assert behind == [pytest.approx(-2.66), 0]
    assert loose.chosen.accuracy_points < strict.chosen.accuracy_points - 2


def backbone_parts(plan: Plan) -> list[Part]:
    return [part for part in accuracy_parts(plan.chosen.profile, "r100") if part.name == "backbone"]


def test_a_winner_that_does_not_fit_exactly_gives_way_to_the_next() -> None:
    optimistic = FakeMemoryModel(10 * GIB, hidden_bytes=2 * GIB)
    plan = planned(optimistic, gib=10)
    assert plan.chosen.memory_bytes <= 10 * GIB
    assert plan.chosen.memory == optimistic.exact(plan.chosen.profile)
    assert optimistic.num_exact <= 5, "one miss must correct the estimates of all others"
    assert plan.profile.search is not None
    front = plan.profile.search.front
    assert any(point.memory_bytes == plan.chosen.memory_bytes for point in front), "the chosen one is on its front"
    assert all(optimistic.exact(candidate.profile).total_bytes <= 10 * GIB for candidate in plan.runners_up.values())
    assert all(point.memory_bytes <= 8 * GIB or point.memory_bytes == plan.chosen.memory_bytes for point in front)


def test_memory_that_others_hold_is_not_charged_to_max_memory() -> None:
    gpu = make_gpu(24 * GIB, foreign_bytes=10 * GIB)
    assert limits_of(PlanRequest(num_ids=1000, max_memory_bytes=8 * GIB), gpu).budget_bytes == 18 * GIB
    assert limits_of(PlanRequest(num_ids=1000, max_memory_bytes=20 * GIB), gpu).budget_bytes == 24 * GIB


def test_runners_up_do_not_repeat_the_winner_or_each_other() -> None:
    plan = planned()
    shown = [plan.chosen.setting, *(candidate.setting for candidate in plan.runners_up.values())]
    assert len(shown) == len(set(shown)) > 2
    assert runners_up([plan.chosen], plan.chosen, None) == {}


def test_wide_maps_are_recomputed_alone_where_that_is_enough() -> None:
    """Catches a walk that turns checkpointing on for all blocks at once, or stops at the way between."""
    gpu = make_gpu()
    base = base_profile(PlanRequest(num_ids=200_000, num_images=IMAGES), gpu)
    space = SMALL.narrowed(dcc_share=(0.1,), batch_size=(512,), num_references=(0,), accumulation=(1,), storage=("fp32",))
    evaluate = Evaluator(base, gpu, FakeMemoryModel())
    plain, wide, all_blocks = (evaluate(setting) for setting in space.narrowed(queue_length=(3.3,)))
    assert plain.images_per_second > wide.images_per_second > all_blocks.images_per_second
    cards = ((plain.memory_bytes, plain), (plain.memory_bytes - 1, wide), (wide.memory_bytes - 1, all_blocks))
    for budget, expected in cards:
        assert [member.setting for member in screen(space, evaluate, Limits(budget, 5.0))] == [expected.setting]


@pytest.mark.parametrize("kept_of_wide", [0.37, 0.43])
def test_of_two_ways_of_checkpointing_neither_is_taken_for_the_smaller_one(kept_of_wide: float) -> None:
    """Of r18 a GPU reserves more with all blocks recomputed. Catches an order of the two, in what fits and in the smallest."""
    gpu = make_gpu()
    base = base_profile(PlanRequest(num_ids=200_000, num_images=IMAGES), gpu)
    space = SMALL.narrowed(
        dcc_share=(0.1,), queue_length=(3.3,), batch_size=(512,), num_references=(0,), accumulation=(1,), storage=("fp32",)
    )
    evaluate = Evaluator(base, gpu, FakeMemoryModel(activations={False: 1.0, "wide": kept_of_wide, True: 0.4}))
    candidates = [evaluate(setting) for setting in space]
    least, more, _ = sorted(candidates, key=lambda candidate: candidate.memory_bytes)
    limits = Limits(more.memory_bytes - 1, 5.0)
    for order in itertools.permutations(candidates):
        border = _Border(space, limits)
        assert [candidate for candidate in order if border.fits(candidate)] == [least]
    smallest_of_all = smallest(space, evaluate, limits)
    assert smallest_of_all is not None
    assert smallest_of_all.setting == least.setting


def test_the_smallest_needs_the_least_of_all() -> None:
    for seed in range(4):
        problem = Problem(seed)
        unlimited = replace(problem.limits, budget_bytes=10**15)
        least = smallest(problem.space, problem.evaluator(), unlimited)
        problem.limits = unlimited
        feasible = problem.feasible()
        assert (least is None) == (not feasible)
        if least is not None:
            assert least.memory_bytes == min(candidate.memory_bytes for candidate in feasible)


def test_memory_is_asked_for_along_the_border_only() -> None:
    asked: list[object] = []

    class Counting(FakeMemoryModel):
        def estimate(self, profile: Any) -> Any:
            asked.append(profile)
            return super().estimate(profile)

    gpu, limits = make_gpu(6 * GIB), Limits(6 * GIB, 1.0)
    base = base_profile(PlanRequest(num_ids=500_000), gpu)
    space = space_for(500_000, kind="attfc")
    assert screen(space, Evaluator(base, gpu, Counting(6 * GIB)), limits)
    assert len(asked) < len(space) / 400


def test_no_member_of_the_pareto_front_is_beaten() -> None:
    feasible = Problem(1).feasible() + Problem(2).feasible()
    front = pareto_front(feasible)
    for candidate in front:
        for other in feasible:
            better = other.images_per_second > candidate.images_per_second, other.accuracy_points > candidate.accuracy_points
            worse = other.images_per_second < candidate.images_per_second, other.accuracy_points < candidate.accuracy_points
            assert not (any(better) and not any(worse))


@pytest.mark.parametrize(("num_images", "expected"), [(12_000_000, "hours"), (None, "hours a million images")])
def test_the_study_says_of_how_many_images_its_hours_are(num_images: int | None, expected: str) -> None:
    """Catches hours of a training, on the report's axis, that are those of a million images."""
    record = planned(num_images=num_images, num_trials=2).search.record
    assert record is not None
    assert record.study.metric_names == ["accuracy points", expected]
