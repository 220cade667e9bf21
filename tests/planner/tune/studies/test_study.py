"""What several workers may do to one study at once, one after the other."""

from __future__ import annotations

from collections.abc import Callable

from attfc_planner.tune.studies.claim import CUT, DIED, Record, State
from attfc_planner.tune.studies.storage import Store
from attfc_planner.tune.studies.study import SharedStudy, lost
from attfc_planner.tune.studies.worker import Worker, machine

KNOBS = {"size": 8, "kind": 3}


def study(store: Store, halving: int | None = None) -> SharedStudy:
    return SharedStudy(store, "study", KNOBS, ("accuracy",), halving)


def record(number: int, state: State, size: int = 0, **notes: object) -> Record:
    return Record(number, {"size": size}, state, (), notes)


def test_of_twins_the_first_is_run(store: Store) -> None:
    first = study(store)
    second = study(store)
    first.enqueue({"size": 1, "kind": 2}, "first")
    second.enqueue({"size": 1, "kind": 2}, "at the same moment")
    claim = first.claim()
    assert claim is not None
    assert (claim.number, claim.indices) == (0, {"size": 1, "kind": 2})
    assert second.claim() is None
    claim.complete((1.0,))
    assert [record.counts for record in first.records()] == [True, False]
    assert first.records()[1].notes["dropped"] == "the setting is that of trial 0"


def test_no_more_settings_than_wanted(store: Store) -> None:
    shared = study(store)
    for size in range(4):
        shared.enqueue({"size": size, "kind": 0}, "surplus")
    claims = [shared.claim(limit=2) for _ in range(4)]
    assert [claim is not None for claim in claims] == [True, True, False, False]


def test_a_dead_workers_trial_is_run_once_more_and_no_more(store: Store) -> None:
    shared = study(store)
    shared.enqueue({"size": 1, "kind": 2}, "first")
    for number in (0, 1):
        claim = shared.claim()
        assert claim is not None
        assert claim.number == number
        claim.note(worker=Worker(machine(), 2**22 + 1, 1).document())  # beyond any process number
        assert shared.bury() == 1
        assert shared.bury() == 0
    assert [(record.state, record.notes.get("outcome")) for record in shared.records()] == [("failed", DIED)] * 2
    claim.complete((1.0,))  # too late, and harmless
    claim.note(outcome="ran")
    assert shared.records()[1].state == "failed"


def test_a_living_workers_trial_is_left_alone(store: Store) -> None:
    shared = study(store)
    shared.enqueue({"size": 1, "kind": 2}, "first")
    claim = shared.claim()
    assert claim is not None
    assert shared.bury() == 0
    assert shared.is_running()


def test_what_is_lost() -> None:
    died = {"outcome": DIED}
    cut = {"outcome": CUT}
    assert lost([record(0, "failed", **died)]) == [{"size": 0}]
    assert lost([record(0, "failed", **cut), record(1, "failed", **cut), record(2, "failed", **cut)]) == [{"size": 0}]
    assert lost([record(0, "failed", **died), record(1, "failed", **died)]) == []
    assert lost([record(0, "failed", **died), record(1, "waiting")]) == []
    assert lost([record(0, "failed", outcome="failed")]) == []
    assert lost([record(0, "pruned", dropped="twin")]) == []


def test_halving_lets_the_better_go_on(store: Store) -> None:
    shared = study(store, halving=3)
    wanted = []
    for size, value in enumerate((0.9, 0.8, 0.7, 0.95)):
        shared.enqueue({"size": size, "kind": 0}, "training")
        claim = shared.claim()
        assert claim is not None
        wanted.append(not claim.report(value, 1))
        claim.prune()
    assert wanted == [True, False, False, True]


def drawn(draw: Callable[[str], int]) -> dict[str, int]:
    return {name: draw(name) for name in ("size", "kind")}


def test_suggestions_keep_away_from_what_is_refused(store: Store) -> None:
    shared = study(store)
    indices = shared.suggest(0, drawn, lambda indices: 1.0 if indices["size"] > 1 else 0.0)
    assert indices is not None
    assert indices["size"] <= 1
    assert shared.suggest(0, drawn, lambda indices: None) is None
    first, second = (shared.suggest(3, drawn, lambda indices: 0.0) for _ in range(2))
    assert first == second, "the same seed, the same setting"


def test_settings_with_knobs_of_their_own_are_suggested_and_weighed(store: Store) -> None:
    """Catches a copy for TPE, or for importances, in which every trial must have every knob."""
    shared = SharedStudy(store, "several heads", {"head": 2, "size": 4, "a slots": 3, "b rate": 3}, ("value",))
    for number in range(12):
        head = number % 2
        shared.enqueue({"head": head, "size": number % 4, ("a slots", "b rate")[head]: number % 3}, "a test")
        claim = shared.claim()
        assert claim is not None
        claim.complete((float(head + number % 4),))

    def conditional(draw: Callable[[str], int]) -> dict[str, int]:
        head = draw("head")
        own = ("a slots", "b rate")[head]
        return {"head": head, "size": draw("size"), own: draw(own)}

    for seed in range(6):
        suggested = shared.suggest(seed, conditional, lambda indices: 0.0)
        assert suggested is not None
        assert set(suggested) == {"head", "size", ("a slots", "b rate")[suggested["head"]]}
    shares = shared.importances(lambda record: record.values[0] if record.values else None)
    assert isinstance(shares, dict)
    assert set(shares) == {"head", "size"}, "knobs that every trial has"


def test_importance_is_given_or_why_not(store: Store) -> None:
    shared = study(store)
    assert shared.importances(lambda record: 1.0) == "0 trials; it takes 10"
    for size in range(8):
        for kind in range(3):
            shared.enqueue({"size": size, "kind": kind}, "grid")
            claim = shared.claim()
            assert claim is not None
            claim.complete((float(size),))
    shares = shared.importances(lambda record: record.values[0])
    assert isinstance(shares, dict)
    assert shares["size"] > 0.9
    assert sum(shares.values()) == 1
    assert shared.importances(lambda record: 1.0) == "nothing varied"


def test_the_journal_is_a_plain_optuna_study(store: Store) -> None:
    import optuna

    shared = study(store)
    shared.enqueue({"size": 1, "kind": 2}, "first")
    claim = shared.claim()
    assert claim is not None
    claim.constrain({"memory": -0.5})
    claim.complete((0.7,))
    loaded = optuna.load_study(study_name="study", storage=store.backend)
    assert loaded.best_params == {"size": 1, "kind": 2}
    assert loaded.best_trial.constraints == {"memory": -0.5}
