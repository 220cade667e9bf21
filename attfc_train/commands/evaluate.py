"""``attfc-train evaluate``: trained models on verification sets, one set in memory at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from attfc_train.commands import evaluate_screen as screen
from attfc_train.commands.data_survey import progress
from attfc_train.commands.evaluate_search import network_of, show_distractors, show_ijb
from attfc_train.commands.export import checked_which
from attfc_train.data.report import messages_of
from attfc_train.errors import AttfcError, UsageError, VerificationSetError
from attfc_train.evaluate.load import open_verification, with_folders
from attfc_train.evaluate.pairs import FARS
from attfc_train.evaluate.roc_picture import check_picture, draw_roc
from attfc_train.evaluate.scored import Scored, score, score_masked
from attfc_train.evaluate.verification_set import VerificationSet
from attfc_train.export.model_file import Encoder, Which, open_encoder
from attfc_train.run.checkpoint import load_checkpoint
from attfc_train.run.loop import BEST_FILE, MODEL_FILE
from attfc_train.run.out_of_memory import memory_is_enough
from attfc_train.run.segments import claim_segments


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """The options of the command."""

    val: Sequence[str] = ()
    which: str = "best"
    at_least: float = 0.0
    fars: Sequence[float] = ()
    compare: bool = False
    roc: Path | None = None
    ijb: Path | None = None
    distractors: str | None = None
    masked: bool = False


def evaluate_models(paths: Sequence[Path], options: EvaluateOptions, device: torch.device, console: Console) -> None:
    """Print what models reach on ``--val``, or on the sets of the first one's run.

    Raises:
        AttfcError: a set does not reach ``--at-least``.
        UsageError, ProfileError, CheckpointError, VerificationSetError, StorageError: see `attfc_train.errors`.
    """
    which = checked_which(options.which)
    fars = _ordered_fars(options.fars)
    models = list(dict.fromkeys(paths))
    if options.compare and len(models) < 2:
        raise UsageError("--compare needs two models", f"{len(models)}", "Example: attfc-train evaluate A B --compare.")
    if options.roc is not None:
        check_picture(options.roc)
    for_sets = options.roc is not None or options.distractors is not None or options.masked
    if options.ijb is not None and not options.val and for_sets:
        raise UsageError("--roc, --distractors and --masked need a --val", "--ijb alone", "Add --val SET.")
    claim_segments(device)
    with memory_is_enough(device):
        encoders = [open_encoder(path, which, device) for path in models]
        specs = with_folders(options.val) if options.ijb is not None else _specs(encoders, options.val)
        for path, encoder in zip(models, encoders, strict=True):
            _say_what_stands_in(path, which, encoder, console)
        results = _scored(encoders, specs, fars, options, console)
        for encoder in encoders:
            if options.ijb is not None:
                show_ijb(encoder, options.ijb, fars, console)
            if options.distractors is not None:
                show_distractors(encoder, specs, options.distractors, console)
    if specs:
        screen.show_summary(results, console)
    if options.roc is not None:
        curves = {f"{each.name}, {model}": (each.cosines, each.same) for model, sets in results for each in sets}
        draw_roc(options.roc, curves)
        console.print(f"ROC curves: {options.roc}", soft_wrap=True)
    _check_accuracy(results, options.at_least)


def _ordered_fars(fars: Sequence[float]) -> tuple[float, ...]:
    """Return the rates that are asked for, from the highest down, or the usual ones."""
    return tuple(sorted(set(fars), reverse=True)) or FARS


def _specs(encoders: Sequence[Encoder], val: Sequence[str]) -> list[str]:
    """Return the sets to evaluate on.

    Raises:
        VerificationSetError: none are known.
    """
    of_runs = (encoder.profile.run.val for encoder in encoders if encoder.profile is not None)
    specs = with_folders(val or next((sets for sets in of_runs if sets), ()))
    if not specs:
        remedy = "Example: --val lfw.bin, or a folder of .bin files."
        raise VerificationSetError("--val must name a verification set", "none, and no run that had one", remedy)
    return specs


def _say_what_stands_in(path: Path, which: Which, encoder: Encoder, console: Console) -> None:
    """Say it where a run has not the model that was asked for, and another file was taken."""
    for note in encoder.notes:
        console.print(note, soft_wrap=True)
    wanted = {"best": BEST_FILE, "last": MODEL_FILE}[which]
    if not path.is_dir() or encoder.source.name == wanted:
        return
    assert encoder.profile is not None
    if encoder.source.name == MODEL_FILE:
        reason = "it did not come to an evaluation" if encoder.profile.run.val else "it had no --val"
        console.print(f"No {wanted} in {path} (the run: {reason}): using {MODEL_FILE}.", soft_wrap=True)
        return
    checkpoint = load_checkpoint(encoder.source)
    where = f"step {checkpoint.step:,} of {checkpoint.profile.total_steps:,}"
    console.print(f"No {wanted} in {path}, whose run is at {where}: using {encoder.source.name}.", soft_wrap=True)


def _scored(
    encoders: Sequence[Encoder], specs: Sequence[str], fars: Sequence[float], options: EvaluateOptions, console: Console
) -> screen.Results:
    """Return every model's view of every set, each printed as soon as it is known; a set is gone before the next comes."""
    results: screen.Results = [(str(encoder.source), []) for encoder in encoders]
    used: Counter[str] = Counter()
    for spec in specs:
        verification_set = open_verification(spec)
        used[verification_set.name] += 1
        if used[verification_set.name] > 1:  # two folders can hold an lfw.bin
            verification_set = replace(verification_set, name=spec)
        by_model = [_views(encoder, verification_set, options.masked, console) for encoder in encoders]
        for message in messages_of(verification_set.report):
            console.print(message, soft_wrap=True)
        for views in zip(*by_model, strict=True):  # plain ones, then masked ones
            for (model, sets), view in zip(results, views, strict=True):
                screen.show_points(model, view, fars, console, f"accuracy {screen.verification(view).accuracy:.2%}")
                sets.append(view)
            if options.compare:
                screen.show_comparisons([model for model, _ in results], views, console)
    return results


def _views(encoder: Encoder, verification_set: VerificationSet, masked: bool, console: Console) -> tuple[Scored, ...]:
    """Return one model's view of a set, and where that is asked for the one with masks."""
    with progress(console, len(verification_set.encoded) * (2 if masked else 1), "embedding") as advance:
        network = network_of(encoder)
        return score_masked(network, verification_set, advance) if masked else (score(network, verification_set, advance),)


def _check_accuracy(results: screen.Results, at_least: float) -> None:
    """Refuse a set whose plain accuracy is too low.

    Raises:
        AttfcError: names the first one.
    """
    for _, sets in results:
        for each in (each for each in sets if not each.is_masked):
            accuracy = screen.verification(each).accuracy
            if accuracy < at_least:
                got = f"{accuracy:.4f} on {each.name}"
                remedy = "Train longer, or lower the bar."
                raise AttfcError(f"--at-least {at_least:g} of the pairs must be right", got, remedy)
