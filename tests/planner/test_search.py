from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attfc_planner.choose import EQUAL_SPEED, INDIFFERENCE_POINTS, choose, rank, runners_up, smallest
from attfc_planner.plan import PlanRequest, base_profile, make_plan
from attfc_planner.search.candidates import Candidate, Evaluator
from attfc_planner.search.constraints import Limits, constraints, is_feasible
from attfc_planner.search.space import SearchSpace, space_for
from attfc_planner.search.study import pareto_front, search
from attfc_train.errors import InfeasiblePlanError
from attfc_train.units import GIB
from tests.planner.fakes import FakeMemoryModel, make_gpu

SMALL = SearchSpace(
    dcc_share=(1.0, 0.3, 0.1, 0.02),
    queue_length=(1.0, 3.3),
    batch_size=(32, 128, 512),
    num_references=(0, 1),
    gradient_checkpointing=(False, True),
)


def everything(num_ids: int, space: SearchSpace = SMALL, model: FakeMemoryModel | None = None) -> list[Candidate]:
    gpu = make_gpu()
    evaluate = Evaluator(base_profile(PlanRequest(num_ids=num_ids), gpu), gpu, model or FakeMemoryModel())
    return [evaluate(setting) for setting in space]


def best_by_enumeration(candidates: list[Candidate], limits: Limits) -> Candidate | None:
    """The rule in its plainest form."""
    fit = [
        one
        for one in candidates
        if one.memory_bytes <= limits.budget_bytes
        and one.accuracy_points >= -limits.max_accuracy_drop
        and (one.setting.dcc_share == 1 or one.profile.dcc_size >= 8 * one.setting.batch_size)
    ]
    if not fit:
        return None
    top = max(one.accuracy_points for one in fit)
    close = [one for one in fit if one.accuracy_points >= top - INDIFFERENCE_POINTS - 1e-9]
    fastest = max(one.images_per_second for one in close)
    equal = [one for one in close if one.images_per_second >= fastest * (1 - EQUAL_SPEED)]
    return max(equal, key=lambda one: (one.accuracy_points, one.setting.dcc_share, -one.setting.batch_size))


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([2_000, 200_000, 2_059_906, 20_000_000]),
    st.integers(2, 100),
    st.sampled_from([0.3, 1.0, 2.0, 5.0]),
    st.integers(0, 3),
)
def test_the_study_finds_what_enumeration_finds(num_ids: int, gib: int, drop: float, seed: int) -> None:
    limits = Limits(gib * GIB, drop)
    gpu = make_gpu(limits.budget_bytes)
    model = FakeMemoryModel(limits.budget_bytes)
    evaluate = Evaluator(base_profile(PlanRequest(num_ids=num_ids), gpu), gpu, model)
    result = search(SMALL, evaluate, limits, num_trials=5, seed=seed)
    expected = best_by_enumeration(everything(num_ids), limits)
    winner = choose(result.feasible, model, limits)
    assert (winner is None) == (expected is None)
    if winner is not None and expected is not None:
        assert winner.images_per_second == pytest.approx(expected.images_per_second)
        assert {one.setting for one in result.feasible} == {
            one.setting for one in everything(num_ids) if is_feasible(one, limits)
        }
        better = [one for one in result.front if one.accuracy_points >= winner.accuracy_points - 1e-9]
        assert max(one.images_per_second for one in better) <= winner.images_per_second / (1 - EQUAL_SPEED) + 1e-9


def test_the_full_space_agrees_with_enumeration_too() -> None:
    space, limits = space_for(2_059_906), Limits(12 * GIB, 1.0)
    gpu, model = make_gpu(12 * GIB), FakeMemoryModel(12 * GIB)
    evaluate = Evaluator(base_profile(PlanRequest(num_ids=2_059_906), gpu), gpu, model)
    winner = choose(search(space, evaluate, limits, num_trials=10, seed=0).feasible, model, limits)
    expected = best_by_enumeration(everything(2_059_906, space), limits)
    assert winner is not None
    assert expected is not None
    assert winner.setting == expected.setting


def test_the_same_seed_gives_the_same_answer() -> None:
    plans = [make_plan(PlanRequest(num_ids=100_000, seed=3), make_gpu(), lambda *_: FakeMemoryModel()) for _ in range(2)]
    first, second = (plan.profile.model_copy(update={"provenance": None}) for plan in plans)
    assert first == second
    assert list(plans[0].runners_up) == list(plans[1].runners_up)


def test_constraints_are_at_most_zero_where_they_hold() -> None:
    limits = Limits(8 * GIB, 0.5)
    for candidate in everything(500_000):
        values = constraints(candidate, limits)
        assert (values["memory"] <= 0) == (candidate.memory_bytes <= 8 * GIB)
        assert values["memory"] == pytest.approx(candidate.memory_bytes / (8 * GIB) - 1)
        assert values["slots"] < 1
        assert (values["accuracy"] <= 0) == (round(candidate.accuracy_points, 9) >= -0.5)


def test_no_member_of_the_pareto_front_is_beaten() -> None:
    candidates = everything(500_000)
    front = pareto_front(candidates)
    for one in front:
        for other in candidates:
            better = other.images_per_second > one.images_per_second, other.accuracy_points > one.accuracy_points
            worse = other.images_per_second < one.images_per_second, other.accuracy_points < one.accuracy_points
            assert not (any(better) and not any(worse))


def test_the_smallest_hold_the_least_memory() -> None:
    candidates = everything(500_000)
    assert min(one.memory_bytes for one in smallest(candidates)) == min(one.memory_bytes for one in candidates)


def test_the_rank_prefers_speed_only_where_accuracy_is_close() -> None:
    ordered = rank(everything(2_059_906))
    top = max(one.accuracy_points for one in ordered)
    close = [one.accuracy_points >= top - INDIFFERENCE_POINTS - 1e-9 for one in ordered]
    assert close == sorted(close, reverse=True)
    assert len(ordered) == len(SMALL)


def test_a_winner_that_does_not_fit_exactly_gives_way_to_the_next() -> None:
    limits = Limits(10 * GIB, 1.0)
    optimistic = FakeMemoryModel(10 * GIB, hidden_bytes=2 * GIB)
    feasible = [one for one in everything(500_000) if is_feasible(one, limits)]
    winner = choose(feasible, optimistic, limits)
    assert winner is not None
    assert winner.memory_bytes <= limits.budget_bytes
    assert winner.memory == optimistic.exact(winner.profile)
    assert optimistic.num_exact <= 4, "one miss must correct the estimates of all others"


def test_runners_up_do_not_repeat_the_winner_or_each_other() -> None:
    plan = make_plan(PlanRequest(num_ids=500_000), make_gpu(), lambda *_: FakeMemoryModel())
    shown = [plan.chosen.setting, *(one.setting for one in plan.runners_up.values())]
    assert len(shown) == len(set(shown)) > 1
    assert runners_up([plan.chosen], plan.chosen) == {}


def test_memory_is_asked_for_along_the_border_only() -> None:
    model = FakeMemoryModel()
    asked: list[object] = []
    evaluate = Evaluator(base_profile(PlanRequest(num_ids=500_000), make_gpu()), make_gpu(), model)

    def counting(setting):
        candidate = evaluate(setting)
        inner = candidate.predict_memory

        def predict():
            asked.append(setting)
            return inner()

        return replace(candidate, predict_memory=predict)

    space = space_for(500_000)
    result = search(space, counting, Limits(6 * GIB, 1.0), num_trials=1, seed=0)
    assert result.feasible
    assert len(asked) < len(space) / 20


@pytest.mark.parametrize(
    ("gib", "drop", "expected"),
    [
        (
            1,
            1.0,
            r"must fit the 1.00 GiB of Test card, but got .* misses by [\d,]+ MiB.*largest term is '.*' with "
            r".*The tightest setting traced is DCC size 2,000, .* gradient checkpointing \([\d.]+ GiB\)\. No setting fits",
        ),
        (
            3,
            0.01,
            r"misses by [\d,]+ MiB.*largest term is 'activations'.*tightest.*Nearest setting that fits: DCC size .* accepts it",
        ),
        (64, 0.0, r"within --max-accuracy-drop 0 points of a full FC layer, but got -.* Raise --max-accuracy-drop to 0\.\d\d"),
    ],
)
def test_a_refusal_names_the_term_the_miss_and_the_nearest_setting(gib: int, drop: float, expected: str) -> None:
    request = PlanRequest(num_ids=20_000_000 if drop == 0 else 200_000, max_accuracy_drop=drop)
    with pytest.raises(InfeasiblePlanError, match=expected) as refused:
        make_plan(request, make_gpu(gib * GIB), lambda *_: FakeMemoryModel(gib * GIB))
    assert refused.value.exit_code == 6
    assert "\n" not in str(refused.value)


def test_what_a_refusal_advises_is_accepted() -> None:
    request = PlanRequest(num_ids=200_000, max_accuracy_drop=0.01)
    with pytest.raises(InfeasiblePlanError) as refused:
        make_plan(request, make_gpu(3 * GIB), lambda *_: FakeMemoryModel(3 * GIB))
    advised = float(str(refused.value).split("--max-accuracy-drop ")[-1].split()[0])
    make_plan(replace(request, max_accuracy_drop=advised), make_gpu(3 * GIB), lambda *_: FakeMemoryModel(3 * GIB))
