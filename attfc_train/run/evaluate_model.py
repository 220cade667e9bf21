"""The table of ``attfc-train evaluate``: a trained model on verification sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from attfc_train.backbones.kinds import build_encoder
from attfc_train.data.report import messages_of
from attfc_train.errors import AttfcError, UsageError, VerificationSetError
from attfc_train.evaluate.embed import evaluate
from attfc_train.evaluate.load import load_verification_sets
from attfc_train.evaluate.pairs import FARS, Verification
from attfc_train.profile.file import load_profile
from attfc_train.run.checkpoint import load_model
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
    path = folder / MODELS[which]
    if which == "best" and not path.exists():
        console.print(f"No {BEST_FILE} in {folder} (the run had no --val): using {MODEL_FILE}.", highlight=False, markup=False)
        path = folder / MODEL_FILE
    model = profile.model
    verification_sets = load_verification_sets(specs, model.image_size)
    for message in messages_of(*(verification_set.report for verification_set in verification_sets)):
        console.print(message, highlight=False, markup=False, soft_wrap=True)
    claim_segments(device)
    with memory_is_enough(device):
        encoder = build_encoder(model, device)
        load_model(path, encoder)
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


def _table(title: str, results: Mapping[str, Verification]) -> Table:
    table = Table(title=escape(title), title_justify="left", pad_edge=False)
    table.add_column("set", overflow="fold")
    for name in ("pairs", "accuracy", *(f"TAR@{far:g}" for far in FARS), "images/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, result in results.items():
        rates = (f"{result.tar[far]:.2%}" if far in result.tar else "-" for far in FARS)
        accuracy = f"{result.accuracy:.2%} ± {result.standard_error:.2%}"
        table.add_row(escape(name), f"{result.num_pairs:,}", accuracy, *rates, f"{result.images_per_second:,.0f}")
    return table
