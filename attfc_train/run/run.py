"""A run from a profile and a data set to a trained model: the table of contents of training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from attfc_train.cuda_environment import allocator_setting
from attfc_train.data.card import Card, open_card
from attfc_train.data.dataset import FaceDataset
from attfc_train.data.identity_index import IdentityIndex
from attfc_train.data.loader import AttentionLoader
from attfc_train.data.overlap import may_share_identities
from attfc_train.data.report import messages_of
from attfc_train.data.sampling.pairs import PairSampler
from attfc_train.data.sampling.sampler import AttentionSampler, Sampler
from attfc_train.data.sampling.shares import Share
from attfc_train.data.survey.problems import problems_of_counts
from attfc_train.errors import CheckpointError, UsageError, VerificationSetError
from attfc_train.evaluate.embed import evaluate
from attfc_train.evaluate.load import load_verification_sets
from attfc_train.evaluate.masks import MASK
from attfc_train.optim.precision import prepare_device
from attfc_train.profile.file import load_profile, save_profile
from attfc_train.profile.profile import TrainProfile
from attfc_train.ranks.ranks import ALONE, Ranks
from attfc_train.run.best_model import still_best
from attfc_train.run.checkpoint import FILE_NAME as CHECKPOINT_FILE
from attfc_train.run.checkpoint import Checkpoint, Checkpoints, has_checkpoint, load_same
from attfc_train.run.collapse import OnCollapse
from attfc_train.run.dataset import opened_data, resolved_for, same_data
from attfc_train.run.folder import run_folder
from attfc_train.run.live_line import busy
from attfc_train.run.log import NoLog, RunLog, read_log, replaced_before
from attfc_train.run.longer import begin_with, changed, check_resumable, extended, not_half_extended
from attfc_train.run.loop import BEST_FILE, MODEL_FILE, MODELS, PROFILE_FILE, Evaluator, Loop
from attfc_train.run.out_of_memory import OnOom, memory_is_enough
from attfc_train.run.preflight import check_start, planned_memory, prediction_for
from attfc_train.run.several import device_words, held_by_first, in_turn, plan_words, shared_profile
from attfc_train.run.summary import is_summarised, last_words, write_summary
from attfc_train.run.teacher import OpenTeacher, new_teacher, opened_teacher, same_teacher, teacher_lines
from attfc_train.run.trackers import TrackedRun, Trackers
from attfc_train.step.build import build
from attfc_train.step.compiled import compile_encoders
from attfc_train.step.state import TrainState
from attfc_train.step.teacher import TrainedTeacher

if TYPE_CHECKING:
    from attfc_train.run.longer import Initialise


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of this process, which are no settings of the run."""

    folder: Path
    device: torch.device
    console: Console
    trackers: Sequence[str] = ()
    """Keys of `attfc_train.run.trackers.TRACKERS`."""
    on_oom: OnOom = "shrink"
    on_collapse: OnCollapse = "warn"
    ranks: Ranks = ALONE

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def start(
    profile: TrainProfile,
    options: RunOptions,
    initialise: Initialise | None = None,
    open_teacher: OpenTeacher | None = None,
) -> None:
    """Start a new run of `profile`, whose ``data.path`` is set, in ``options.folder``.

    Args:
        initialise: loads the weights to begin with; None: they are random.
        open_teacher: opens the profile's teacher, where it has one.
    """
    with held_by_first(options.ranks, run_folder(options.folder, options.say), partial(_must_be_new, options.folder)):
        with busy(options.console, f"Reading the teacher {profile.teacher.path}"):
            profile, teacher = new_teacher(profile, open_teacher)
        with busy(options.console, f"Reading the index of {profile.data.path}"):
            dataset = in_turn(options.ranks, lambda: opened_data(profile))
            resolved = resolved_for(profile, dataset)
        _run(resolved, dataset, options, initialise=initialise, teacher=teacher)


def _run(
    profile: TrainProfile,
    dataset: FaceDataset,
    options: RunOptions,
    checkpoint: Checkpoint | None = None,
    initialise: Initialise | None = None,
    teacher: TrainedTeacher | None = None,
) -> None:
    """Train to the end in ``options.folder``, which is locked.

    Args:
        profile: with the numbers of `dataset`.
        checkpoint: to go on from, which is emptied; None: begin at step 0.
        initialise: loads the weights to begin with; None: they are random.
        teacher: that of `profile`.
    """
    ranks = options.ranks
    differs = plan_words(profile, ranks)
    if differs is not None and ranks.is_first and checkpoint is None:
        options.say(differs)
    profile = shared_profile(profile, ranks)
    with busy(options.console, "Reading the verification sets"):  # which rank 0 alone verifies with
        mine = profile if ranks.is_first else profile.model_copy(update={"run": profile.run.model_copy(update={"val": ()})})
        evaluator = _evaluator(mine, options.device)
    check_start(profile, options.device, options.on_oom == "fail", options.say)
    card = open_card(options.device) if profile.data.device == "cuda" else None  # refuses before anything is written
    prepare_device(options.device, profile.run.precision)  # before the loss kernels are timed, while the state is built
    with memory_is_enough(options.device):
        state = build(profile, options.device, ranks, teacher.network if teacher else None)
        with busy(options.console, "Trying the compiler") if profile.run.compile else nullcontext():
            compile_encoders(state)  # refuses before anything is written
        checkpoints = Checkpoints(options.folder, profile.run.keep_checkpoints)
        best_accuracy = None
        if checkpoint is not None:
            best = still_best(options.folder, checkpoint, profile, options.say) if ranks.is_first else None
            best_accuracy = ranks.told(best)  # from here on all have read what the folder held
            _restore(state, checkpoint, options)
            # A damaged file in the last one's place gives way to the next; the one that is resumed from stays.
            checkpoints.step = state.step if checkpoint.path.name == CHECKPOINT_FILE else None
            if profile.total_steps != checkpoint.profile.total_steps:
                checkpoints.save(state, best_accuracy)  # else a run that is killed now would end where it was to end before
        elif initialise is not None:
            begin_with(state, initialise, checkpoints)
        if ranks.is_first:
            save_profile(profile, options.folder / PROFILE_FILE)
        _train(state, dataset, evaluator, options, checkpoints, best_accuracy, card)


def resume(
    options: RunOptions,
    assignments: Sequence[str] = (),
    extend: float | None = None,
    open_teacher: OpenTeacher | None = None,
) -> None:
    """Continue the run in ``options.folder`` from its last checkpoint, as if it had never stopped.

    One that had not saved yet begins again.

    Args:
        assignments: ``section.key=value`` for keys of `RESUMABLE`.
        extend: epochs to add to the run, finished or not.
        open_teacher: opens the run's teacher, where it has one.
    """
    check_resumable(assignments)
    folder = options.folder
    if not os.path.isdir(folder):
        remedy = "Give the folder of a run that has saved."
        raise CheckpointError(f"'{folder / CHECKPOINT_FILE}' must exist", "no such folder", remedy)
    with held_by_first(options.ranks, run_folder(folder, options.say)):
        if options.ranks.told(extend is None and _is_finished(folder)):
            options.say(f"The run in {folder} is finished: it has done all of its steps.")
            if options.ranks.is_first and not is_summarised(folder):
                write_summary(folder, PROFILE_FILE, MODELS)  # it was killed just before
            return
        profile = None if options.ranks.told(has_checkpoint(folder)) else _not_saved_yet(folder)
        if profile is not None:
            options.say(f"No checkpoint had been saved in {folder}: beginning again at step 0.")
            checkpoint = None
        else:
            checkpoint = load_same(folder, options.ranks, options.say)
            profile = checkpoint.profile
        if extend is not None:
            profile = not_half_extended(profile, folder / PROFILE_FILE)
        profile = extended(same_teacher(profile, changed(profile, assignments)), extend)
        with busy(options.console, f"Reading the teacher {profile.teacher.path}"):
            teacher = opened_teacher(profile, open_teacher)
        with busy(options.console, f"Reading the index of {profile.data.path}"):
            dataset = in_turn(options.ranks, lambda: same_data(profile))
        _run(profile, dataset, options, checkpoint, teacher=teacher)


def _is_finished(folder: Path) -> bool:
    """Return whether a run recorded its end, and nothing was recorded or taken away since."""
    return (folder / MODEL_FILE).exists() and [record["event"] for record in read_log(folder)[-1:]] == ["end"]


def _not_saved_yet(folder: Path) -> TrainProfile | None:
    """Return the profile of a run that was killed before its first checkpoint; None: there is no such run."""
    if not (folder / PROFILE_FILE).is_file():
        return None
    profile = load_profile(folder / PROFILE_FILE)
    return None if profile.data.num_ids is None or profile.run.steps is None else profile


def _restore(state: TrainState, checkpoint: Checkpoint, options: RunOptions) -> None:
    kept = checkpoint.restore(state)
    for mapped in (checkpoint.state, checkpoint.rng):
        mapped.clear()  # while the file is mapped it takes room on the disk, though others have replaced it
    if kept is not None:
        options.say(f"container: {kept.kept:,} of {kept.saved:,} centers kept")


def _must_be_new(folder: Path) -> None:
    """Refuse a folder that holds a run: nothing that took long to make is overwritten.

    Raises:
        UsageError: there is a checkpoint or a model.
    """
    if has_checkpoint(folder):
        remedy = f"Continue it with --resume {folder}, or choose another --output."
        raise UsageError("--output must be a new folder", f"'{folder}', which holds a run", remedy)
    models = [name for name in (MODEL_FILE, BEST_FILE) if os.path.exists(folder / name)]
    if models:
        raise UsageError("--output must be a new folder", f"'{folder}', which holds {models[0]}", "Choose another --output.")


def _evaluator(profile: TrainProfile, device: torch.device) -> Evaluator:
    """Load the verification sets now, so that a bad one stops the run before it starts.

    Raises:
        VerificationSetError: a set cannot be read, or may hold identities that are trained on.
    """
    data = profile.data.path or ""
    for val in profile.run.val:
        if may_share_identities(data, val):
            got = f"'{val}', which is in --data '{data}'"
            remedy = "Give other people's images, or parts of one data set: --data FACES@0:900 --val FACES@900:1000."
            raise VerificationSetError("--val must hold people that are not trained on", got, remedy)
    return partial(
        evaluate,
        verification_sets=load_verification_sets(profile.run.val, profile.model.image_size),
        image_size=profile.model.image_size,
        device=device,
        precision=profile.run.precision,
        masked=MASK in profile.data.augment.probabilities,
    )


def _train(
    state: TrainState,
    dataset: FaceDataset,
    evaluator: Evaluator,
    options: RunOptions,
    checkpoints: Checkpoints,
    best_accuracy: float | None,
    card: Card | None,
) -> None:
    profile = state.profile
    first = options.ranks.is_first
    log: RunLog = NoLog(options.folder, profile.total_steps, state.step, console=options.console)
    if first:
        trackers = Trackers(options.trackers, TrackedRun(options.folder, profile, state.step), options.say)
        log = RunLog(options.folder, profile.total_steps, state.step, console=options.console, trackers=trackers)
    with log:
        _record_start(log, state, dataset, options)
        _introduce(log, state, dataset, evaluator, options)
        loader = new_loader(profile, dataset, options.device, options.ranks, card)
        replaced = options.ranks.told(replaced_before(read_log(options.folder)) if first else 0)
        loader.go_on(state.step, options.ranks.shard(replaced).num)
        policies = options.on_oom, best_accuracy, options.on_collapse
        Loop(state, loader, evaluator, log, options.folder, checkpoints, *policies).run()
    if not first:
        return
    # Made of what is on the disk: `resume` makes it where the process is killed here.
    for line in last_words(write_summary(options.folder, PROFILE_FILE, MODELS), options.folder, MODELS):
        options.say(line)


def _record_start(log: RunLog, state: TrainState, dataset: FaceDataset, options: RunOptions) -> None:
    """Record what begins or goes on, and where the allocator is another one than was planned for."""
    profile = state.profile
    planned = planned_memory(profile, options.device.type)
    predicted = prediction_for(profile, options.device.type)
    setting = allocator_setting(os.environ)
    log.event(
        "resume" if state.step else "start",
        state.step,
        profile=profile.name,
        device=str(options.device),
        torch=torch.__version__,
        data=dataset.name,
        num_ids=profile.num_ids,
        num_images=dataset.index.num_images,
        accumulation=profile.optim.accumulation,
        predicted_peak_bytes=None if predicted is None else predicted.measured_bytes,
        allocator=setting if options.device.type == "cuda" else None,
    )
    if planned is not None and predicted is not None and planned.assumes_other_segments(setting):
        log.event(
            "allocator",
            state.step,
            planned=planned.allocator,
            in_force=setting,
            planned_peak_bytes=planned.measured_bytes,
            predicted_peak_bytes=predicted.measured_bytes,
        )


def new_loader(
    profile: TrainProfile, dataset: FaceDataset, device: torch.device, ranks: Ranks, card: Card | None
) -> AttentionLoader:
    """Return the loader of a resolved profile.

    Args:
        ranks: of which each loads its share.
        card: decodes the images where ``data.device`` is ``cuda``.
    """
    data = profile.data
    sampler = _sampler(profile, dataset.index)
    return AttentionLoader(
        dataset,
        sampler if ranks.size == 1 else Share(sampler, ranks.rank, ranks.size),
        image_size=profile.model.image_size,
        num_workers=data.num_workers,
        prefetch_batches=data.prefetch_batches,
        cache_bytes=data.cache_bytes,
        max_corrupt_share=data.max_corrupt_share,
        pin_memory=device.type == "cuda",
        card=card,
    )


def _sampler(profile: TrainProfile, index: IdentityIndex) -> Sampler:
    data = profile.data
    batch_size = profile.optim.batch_size
    if profile.head.is_paired:
        return PairSampler(index, profile.run.seed, batch_size, data.draw, data.flip_probability, profile.window)
    return AttentionSampler(
        index,
        seed=profile.run.seed,
        batch_size=batch_size,
        num_references=profile.num_references,
        draw=data.draw,
        window=profile.window,
        buffer_images=profile.buffer_images,
        flip_probability=data.flip_probability,
    )


def _introduce(log: RunLog, state: TrainState, dataset: FaceDataset, evaluator: Evaluator, options: RunOptions) -> None:
    """Say what is trained, and say and record what of the data would hurt or was passed over, verification sets' too."""
    log.say(_headline(state.profile, dataset, options))
    for line in teacher_lines(state.profile):
        log.say(line)
    ramp = state.profile.head.margin.ramp
    if state.step < ramp:
        log.say(f"The margin grows until step {ramp:,}: until then the loss may rise while the model")
        log.say("learns, because it is scored more strictly. Judge it by the accuracy on --val.")
    sets = evaluator.keywords["verification_sets"] if isinstance(evaluator, partial) else ()
    problems = [f"{dataset.name}: {problem.text}" for problem in problems_of_counts(dataset.index)]
    messages = problems + messages_of(dataset.index.report, *(verification_set.report for verification_set in sets))
    if messages:
        log.event("data", state.step, messages=messages)
    for message in messages:
        log.say(message)


def _headline(profile: TrainProfile, dataset: FaceDataset, options: RunOptions) -> str:
    return (
        f"{profile.name}: {profile.model.backbone} on {dataset.name} ({profile.num_ids:,} identities, "
        f"{dataset.index.num_images:,} images), {profile.head.describe()}, batch {profile.optim.batch_size}, "
        f"{profile.run.precision}, {profile.total_steps:,} steps on {device_words(options.ranks, options.device)} -> "
        f"{options.folder}"
    )
