"""The table of ``attfc-train evaluate``: a trained model on verification sets."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from attfc_train.backbones.kinds import build_encoder
from attfc_train.data.report import messages_of
from attfc_train.errors import AttfcError, CheckpointError, UsageError, VerificationSetError
from attfc_train.evaluate.embed import evaluate
from attfc_train.evaluate.load import load_verification_sets
from attfc_train.evaluate.pairs import FARS, Verification
from attfc_train.profile.file import load_profile
from attfc_train.profile.profile import TrainProfile
from attfc_train.run.checkpoint import has_checkpoint, load_encoder, load_last, load_model
from attfc_train.run.loop import BEST_FILE, MODEL_FILE, PROFILE_FILE
from attfc_train.run.run import memory_is_enough
from attfc_train.run.segments import claim_segments

MODELS = {"best": BEST_FILE, "last": MODEL_FILE}


def report_model(
    folder: Path, val: Sequence[str], which: str, device: torch.device, console: Console, at_least: float = 0.0
) -> None:
    """Evaluate a run's model on `val`, or on the sets of its profile, and print the table.

    Args:
        which: a key of `MODELS`.
        at_least: accuracy that every set must reach.

    Raises:
        AttfcError: a set does not reach `at_least`.
        UsageError, ProfileError, CheckpointError, VerificationSetError: see `attfc_train.errors`.
    """
    if which not in MODELS:
        raise UsageError("--which must be best or last", f"'{which}'", "'best' needs a run that had --val.")
    profile = load_profile(folder / PROFILE_FILE)
    specs = tuple(val) or profile.run.val
    if not specs:
        raise VerificationSetError(
            "--val must name a verification set", "none, and the run had none", "Example: --val lfw.bin."
        )
    model = profile.model
    verification_sets = load_verification_sets(specs, model.image_size)
    for message in messages_of(*(verification_set.report for verification_set in verification_sets)):
        console.print(message, highlight=False, markup=False, soft_wrap=True)
    claim_segments(device)
    with memory_is_enough(device):
        encoder = build_encoder(model, device)
        path = _load(encoder, folder, which, profile, console)
        results = evaluate(
            encoder,
            verification_sets,
            image_size=model.image_size,
            batch_size=profile.optim.micro_batch_size,
            device=device,
            precision=profile.run.precision,
        )
    console.print(_table(str(path), results))
    for name, result in results.items():
        if result.accuracy < at_least:
            got = f"{result.accuracy:.4f} on {name}"
            raise AttfcError(f"--at-least {at_least:g} of the pairs must be right", got, "Train longer, or lower the bar.")


def _load(encoder: nn.Module, folder: Path, which: str, profile: TrainProfile, console: Console) -> Path:
    """Load a run's model, or what stands for it as long as there is none, and return the file.

    Raises:
        CheckpointError: nothing was saved, or it is damaged.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    path = folder / MODELS[which]
    if path.exists():
        other = "last" if which == "best" else "best"
        load_model(path, encoder, f"Take the other model with --which {other}, or --resume the run.")
        return path
    last = folder / MODEL_FILE
    if last.exists():
        reason = "it did not come to an evaluation" if profile.run.val else "it had no --val"
        say(f"No {BEST_FILE} in {folder} (the run: {reason}): using {MODEL_FILE}.")
        load_model(last, encoder)
        return last
    if not has_checkpoint(folder):
        remedy = f"Continue it: {shlex.join(['attfc-train', '--resume', str(folder)])}"
        raise CheckpointError(f"'{last}' must exist", "a run that has not saved yet", remedy)
    checkpoint = load_last(folder, say)
    where = f"step {checkpoint.step:,} of {checkpoint.profile.total_steps:,}"
    say(f"No {path.name} in {folder}, whose run is at {where}: using {checkpoint.path.name}.")
    load_encoder(encoder, checkpoint.exported_encoder, checkpoint.path)
    return checkpoint.path


def _table(title: str, results: Mapping[str, Verification]) -> Table:
    table = Table(title=title, title_justify="left", pad_edge=False)
    table.add_column("set", overflow="fold")
    for name in ("pairs", "accuracy", *(f"TAR@{far:g}" for far in FARS), "images/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, result in results.items():
        rates = (f"{result.tar[far]:.2%}" if far in result.tar else "-" for far in FARS)
        accuracy = f"{result.accuracy:.2%} ± {result.standard_error:.2%}"
        table.add_row(name, f"{result.num_pairs:,}", accuracy, *rates, f"{result.images_per_second:,.0f}")
    return table
