"""``attfc-plan tune``: plan, real steps, short trainings, finals, and ``best.json`` from whatever was measured.

Several processes, on one or many machines, can work on one study (``--storage``); each ends with its own ``best.json`` of all
trials. The hours are those of one process. SIGINT, SIGTERM and SIGHUP end the tuning with the best so far: ``best.json`` is
written, and the exit code is 128 + the signal's number, as for every interrupted command.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from attfc_planner.calibrate.real_steps import run_real_steps
from attfc_planner.commands.device import device_for
from attfc_planner.knobs.space import Setting
from attfc_planner.plan.request import PlanRequest
from attfc_planner.screens import tune as screen
from attfc_planner.screens.tracing import tracing
from attfc_planner.search.candidates import Candidate
from attfc_planner.tune.question import Question, ask
from attfc_planner.tune.stages.budget import Scale, affordable
from attfc_planner.tune.stages.finals import MOST_SEEDS, Finals, seeded_knobs
from attfc_planner.tune.stages.recorded import check_baseline, check_steps, check_training
from attfc_planner.tune.stages.short_training import run_short_training
from attfc_planner.tune.stages.steps import StepTrials
from attfc_planner.tune.stages.training_trial import TrainingTrial, recorded_beside, recorded_scale
from attfc_planner.tune.stages.trainings import FIRST_CUT, HALVING, Trainings
from attfc_planner.tune.studies.address import shown
from attfc_planner.tune.studies.claim import Record
from attfc_planner.tune.studies.storage import Store, journal_beside, open_storage, reachable
from attfc_planner.tune.studies.study import SharedStudy, study_names
from attfc_planner.tune.studies.worker import device_lock
from attfc_planner.tune.verdict.result import Verdict, contenders, finals_pool, measured_candidates, verdict
from attfc_planner.tune.verdict.trained import (
    SEED,
    Standing,
    regression,
    trained_full_fc,
    trained_settings,
    training_records,
    without_seed,
)
from attfc_planner.tune.verdict.tuned_profile import tuned_profile
from attfc_train.errors import Interrupted, UsageError
from attfc_train.interrupt import stop_signals
from attfc_train.profile.former import former_words, replace_profile
from attfc_train.screen import Screen
from attfc_train.streams import typed

SHARE_OF_STEPS = 0.4
"""Share of the time after planning that real steps take at most; the rest is for trainings."""
SHARE_OF_FINALS = 0.3
"""Share of that rest that is kept for the finals, which also take what the short trainings leave."""
LEAST_STARTUP_SECONDS = 5.0


@dataclass(frozen=True)
class TuneOptions:
    """Options of the tuning, beside those of the plan that it starts from."""

    gpu_word: str
    output: Path
    hours: float
    storage: str | None = None
    """None: a journal beside `output`."""
    study: str | None = None
    """Name of the study in the storage; None: backbone and identities."""
    resume: bool = False


class Stopped(KeyboardInterrupt):
    """A signal that ends the tuning."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


@dataclass(frozen=True)
class Studies:
    """The studies of a tuning, in one storage."""

    steps: SharedStudy
    trainings: SharedStudy
    finals: SharedStudy
    baseline: SharedStudy

    @property
    def num_trials(self) -> int:
        """Return the number of trials that stand for a setting or the full FC layer."""
        studies = (self.steps, self.trainings, self.finals, self.baseline)
        return sum(record.counts for study in studies for record in study.records())

    def standing(self, question: Question) -> Standing:
        """Return what all trials say so far."""
        trained = trained_settings(question, [*self.trainings.records(), *self.finals.records()])
        full_fc = trained_full_fc(self.baseline.records())
        beside = recorded_beside(question, self.baseline)
        num_ids = recorded_scale(self.baseline).num_ids if full_fc else 0
        model = regression(question, trained, full_fc, beside, num_ids)
        pool = finals_pool(question, measured_candidates(question, self.steps.records()), trained)
        return Standing(pool, trained, full_fc, model)


def tune(request: PlanRequest, options: TuneOptions) -> None:
    """Run a whole tuning.

    Raises:
        Interrupted: after SIGINT, SIGTERM or SIGHUP, when ``best.json`` is written.
        AttfcError: see `attfc_train.errors`.
    """
    deadline = time.monotonic() + 3600 * options.hours
    console = Screen()
    device = device_for(console, options.gpu_word, must_be_here=True)
    url = options.storage or journal_beside(options.output)
    store = open_storage(url)
    with closing(store), device_lock(device.kind), reachable(url):
        with tracing(console, "Planning"):
            question = ask(request, device)
        name = options.study or question.plan.profile.name
        studies = _studies(store, name, question, options)
        screen.show_start(console, question, name, shown(url), len(studies.steps.records()))
        stopped = _work(console, question, studies, deadline)
        _finish(console, question, studies, options)
    if stopped is not None:
        raise Interrupted(stopped, "Stopped; the best so far is written", "Continue: the same command with --resume.")


def _studies(store: Store, name: str, question: Question, options: TuneOptions) -> Studies:
    """Open or make the studies.

    Raises:
        UsageError: there is none to resume, one that was not to be resumed, or one about something else.
    """
    _check_resume(store, name, options)
    of_steps, of_trainings, of_full_fc = (partial(check, question) for check in (check_steps, check_training, check_baseline))
    steps = SharedStudy(store, name, question.knobs, ("accuracy points", "images/s"), check=of_steps)
    _check_question(steps, name, question)
    accuracy = ("accuracy",)
    trainings = SharedStudy(store, f"{name} trainings", question.knobs, accuracy, HALVING, FIRST_CUT, of_trainings)
    finals = SharedStudy(store, f"{name} finals", seeded_knobs(question), accuracy, check=of_trainings)
    full_fc = SharedStudy(store, f"{name} full FC", {SEED: MOST_SEEDS}, accuracy, check=of_full_fc)
    return Studies(steps, trainings, finals, full_fc)


def _check_resume(store: Store, name: str, options: TuneOptions) -> None:
    """Refuse what would go on by accident, or start by accident; who names a storage may join without --resume."""
    exists = name in study_names(store)
    if options.resume and not exists:
        rule = f"--resume needs the study '{name}' in '{shown(store.url)}'"
        raise UsageError(rule, "none", "Leave --resume out to start it.")
    if exists and not options.resume and options.storage is None:
        remedy = "Continue it with --resume, or choose another --output."
        raise UsageError("a new tuning needs a new record", f"'{shown(store.url)}', which holds the study '{name}'", remedy)


def _check_question(study: SharedStudy, name: str, question: Question) -> None:
    """Refuse a study that is about another question; a new study notes its own."""
    recorded = study.facts.get("question")
    if recorded is None:
        study.note(question=question.facts)
        return
    known = recorded if isinstance(recorded, dict) else {}  # a shared storage may hold anything
    facts = question.facts
    different = [key for key in {**facts, **known} if known.get(key) != facts.get(key)]
    if different:
        key = different[0]
        got = f"{key} {_brief(facts.get(key))}, where the study has {_brief(known.get(key))}"
        remedy = "Give the same options as before, or another --study or --output."
        raise UsageError(f"the study '{name}' must be about the same data, plan and device", got, remedy)


def _brief(value: object) -> str:
    text = "none" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _work(console: Console, question: Question, studies: Studies, deadline: float) -> int | None:
    """Run all stages; return the number of the signal that ended them early, None if they ended by themselves."""
    try:
        with _stopping(), screen.TuneScreen(console, deadline) as watcher:
            now = time.monotonic()
            StepTrials(
                question,
                studies.steps,
                run_real_steps,
                limit=question.request.num_trials,
                deadline=now + SHARE_OF_STEPS * (deadline - now),
                watcher=watcher,
                seed=question.request.seed,
            ).run()
            _train(question, studies, deadline, watcher)
    except Stopped as stop:
        return stop.signal_number
    return None


def _train(question: Question, studies: Studies, deadline: float, watcher: screen.TuneScreen) -> None:
    """Run stage B, as large as the time allows, and stage C in what is left of it."""
    candidates = measured_candidates(question, studies.steps.records())
    settings = contenders(question, candidates)
    if not settings:
        watcher.say("No setting is left over by real steps: no short trainings.")
        return
    startup = _startup_seconds(studies.steps)
    scale = _scale(question, studies.baseline, settings, _rates(question, candidates, settings), deadline, startup)
    if scale is None:
        watcher.say("Not enough time left for a short training.")
        return
    trial = TrainingTrial(question, run_short_training, deadline, watcher)
    Trainings(trial, studies.trainings, studies.baseline, settings, startup).run(scale)
    Finals(
        trial,
        studies.finals,
        studies.trainings,
        studies.baseline,
        lambda: studies.standing(question),
        lambda: _longest_training(studies),
    ).run()


def _longest_training(studies: Studies) -> float:
    """Return the seconds of the longest training that ended; infinite if none did, so that no final is begun."""
    records = (*studies.trainings.records(), *studies.finals.records(), *studies.baseline.records())
    return max((record.notes["wall_seconds"] for record in records if record.state == "complete"), default=math.inf)


def _rates(question: Question, candidates: list[Candidate], settings: list[Setting]) -> list[float]:
    """Return images/s of the settings; one with a queue length of its own takes the steps of the candidate beside it."""
    rates = {question.steps_key(candidate.setting): candidate.images_per_second for candidate in candidates}
    return [rates[question.steps_key(setting)] for setting in settings]


def _scale(
    question: Question,
    baseline: SharedStudy,
    settings: list[Setting],
    rates: list[float],
    deadline: float,
    startup: float,
) -> Scale | None:
    """Return the scale of the short trainings: the recorded one if there is one, else what the time allows."""
    scale = _affordable_scale(question, settings, rates, deadline, startup)
    if not baseline.records():
        return scale
    # Trainings of another scale could not be compared with those that ran. How many settings are tried is each worker's own.
    recorded = recorded_scale(baseline)
    return replace(recorded, num_settings=len(settings) if scale is None else scale.num_settings)


def _affordable_scale(
    question: Question, settings: list[Setting], rates: list[float], deadline: float, startup: float
) -> Scale | None:
    request = question.request
    assert request.num_images is not None, "a data set has images"
    return affordable(
        (1 - SHARE_OF_FINALS) * (deadline - time.monotonic()),
        rates,
        startup=startup,
        epochs=request.epochs,
        images_per_id=request.num_images / request.num_ids,
        num_ids=question.split.num_trainable,
        batch_size=max(setting.batch_size for setting in settings),
    )


def _startup_seconds(steps: SharedStudy) -> float:
    """Return what a process takes before its first step, from the quickest real steps."""
    seconds = [record.notes["wall_seconds"] for record in steps.records() if record.state == "complete"]
    return max(LEAST_STARTUP_SECONDS, min(seconds, default=0.0))


def _finish(console: Console, question: Question, studies: Studies, options: TuneOptions) -> None:
    """Write the best of what was measured, or the plan itself if nothing was."""
    standing = studies.standing(question)
    result = verdict(question, studies.steps.records(), standing)
    if result is None:
        former = replace_profile(question.plan.profile, options.output)
        console.print("Not tested: no trial finished; wrote the predicted plan unchanged.")
    else:
        former = _write_and_show(console, question, studies, options.output, standing, result)
    arguments = typed(["attfc-train", "--profile", str(options.output), "--data", str(question.request.data_path)])
    written = f"Written: {options.output}{former_words(former)}"
    console.print(f"{written}\nNext: {arguments}", highlight=False, soft_wrap=True)


def _write_and_show(
    console: Console, question: Question, studies: Studies, output: Path, standing: Standing, result: Verdict
) -> Path | None:
    """Write the tuned profile, show it, and return where a former one is kept."""
    steps = studies.steps.records()
    scale = recorded_scale(studies.baseline) if studies.baseline.records() else None
    candidates = measured_candidates(question, steps, standing.model)
    beside = recorded_beside(question, studies.baseline)
    trainings = training_records(standing.trained, standing.full_fc, beside, question.base.head.kind)
    short_ids = scale.num_ids if scale else None
    profile = tuned_profile(question, result, candidates, trainings, studies.num_trials, short_ids)
    former = replace_profile(profile, output)
    screen.show_verdict(console, question, result, profile, steps, scale, _importances(studies))
    return former


def _importances(studies: Studies) -> screen.Importances:
    return screen.Importances(
        studies.steps.importances(lambda record: record.values[1] if record.values else None),
        studies.steps.importances(_less_memory),
        studies.trainings.importances(
            lambda record: record.values[0] if record.values else None, map(without_seed, studies.finals.records())
        ),
    )


def _less_memory(record: Record) -> float | None:
    """Return what is higher for a setting that needs less memory: importances ask what makes a figure high."""
    peak = record.notes.get("peak_bytes")
    return None if peak is None else -float(peak)


@contextmanager
def _stopping() -> Iterator[None]:
    """Make a signal that stops raise `Stopped`; a second one does what it did before."""
    numbers = stop_signals()
    former = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in former.items():
            signal.signal(number, handler)

    def stop(number: int, _frame: FrameType | None) -> None:
        restore()
        raise Stopped(number)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
