"""The training loop: steps, and what happens between them (log, evaluate, save, stop).

The host runs ahead of the device: a step only queues its kernels. It waits only where a value is read, which is where
something is logged, evaluated or saved; only there is the flag `TrainState.first_bad_step` looked at.

Three orders are deliberate. A signal is answered after the step in which it came, so a checkpoint is always of a whole step.
The last checkpoint is written before the last evaluation, which can take minutes, and again after it with the best accuracy.
The end is recorded when everything else is on the disk: a run without that line does its end again when it is resumed. Only
the summary comes after, because it is made of the record (`attfc_train.run.summary`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from attfc_train.data.batch import Batch
from attfc_train.data.loader import AttentionLoader, CorruptImages
from attfc_train.errors import CollapseError, DataError, Interrupted, NonFiniteLossError
from attfc_train.evaluate.pairs import Verification
from attfc_train.interrupt import StopFlag
from attfc_train.losses.distillation import cosine_of
from attfc_train.optim import schedule
from attfc_train.profile.file import save_profile
from attfc_train.run.checkpoint import FILE_NAME, Checkpoints, has_checkpoint, save_model
from attfc_train.run.clock import Clock
from attfc_train.run.collapse import REMEDY, CollapseWatch, Look, OnCollapse
from attfc_train.run.device_memory import forget_peak, memory_use
from attfc_train.run.log import RunLog
from attfc_train.run.out_of_memory import OnOom, OutOfMemory, failure_among, in_smaller_parts, release, told_to_all, too_large
from attfc_train.run.preflight import prediction_for
from attfc_train.step.compiled import as_written
from attfc_train.step.state import TrainState
from attfc_train.step.step import StepMetrics, train_step
from attfc_train.streams import typed
from attfc_train.units import Bytes, format_bytes


class Evaluator(Protocol):
    """Verification accuracy of an encoder on each set, by the set's name."""

    def __call__(self, encoder: nn.Module, /, *, batch_size: int) -> Mapping[str, Verification]:
        """Verify, with at most `batch_size` images in a forward pass."""
        ...


MODEL_FILE = "model.pt"
BEST_FILE = "best.pt"
MODELS = (BEST_FILE, MODEL_FILE)
PROFILE_FILE = "profile.json"
"""The profile as it trains now."""


@dataclass(slots=True)
class Loop:
    """The training of one run, from `state.step` to its last step.

    Args:
        folder: receives checkpoints, models and the profile.
        checkpoints: in `folder`.
        best_accuracy: mean over the verification sets, of the best model so far.
    """

    state: TrainState
    loader: AttentionLoader
    evaluate: Evaluator
    log: RunLog
    folder: Path
    checkpoints: Checkpoints
    on_oom: OnOom
    best_accuracy: float | None = None
    on_collapse: OnCollapse = "warn"
    _is_settled: bool = field(default=False, init=False)
    """Whether a step of the present size was made, and its start-up is forgotten (`_settle`)."""
    _clock: Clock = field(init=False)
    _collapse: CollapseWatch = field(init=False)

    def run(self) -> None:
        """Train to the end, evaluate and save.

        Raises:
            Interrupted: SIGINT, SIGTERM or SIGHUP came, and the state is saved.
            CollapseError: ``--on-collapse fail``, and the state is saved.
            NonFiniteLossError, DataError, StorageError, DeviceMemoryError: see `attfc_train.errors`.
        """
        state = self.state
        self._clock = Clock(self.loader, state.step)
        self._collapse = CollapseWatch(state.head, lambda step: schedule.margin(state.profile.head.margin, step))
        with StopFlag() as stop:
            for batch in self._batches():
                state.head.observes = self._collapse.begin_step(state.step + 1, self._is_logged(state.step + 1))
                metrics = self._train_step(batch)
                self.log.line.reached(state.step)
                if not self._is_settled:
                    self._settle()
                self._between_steps(metrics)
                signal_number = state.ranks.agreed(stop.received or 0)  # it need not come to all processes in the same step
                if signal_number and state.step < state.profile.total_steps:
                    self._leave(signal_number)
            self._finish()

    def _batches(self) -> Iterator[Batch]:
        """Yield the batches of the steps that are left.

        Raises:
            DataError: images cannot be read, or too many not be decoded; steps that were made are saved.
        """
        first = self.state.step
        try:
            yield from self.loader.batches(first, self.state.profile.total_steps)
        except DataError as error:
            if self.state.ranks.size > 1:  # the other processes are in the midst of a step
                raise
            self._report_images()
            if self.state.step == first:
                raise
            self._save()
            self.log.event("stop", self.state.step, message=str(error))
            saved = f"Step {self.state.step:,} is saved; then continue: {self._resume_command}"
            raise type(error)(error.rule, error.got, f"{error.remedy} {saved}") from error

    def _train_step(self, batch: Batch) -> StepMetrics:
        """Make one step, with as many micro-batches as it takes to fit into the memory."""
        while True:
            try:
                return train_step(self.state, batch)
            except RuntimeError as error:
                failure = failure_among(error, self.state)
            # Outside the ``except`` block: the error is gone, and with it its traceback, whose frames hold the tensors of the
            # failed step. Inside, nothing of it could be freed.
            self._shrink(failure)

    def _shrink(self, failure: OutOfMemory | None) -> None:
        """Record the failure, undo the step, and cut the batch into more parts; all processes do, whoever's failure it is.

        Raises:
            DeviceMemoryError: ``--on-oom fail``, or the parts cannot be smaller.
        """
        state = self.state
        may_repeat = self.on_oom == "shrink" and not state.start.is_committing
        smaller = in_smaller_parts(state.profile, state.ranks.size) if may_repeat else None
        # Only where it can be repeated does a process call the others together: else its error stops them all.
        if smaller is not None:
            failure = told_to_all(state, failure)
        assert failure is not None, "a step was given up that cannot be repeated"
        self.log.event(
            "oom",
            state.step,
            rank=failure.rank,
            phase=failure.phase,
            accumulation=state.profile.optim.accumulation,
            next_accumulation=smaller.optim.accumulation if smaller else None,
            memory_bytes=failure.memory_bytes,
            predicted_peak_bytes=self._predicted_peak(),
            message=failure.message,
        )
        if smaller is None:
            saved = has_checkpoint(self.folder)
            raise too_large(state, failure, f"--resume {self.folder}" if saved else "Start again")
        release(state)
        state.profile = smaller
        self._is_settled = False
        if state.ranks.is_first:
            save_profile(smaller, self.folder / PROFILE_FILE)
        where = f"phase '{failure.phase}'" + (f" on rank {failure.rank}" if state.ranks.size > 1 else "")
        self.log.say(
            f"step {state.step}: out of memory in {where} ({failure.message}). It is repeated, and training goes on, with "
            f"{smaller.optim.micro_batch_size // state.ranks.size} queries at a time; to begin so: "
            f"--set optim.accumulation={smaller.optim.accumulation}"
        )

    def _predicted_peak(self) -> Bytes | None:
        """Return the plan for `memory_use`'s peak; None without a plan for the settings that train."""
        memory = prediction_for(self.state.profile, self.state.device.type)
        return None if memory is None else memory.measured_bytes

    def _settle(self) -> None:
        """Forget what the first step of a size took beside training, in memory and in time.

        cuDNN tries its algorithms in it, with large workspaces; a plan and a rate are about the steps that follow.
        """
        self._is_settled = True
        forget_peak(self.state.device)
        self._clock.restart(self.state.step)

    def _between_steps(self, metrics: StepMetrics) -> None:
        step = self.state.step
        run = self.state.profile.run
        last = self.state.profile.total_steps
        look = self._look(metrics)
        if self._is_logged(step):
            self._log(metrics, look)
            self._report_images()
        if look is not None:  # each process looks at its own queries; rank 0's count
            finding = self.state.ranks.told(self._collapse.finding if self._collapse.has_just_collapsed() else None)
            if finding is not None:
                self._report_collapse(finding)
        if step % run.eval_every == 0 and step != last:
            self._evaluate()
        if step % run.save_every == 0 and step != last:
            self._save()

    def _is_logged(self, step: int) -> bool:
        return step % self.state.profile.run.log_every == 0 or step == self.state.profile.total_steps

    def _look(self, metrics: StepMetrics) -> Look | None:
        """Look at the step where it is time to; then this waits for the device."""
        if not self.state.head.observes:
            return None
        return self._collapse.look(self.state.step, metrics.loss.item(), metrics.observed)

    def _report_collapse(self, finding: str) -> None:
        """Say and record that the run has collapsed.

        Raises:
            CollapseError: ``--on-collapse fail``; the state is saved first.
        """
        step = self.state.step
        self.log.event("collapse", step, message=finding)
        if self.on_collapse == "warn":
            self.log.say(f"warning: training has collapsed at step {step}: {finding}. {REMEDY}.")
            return
        self._save()
        raise CollapseError(
            "features must tell people apart (--on-collapse fail)",
            f"a collapse at step {step}: {finding}",
            f"{REMEDY}. Start anew so, or go on: --resume {self.folder} --on-collapse warn.",
        )

    def _log(self, metrics: StepMetrics, look: Look | None) -> None:
        self._check_finite()
        profile = self.state.profile
        memory = memory_use(self.state.device)
        health = self.state.head.health(self.state.step, metrics.observed)
        distance = metrics.teacher_distance
        steps, seconds, waited = self._clock.lap(self.state.step)
        if health.warning is not None:
            self.log.say(health.warning)
        self.log.step(
            self.state.step,
            seconds_left=seconds / steps * (profile.total_steps - self.state.step),
            loss=metrics.loss.item(),
            learning_rate=metrics.learning_rate,
            gradient_norm=metrics.gradient_norm.item(),
            images_per_second=steps * profile.optim.batch_size / seconds,
            **waited.shares(seconds),
            memory_bytes=float(memory.current),
            peak_memory_bytes=float(memory.peak),
            **(look.by_name() if look else {}),
            **health.values,
            **({} if distance is None else {"teacher_cosine": cosine_of(distance.item())}),
        )

    def _report_images(self) -> None:
        """Record how many images were replaced, and say what happened to images for the first time; all processes call it."""
        everyones = self.state.ranks.everyones((self.loader.news(), self.loader.corrupt))
        reported = [news for news, _ in everyones if news is not None]
        if not reported:
            return
        counts = CorruptImages.joined([corrupt for _, corrupt in everyones])
        lines = list(dict.fromkeys(line for news in reported for line in news))
        self.log.event("images", self.state.step, drawn=counts.drawn, replaced=counts.replaced, messages=lines)
        for line in lines:
            self.log.say(f"step {self.state.step}: {line}")

    def _check_finite(self) -> None:
        """Read the flag of bad steps, which waits for the device.

        Raises:
            NonFiniteLossError: names the first bad step and the records of its batch.
        """
        bad = int(self.state.first_bad_step)
        if bad < 0:
            return
        records = self.loader.records_of_step(bad)
        shown = ", ".join(records[:8]) + (f" and {len(records) - 8} more" if len(records) > 8 else "")
        checkpoint = self.folder / FILE_NAME
        kept = f"The last good checkpoint is {checkpoint}." if checkpoint.exists() else "No checkpoint had been saved yet."
        raise NonFiniteLossError(
            "the loss and its gradient must stay finite",
            f"NaN or infinity at step {bad}; its batch: {shown}",
            f"{kept} --resume it with --set optim.learning_rate=..., or start anew with more optim.warmup_images.",
        )

    def _evaluate(self) -> bool:
        """Verify the encoder that is exported, keep it as the best model where it is, and return whether there was a set."""
        with self.log.line.doing("evaluating"):
            results = self._verified()
        if not results:
            return False
        for name, result in results.items():
            figures = {"accuracy": result.accuracy, "std": result.std, "auc": result.auc, "num_pairs": result.num_pairs}
            masked = "" if result.masked is None else f"; masked {result.masked.accuracy:.2%}"
            if result.masked is not None:
                figures["masked_accuracy"] = result.masked.accuracy
            self.log.event("evaluate", self.state.step, set=name, **figures)
            error = f"standard error {result.standard_error:.2%}, {result.num_pairs:,} pairs"
            self.log.say(f"step {self.state.step}  {name}: {result.accuracy:.2%} ({error}){masked}")
        mean = sum(result.accuracy for result in results.values()) / len(results)
        if self.best_accuracy is None or mean > self.best_accuracy:
            self.best_accuracy = mean
            self._check_finite()
            self.log.sync()  # a resumed run reads there which model this is (`attfc_train.run.best_model`)
            self._save_model(BEST_FILE)
        self._clock.restart(self.state.step)
        return True

    def _verified(self) -> Mapping[str, Verification]:
        """Return the accuracies that rank 0 finds."""
        ranks = self.state.ranks
        results = {}
        if ranks.is_first:
            own_size = self.state.profile.optim.micro_batch_size // ranks.size  # as many as this device has in a step
            with as_written(self.state):
                results = dict(self.evaluate(self.state.exported_encoder, batch_size=own_size))
        return ranks.told(results)

    def _save_model(self, name: str) -> None:
        if self.state.ranks.is_first:
            save_model(self.folder / name, self.state.exported_encoder)

    def _save(self) -> None:
        """Write a checkpoint, unless the state is damaged: then the last good one stays."""
        self._check_finite()
        self._report_images()  # a run that goes on from here counts on from it
        self.log.sync()
        with self.log.line.doing("saving"):
            self.checkpoints.save(self.state, self.best_accuracy)
        self.log.event("save", self.state.step)

    def _leave(self, signal_number: int) -> None:
        self._save()
        self.log.event("stop", self.state.step, signal=signal_number)
        where = f"Stopped at step {self.state.step:,} of {self.state.profile.total_steps:,}, saved"
        raise Interrupted(signal_number, where, f"Continue: {self._resume_command}")

    @property
    def _resume_command(self) -> str:
        size = self.state.ranks.size
        program = ["attfc-train"] if size == 1 else ["torchrun", "--nproc-per-node", str(size), "-m", "attfc_train"]
        return typed([*program, "--resume", str(self.folder)])

    def _finish(self) -> None:
        if self.checkpoints.step != self.state.step:
            self._save()  # before the evaluation, in which the process may be killed
        if self._evaluate():
            self._save()
        self._save_model(MODEL_FILE)
        memory = memory_use(self.state.device)
        predicted = self._predicted_peak()
        self.log.event(
            "end",
            self.state.step,
            images_per_second=self._clock.overall(self.state),
            **self._clock.waited.shares(max(self._clock.seconds, 1e-9)),
            peak_memory_bytes=memory.peak,
            peak_tensor_bytes=memory.peak_in_tensors,
            predicted_peak_bytes=predicted,
            accuracy=self.best_accuracy,
            **self._image_counts(),
        )
        self.log.sync()
        if predicted is not None:
            self.log.say(f"peak {format_bytes(memory.peak)}, predicted {format_bytes(predicted)}")
        advice = self.loader.advice(self._clock.waited, self._clock.seconds) if self._clock.seconds else None
        if advice is not None:
            self.log.say(advice)

    def _image_counts(self) -> dict[str, Any]:
        """Return what the ``end`` has of the images of all processes."""
        everyones = self.state.ranks.everyones((self.loader.corrupt, self.loader.notes))
        corrupt = CorruptImages.joined([corrupt for corrupt, _ in everyones])
        notes: Counter[str] = Counter()
        for _, counts in everyones:
            notes.update(counts)
        return {
            "corrupt_images": corrupt.replaced,
            "corrupt_examples": list(corrupt.examples),
            "image_notes": dict(notes),
        }
