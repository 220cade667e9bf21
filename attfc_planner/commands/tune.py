"""What ``attfc-plan tune`` does: plan, real steps, short trainings, finals, and ``best.json`` from whatever was measured.

Several processes, on one or many machines, can work on one study (``--storage``); each ends with its own ``best.json`` of all
trials. The hours are those of one process. SIGINT and SIGTERM end the tuning with the best so far: ``best.json`` is written,
and the exit code is 128 + the signal's number, as for every interrupted command.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console

from attfc_planner.calibrate.real_steps import run_real_steps
from attfc_planner.commands.device import device_for
from attfc_planner.knobs.space import Setting
from attfc_planner.plan.request import PlanRequest
from attfc_planner.screens import tune as screen
from attfc_planner.tune.question import Question, ask
from attfc_planner.tune.stages.budget import Scale, affordable
from attfc_planner.tune.stages.finals import MOST_SEEDS, Finals, seeded_knobs
from attfc_planner.tune.stages.short_training import run_short_training
from attfc_planner.tune.stages.steps import StepTrials
from attfc_planner.tune.stages.training_trial import TrainingTrial, recorded_beside, recorded_scale
from attfc_planner.tune.stages.trainings import FIRST_CUT, HALVING, Trainings
from attfc_planner.tune.studies.claim import Record
from attfc_planner.tune.studies.storage import Store, journal_beside, open_storage, reachable, shown
from attfc_planner.tune.studies.study import SharedStudy, study_names
from attfc_planner.tune.studies.worker import device_lock
from attfc_planner.tune.verdict.result import contenders, finals_pool, measured_candidates, verdict
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
from attfc_train.profile.file import save_profile

SHARE_OF_STEPS = 0.4
"""Of the time after planning goes to real steps at most; the rest to short trainings."""
SHARE_OF_FINALS = 0.3
"""Of what then is left, if the short trainings take as long as expected; and all that they leave."""
LEAST_STARTUP_SECONDS = 5.0


@dataclass(frozen=True)
class TuneOptions:
    """What belongs to the tuning and not to the plan that it starts from."""

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
        """Trials that stand for a setting or the full FC layer."""
        every = (self.steps, self.trainings, self.finals, self.baseline)
        return sum(record.counts for study in every for record in study.records())

    def standing(self, question: Question) -> Standing:
        """What all trials say so far."""
        trained = trained_settings(question, [*self.trainings.records(), *self.finals.records()])
        full_fc, beside = trained_full_fc(self.baseline.records()), recorded_beside(question, self.baseline)
        num_ids = recorded_scale(self.baseline).num_ids if full_fc else 0
        model = regression(question, trained, full_fc, beside, num_ids)
        pool = finals_pool(question, measured_candidates(question, self.steps.records()), trained)
        return Standing(pool, trained, full_fc, model)


def tune(request: PlanRequest, options: TuneOptions) -> None:
    """Runs a whole tuning.

    Raises:
        Interrupted: after SIGINT or SIGTERM, when ``best.json`` is written.
        AttfcError: see `attfc_train.errors`.
    """
    begin = time.monotonic()
    deadline = begin + 3600 * options.hours
    console = Console()
    device = device_for(console, options.gpu_word, must_be_here=True)
    url = options.storage or journal_beside(options.output)
    store = open_storage(url)
    with closing(store), device_lock(device.kind), reachable(url):
        with console.status("Planning: tracing the train step where it was not traced before ..."):
            question = ask(request, device)
        name = options.study or question.plan.profile.name
        studies = _studies(store, name, question, options)
        screen.show_start(console, question, name, shown(url), len(studies.steps.records()))
        stopped = _work(console, question, studies, deadline)
        _finish(console, question, studies, options)
    if stopped is not None:
        rule, got = "a tuning runs to its end unless interrupted", f"signal {stopped}; the best so far is written"
        raise Interrupted(stopped, rule, got, "Go on with the same command and --resume.")


def _studies(store: Store, name: str, question: Question, options: TuneOptions) -> Studies:
    """Opens or makes the studies, and checks that they are about this very question.

    Raises:
        UsageError: there is none to resume, one that was not to be resumed, or one about something else.
    """
    exists = name in study_names(store)
    if options.resume and not exists:
        rule, remedy = f"--resume needs the study '{name}' in '{shown(store.url)}'", "Leave --resume out to start it."
        raise UsageError(rule, "none", remedy)
    if exists and not options.resume and options.storage is None:
        remedy = "Continue it with --resume, or choose another --output."
        raise UsageError("a new tuning needs a new record", f"'{shown(store.url)}', which holds the study '{name}'", remedy)
    steps = SharedStudy(store, name, question.knobs, ("accuracy points", "images/s"))
    _check_question(steps, name, question)
    trainings = SharedStudy(store, f"{name} trainings", question.knobs, ("accuracy",), HALVING, FIRST_CUT)
    finals = SharedStudy(store, f"{name} finals", seeded_knobs(question), ("accuracy",))
    return Studies(steps, trainings, finals, SharedStudy(store, f"{name} full FC", {SEED: MOST_SEEDS}, ("accuracy",)))


def _check_question(study: SharedStudy, name: str, question: Question) -> None:
    known = study.facts.get("question")
    if known is None:
        study.note(question=question.facts)
        return
    other = [key for key, value in question.facts.items() if known.get(key) != value]
    if other:
        key = other[0]
        got = f"{key} {_brief(question.facts[key])}, where the study has {_brief(known.get(key))}"
        remedy = "Give the same options as before, or another --study or --output."
        raise UsageError(f"the study '{name}' must be about the same data, plan and device", got, remedy)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _work(console: Console, question: Question, studies: Studies, deadline: float) -> int | None:
    """All stages; the number of the signal that ended them early."""
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
    """Stage B, as large as the time allows, and stage C in what is left of it."""
    candidates = {one.setting: one for one in measured_candidates(question, studies.steps.records())}
    settings = contenders(question, list(candidates.values()))
    if not settings:
        watcher.say("No setting is left over by real steps: no short trainings.")
        return
    startup = _startup_seconds(studies.steps)
    rates = {question.steps_key(setting): one.images_per_second for setting, one in candidates.items()}
    scale = _scale(question, settings, [rates[question.steps_key(one)] for one in settings], deadline, startup)
    if studies.baseline.records():
        known = recorded_scale(studies.baseline)
        scale = Scale(known.num_ids, known.epochs, len(settings) if scale is None else scale.num_settings)
    if scale is None:
        watcher.say("The time that is left does not do for a short training.")
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
    """Seconds of the longest training that ended; infinite where none did."""
    records = (*studies.trainings.records(), *studies.finals.records(), *studies.baseline.records())
    return max((record.notes["wall_seconds"] for record in records if record.state == "complete"), default=math.inf)


def _scale(question: Question, settings: list[Setting], rates: list[float], deadline: float, startup: float) -> Scale | None:
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
    """What a process takes before its first step, from the quickest real steps."""
    seconds = [record.notes["wall_seconds"] for record in steps.records() if record.state == "complete"]
    return max(LEAST_STARTUP_SECONDS, min(seconds, default=0.0))


def _finish(console: Console, question: Question, studies: Studies, options: TuneOptions) -> None:
    """Writes the best of what was measured; the plan itself where nothing was."""
    steps, standing = studies.steps.records(), studies.standing(question)
    found = verdict(question, steps, standing)
    scale = recorded_scale(studies.baseline) if studies.baseline.records() else None
    if found is None:
        save_profile(question.plan.profile, options.output)
        console.print("Nothing was measured: the plan is written as it was predicted.")
    else:
        candidates = measured_candidates(question, steps, standing.model)
        trainings = training_records(standing.trained, standing.full_fc, recorded_beside(question, studies.baseline))
        short_ids = scale.num_ids if scale else None
        profile = tuned_profile(question, found, candidates, trainings, studies.num_trials, short_ids)
        save_profile(profile, options.output)
        importances = screen.Importances(
            studies.steps.importances(lambda record: record.values[1] if record.values else None),
            studies.steps.importances(_less_memory),
            studies.trainings.importances(
                lambda record: record.values[0] if record.values else None, map(without_seed, studies.finals.records())
            ),
        )
        screen.show_verdict(console, question, found, profile, steps, scale, importances)
    arguments = f"attfc-train --profile {options.output} --data {question.request.data_path}"
    console.print(f"Written: {options.output}\nNext: {arguments}", highlight=False, soft_wrap=True)


def _less_memory(record: Record) -> float | None:
    peak = record.notes.get("peak_bytes")
    return None if peak is None else -float(peak)


@contextmanager
def _stopping() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Stopped`; a second one does what it did before."""
    numbers = (signal.SIGINT, signal.SIGTERM)
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
