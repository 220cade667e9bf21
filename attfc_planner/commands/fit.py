"""``attfc-plan fit``, once its options are checked."""

from __future__ import annotations

from rich.console import Console

from attfc_planner.commands.device import device_for
from attfc_planner.explain.capacity import BACKBONES, FitRequest, bytes_per_identity, fits
from attfc_planner.memory.model import MemoryModel
from attfc_planner.plan.problem import base_profile
from attfc_planner.plan.request import PlanRequest, choose_precision
from attfc_planner.screens.capacity import show_fits
from attfc_planner.screens.tracing import tracing
from attfc_train.document import Precision, StorageName


def fit_gpu(
    console: Console,
    gpu_word: str,
    backbones: list[str] | None,
    share: float,
    storage: StorageName,
    precision: Precision | None,
) -> None:
    """Show how many identities fit the GPU."""
    gpu = device_for(console, gpu_word)
    chosen = choose_precision(precision, gpu)
    request = FitRequest(tuple(dict.fromkeys(backbones or BACKBONES)), share, storage, chosen)
    base = base_profile(PlanRequest(num_ids=2, precision=chosen), gpu)
    with tracing(console, "Seeing what fits"):
        model = MemoryModel(base, gpu, gpu.capacity_bytes)
        table = fits(request, gpu, model)
        kept = bytes_per_identity(request, gpu, model)
    show_fits(console, table, request, gpu, kept)
